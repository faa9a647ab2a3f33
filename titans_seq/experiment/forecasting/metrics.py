"""Accuracy metrics of forecasts of one series, in its units.

W windows, N steps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]


def smape(truth: _Array, forecast: _Array) -> float:
    """Symmetric mean absolute percentage error, 0 to 200: 200 |y - f| / (|y| + |f|), 0 where both are 0."""
    size = np.abs(truth) + np.abs(forecast)
    ratios = np.divide(np.abs(truth - forecast), size, out=np.zeros(truth.shape), where=size > 0)
    return float(200 * ratios.mean())


def naive_error(history: _Array, season: int) -> float:
    """Mean absolute error of the seasonal naive forecast over a history (T,), the denominator of MASE.

    NaN when the history is no longer than a season; missing values, NaN, are left out.
    """
    errors = np.abs(history[season:] - history[:-season])
    errors = errors[~np.isnan(errors)]
    return float(errors.mean()) if len(errors) else float("nan")


def mase(truth: _Array, forecast: _Array, history: _Array, season: int) -> float:
    """Mean absolute scaled error (Hyndman and Koehler, 2006); below 1: better than seasonal naive on the history.

    NaN when the seasonal naive forecast has no error there, or the history is no longer than a season.
    """
    scale = naive_error(history, season)
    return float(np.abs(truth - forecast).mean() / scale) if scale > 0 and truth.size else float("nan")


def weighted_quantile_loss(truth: _Array, quantiles: _Array, levels: Sequence[float]) -> float:
    """Twice the summed pinball loss over the sum of |y|, averaged over levels; NaN if all y are 0."""
    error = truth[..., None] - quantiles
    losses = np.maximum(np.array(levels) * error, (np.array(levels) - 1) * error)
    size = np.abs(truth).sum()
    return float(2 * losses.sum() / len(levels) / size) if size > 0 else float("nan")


def worst_tenth(coverages: _Array) -> float:
    """Mean of the lowest tenth of the coverages of series (S,), of at least one; missing ones, NaN, are left out."""
    known = np.sort(coverages[~np.isnan(coverages)])
    return float(known[: -(-len(known) // 10)].mean()) if len(known) else float("nan")
