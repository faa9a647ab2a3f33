"""Means over seeds: Student's t-distribution, and confidence intervals from it."""

import math
import statistics
from collections.abc import Sequence

import numpy as np


def student_p(t: float, degrees: int) -> float:
    """Two-sided tail probability of Student's t-distribution, P(|T| > |t|).

    With x = sqrt(degrees) tan(a) its density is proportional to cos(a)^(degrees - 1), which Gauss-Legendre quadrature
    integrates to rounding.
    """
    nodes, weights = np.polynomial.legendre.leggauss(100)

    def integral(low: float) -> float:
        half = (math.pi / 2 - low) / 2
        angles = low + half * (nodes + 1)
        return float(half * (weights * np.cos(angles) ** (degrees - 1)).sum())

    return integral(math.atan(abs(t) / math.sqrt(degrees))) / integral(0.0)


def student_quantile(p: float, degrees: int) -> float:
    """The t with P(|T| > t) = p, by bisection."""
    low, high = 0.0, 1.0
    while student_p(high, degrees) > p:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, degrees) > p else (low, middle)
    return (low + high) / 2


def mean_interval(values: Sequence[float], coverage: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the mean by Student's t; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = error * student_quantile(1 - coverage, len(values) - 1)
    return mean - half, mean + half
