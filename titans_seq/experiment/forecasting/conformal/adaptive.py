"""Intervals that adapt in time: wider after misses, narrower after hits.

Adaptive conformal inference (Gibbs and Candes, NeurIPS 2021), applied to the width of an interval instead of its
level: after every forecast whose true values are known, the logarithm of the width grows by `rate` times (missed share
- nominal share of misses). While the width stays bounded, the share of misses tends to the nominal one, however the
series changes.

W windows in order of time, N steps, C channels, K coverages.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_seq.experiment.forecasting.scores import SeriesForecasts

RATE = 1.0  # a horizon of misses alone widens an interval of 95 % 2.6 times, one without any narrows it by 5 %
_FACTOR = 1.01  # an interval is at least this much wider than the narrower ones
_Array = NDArray[np.float64]


class AdaptiveWidths:
    """Factors of the widths of intervals of one or several channels, from their coverage so far.

    Args:
        coverages: nominal ones, ascending (K,).
        channels: number of channels C, each of which adapts on its own.
        rate: change of the logarithm of a width by a horizon of misses.
    """

    def __init__(self, coverages: Sequence[float], channels: int, rate: float = RATE) -> None:
        self.misses = 1 - np.array(coverages)[:, None]  # nominal
        self.rate = rate
        self.logs = np.zeros((len(coverages), channels))

    def apply(self, middle: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any]) -> tuple[_Array, _Array]:
        """Return bounds (K, N, C), nested, for those of unchanged width and the point forecast (N, C) within them."""
        factors = np.exp(self.logs)[:, None]
        below, above = factors * (middle - lower), factors * (upper - middle)
        for k in range(1, len(factors)):
            below[k], above[k] = (np.maximum(side[k], _FACTOR * side[k - 1]) for side in (below, above))
        return middle - below, middle + above

    def update(self, truth: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], weight: float = 1.0) -> None:
        """Adapt to the true values (N, C), NaN where missing, of bounds (K, N, C) that `apply` returned.

        The `weight` of forecasts that overlap is the part of their steps by which they follow each other.
        """
        known = ~np.isnan(truth) & ~np.isnan(lower[0])
        missed = ((truth < lower) | (truth > upper)) & known
        count = known.sum(axis=0)
        share = missed.sum(axis=1) / np.maximum(count, 1)
        self.logs += np.where(count > 0, weight * self.rate * (share - self.misses), 0.0)


def adapt_in_time(forecasts: SeriesForecasts, point: int) -> SeriesForecasts:
    """Return a series' forecasts with intervals adapted to the windows that end before the window begins.

    `point` is the number of the point forecast among the values.
    """
    _, steps, channels = forecasts.truth.shape
    bounds = np.array(list(forecasts.intervals.values()), dtype=np.float64).swapaxes(0, 1)  # (2, K, W, N, C)
    lower, upper = bounds.copy()
    widths = AdaptiveWidths(list(forecasts.intervals), channels)
    for window, ended in enumerate(_ended(forecasts.rows, steps)):
        for before in ended:
            overlap = min(1.0, (forecasts.rows[before + 1] - forecasts.rows[before]) / steps)
            widths.update(forecasts.truth[before], lower[:, before], upper[:, before], float(overlap))
        middle = forecasts.values[window, ..., point]
        lower[:, window], upper[:, window] = widths.apply(middle, *bounds[:, :, window])
    adapted = {nominal: (lower[k], upper[k]) for k, nominal in enumerate(forecasts.intervals)}
    return forecasts._replace(intervals=adapted)


def _ended(rows: NDArray[np.int64], steps: int) -> Iterator[range]:
    """Yield for each window the earlier ones that ended since the window before it; rows (W,) ascend."""
    done = 0
    for row in rows:
        first = done
        while rows[done] + steps <= row:
            done += 1
        yield range(first, done)
