"""Metrics of point and quantile forecasts.

Missing targets (NaN) are left out of every metric. Q is the number of quantiles, see `forecaster.LEVELS`.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .forecaster import LEVELS

_LEVELS = np.array(LEVELS, np.float32)


def pinball(quantiles: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the pinball loss max(q (y - f), (q - 1) (y - f)) of quantiles f (..., Q) for target y (...)."""
    error = target[..., None] - quantiles
    return np.maximum(_LEVELS * error, (_LEVELS - 1) * error)


def weighted_quantile_loss(quantiles: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Return the weighted quantile loss: twice the pinball loss, averaged over levels, divided by the sum of |y|."""
    return float(2 * np.nansum(pinball(quantiles, target)) / len(LEVELS) / np.nansum(np.abs(target)))


def seasonal_scale(history: NDArray[np.floating], period: int) -> float:
    """Return the in-sample mean absolute error of the seasonal naive forecast, the denominator of the MASE."""
    return float(np.nanmean(np.abs(history[period:] - history[:-period])))


def mase(median: NDArray[np.floating], target: NDArray[np.floating], scale: float) -> float:
    """Return the mean absolute scaled error (Hyndman and Koehler 2006)."""
    return float(np.nanmean(np.abs(target - median)) / scale)


def coverage(quantiles: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Return the fraction of targets between the lowest and the highest quantile: the central 80 % interval."""
    known = np.isfinite(target)
    inside = (quantiles[..., 0] <= target) & (target <= quantiles[..., -1])
    return float(inside[known].mean())


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive values."""
    return float(np.exp(np.mean(np.log(list(values)))))
