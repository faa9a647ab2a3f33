"""How far forecasts were off, in the units of the series.

W windows, N steps; one series.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]


def smape(truth: _Array, forecast: _Array) -> float:
    """Symmetric mean absolute percentage error, 0 to 200: 200 |y - f| / (|y| + |f|), 0 where both are 0."""
    size = np.abs(truth) + np.abs(forecast)
    shares = np.divide(np.abs(truth - forecast), size, out=np.zeros(truth.shape), where=size > 0)
    return float(200 * shares.mean())


def naive_error(history: _Array, season: int) -> float:
    """Mean absolute error of saying what was one season ago, over a history (T,): what MASE divides by.

    NaN without two seasons to compare.
    """
    return float(np.abs(history[season:] - history[:-season]).mean()) if len(history) > season else float("nan")


def mase(truth: _Array, forecast: _Array, history: _Array, season: int) -> float:
    """Mean absolute scaled error (Hyndman and Koehler, 2006): below 1 is better than the seasonal naive was in history.

    NaN when that made no error at all, or the history is no longer than a season.
    """
    scale = naive_error(history, season)
    return float(np.abs(truth - forecast).mean() / scale) if scale > 0 else float("nan")


def weighted_quantile_loss(truth: _Array, quantiles: _Array, levels: Sequence[float]) -> float:
    """Twice the summed pinball loss over the sum of |y|, averaged over levels; NaN if all y are 0."""
    error = truth[..., None] - quantiles
    losses = np.maximum(np.array(levels) * error, (np.array(levels) - 1) * error)
    size = np.abs(truth).sum()
    return float(2 * losses.sum() / len(levels) / size) if size > 0 else float("nan")
