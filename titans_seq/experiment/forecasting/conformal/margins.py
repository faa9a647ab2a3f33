"""Margins of conformal intervals, by series where it has enough windows, else those of all series.

n windows, H steps, C channels, S series, K coverages, F folds. A score is the error of a forecast in units of the
model's own spread, and a margin is a quantile of scores with the finite-sample correction of split-conformal prediction
(Vovk et al., 2005). The margins of a series are the quantile of its scores divided by its scale, times that scale:

- Its scale is the median over periods of the mean score, the recent ones weighing more, so that neither a short burst
  nor an earlier regime sets it. The logarithm is shrunk towards the mean of all series by the variances between and
  within series (empirical Bayes): few rows, or series that hardly differ, shrink it more.
- Its scores are joined by `_PRIOR` ones that represent those of all series, so that its own outweigh the others where
  it has more windows than that.

Future errors have no part in the scale. So a score is divided by the scale that the other periods, the folds, of its
series give (cross-conformal prediction; Vovk, 2015). They are `_FOLDS` of equal length.
"""

from collections.abc import Sequence
from math import ceil, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_seq.experiment.forecasting.conformal.calibration import Calibration, spreads

_FOLDS = 5
_MEDIAN_VARIANCE = 2.0  # of `_recent_median` for normal values, relative to that of their mean
_PRIOR = 100  # scores that represent all series among those of one
_LEAST_SCORE = 1e-9  # of a fold of perfect forecasts
_ONE_ERROR = pi**2 / 8  # variance within series where none has two folds: that of log |x|, x normal
# The next coverage's margin is at least this much larger, so that intervals differ where errors are equal.
_FACTOR, _STEP = 1.01, 1e-6
_Array = NDArray[np.float64]


class WindowScores(NamedTuple):
    """Scores of the calibration windows."""

    values: NDArray[np.float32]  # (n, H, C)
    series: NDArray[np.int64]  # (n,), number of each window's series
    rows: NDArray[np.int64]  # (n,), row of its series at which the forecast begins


class _Scales(NamedTuple):
    """Distribution of the logarithm of the series' scales."""

    mean: float
    between: float  # variance between series
    within: float  # variance between the folds of a series

    def shrink(self, logs: _Array, folds: NDArray[np.int64]) -> _Array:
        """Return scales for their logarithms, each over a number of folds; the mean where that is 0."""
        noise = _MEDIAN_VARIANCE * self.within / np.maximum(folds, 1)
        weights = self.between / (self.between + noise) if self.between > 0 else np.zeros_like(noise)
        return np.exp(self.mean + np.where(folds > 0, weights * (logs - self.mean), 0.0))


def conformal_scores(forecasts: NDArray[Any], truth: NDArray[Any], quantiles: Sequence[float]) -> NDArray[np.float32]:
    """Distance (n, H, C) of the truth (n, H, C) from the median, divided by the model's spread on that side."""
    middle, below, above = spreads(forecasts, quantiles)
    error = truth - middle
    return (np.abs(error) / np.where(error < 0, below, above)).astype(np.float32)


def calibrate(
    scores: WindowScores, names: Sequence[str], quantiles: Sequence[float], coverages: Sequence[float]
) -> Calibration:
    """Margins from scores of the series `names` (S,); the channels of a single series are calibrated as series.

    Coverages for which n windows are too few are left out: the ceil((n + 1) coverage)-th smallest of n does not exist.
    """
    count, horizon, channels = scores.values.shape
    kept = [coverage for coverage in coverages if _rank(count, coverage) <= count]
    margins = _order_statistics(scores.values, kept)
    own: dict[str, _Array] = {}
    if kept and len(names) > 1:
        each = [
            series_margins(scores._replace(values=scores.values[..., [c]]), len(names), kept) for c in range(channels)
        ]
        calibrated = np.unique(scores.series)
        own = {names[i]: _apart(np.concatenate([margins[i] for margins in each], axis=-1)) for i in calibrated}
    elif kept and channels > 1:
        values = np.moveaxis(scores.values, -1, 0).reshape(-1, horizon, 1)
        by_channel = WindowScores(values, np.repeat(np.arange(channels), count), np.tile(scores.rows, channels))
        margins = np.moveaxis(series_margins(by_channel, channels, kept)[..., 0], 0, -1)
    return Calibration(kept, _apart(margins), list(quantiles), count, own)


def series_margins(scores: WindowScores, count: int, coverages: Sequence[float]) -> _Array:
    """Margins (S, K, H, 1) of `count` series from scores (n, H, 1); see the module."""
    scales, held_out = _scales(scores, count)
    standard = scores.values / held_out
    size = max(_PRIOR, ceil(1 / (1 - max(coverages))))  # enough for the widest interval of a series without windows
    prior = _order_statistics(standard, (np.arange(size) + 0.5) / size)
    order = np.argsort(scores.series, kind="stable")
    groups = np.split(standard[order], np.cumsum(np.bincount(scores.series, minlength=count))[:-1])
    margins = [_order_statistics(np.concatenate([own, prior]), coverages) for own in groups]
    return scales[:, None, None, None] * np.stack(margins)


def _scales(scores: WindowScores, count: int) -> tuple[_Array, NDArray[np.float32]]:
    """Return the scale of each series (S,), and that of each score (n, H, 1) without its fold."""
    index = scores.series[:, None] * _FOLDS + _folds(scores, count)
    cells: NDArray[np.int64] = np.bincount(index.ravel(), None, count * _FOLDS).reshape(count, _FOLDS)
    sums = np.bincount(index.ravel(), scores.values.ravel(), count * _FOLDS).reshape(count, _FOLDS)
    means = np.divide(sums, cells, out=np.full(cells.shape, np.nan), where=cells > 0)
    fold_logs = np.log(np.maximum(means, _LEAST_SCORE))
    logs, folds = _recent_median(fold_logs), (cells > 0).sum(axis=1)
    found = _fit_scales(fold_logs, logs, folds)
    held_out = np.empty_like(means)
    for fold in range(_FOLDS):
        others = np.where(np.arange(_FOLDS) == fold, np.nan, fold_logs)
        held_out[:, fold] = found.shrink(_recent_median(others), (~np.isnan(others)).sum(axis=1))
    return found.shrink(logs, folds), held_out.ravel()[index][..., None].astype(np.float32)


def _recent_median(fold_logs: _Array) -> _Array:
    """Median (S,) over folds (S, F), the first of which weighs 1, the next 2 and so on; NaN without folds."""
    order = np.argsort(fold_logs, axis=1)  # NaN last
    weights = np.take_along_axis(np.where(np.isnan(fold_logs), 0, np.arange(1, _FOLDS + 1)), order, axis=1)
    middle = np.argmax(2 * weights.cumsum(axis=1) >= weights.sum(axis=1, keepdims=True), axis=1)
    chosen: _Array = np.take_along_axis(fold_logs, np.take_along_axis(order, middle[:, None], axis=1), axis=1)[:, 0]
    return chosen


def _folds(scores: WindowScores, count: int) -> NDArray[np.int64]:
    """Return the fold (n, H) of each score, by the row that it forecasts."""
    rows = scores.rows[:, None] + np.arange(scores.values.shape[1])
    first, last = np.full(count, rows.max()), np.zeros(count, dtype=np.int64)
    np.minimum.at(first, scores.series, rows[:, 0])
    np.maximum.at(last, scores.series, rows[:, -1])
    length = (last - first + 1)[scores.series, None]
    folds: NDArray[np.int64] = (rows - first[scores.series, None]) * _FOLDS // length
    return folds


def _fit_scales(fold_logs: _Array, logs: _Array, folds: NDArray[np.int64]) -> _Scales:
    """Fit from the logarithms of the mean scores of folds (S, F), NaN where there is none, and series (S,)."""
    several, present = folds > 1, folds > 0
    within = float(np.nanvar(fold_logs[several], axis=1, ddof=1).mean()) if several.any() else _ONE_ERROR
    noise = _MEDIAN_VARIANCE * float((within / folds[present]).mean())
    total = float(logs[present].var(ddof=1)) if present.sum() > 1 else 0.0
    return _Scales(float(logs[present].mean()), max(total - noise, 0.0), within)


def _order_statistics(scores: NDArray[Any], levels: Sequence[float] | _Array) -> _Array:
    """For each level the ceil((n + 1) level)-th smallest of n scores (n, ...), the largest where that exceeds n."""
    count = len(scores)
    ranks = [min(_rank(count, float(level)), count) for level in levels]
    chosen: _Array = np.sort(scores, axis=0)[np.array(ranks, dtype=np.int64) - 1].astype(np.float64)
    return chosen


def _rank(count: int, level: float) -> int:
    return ceil((count + 1) * level - 1e-9)  # 0.8 of 10 must be 8 despite rounding errors


def _apart(margins: _Array) -> _Array:
    """Enlarge margins (K, ...) so that each exceeds those of smaller coverages."""
    margins = margins.copy()
    for k in range(1, len(margins)):
        margins[k] = np.maximum(margins[k], _FACTOR * margins[k - 1] + _STEP)
    return margins
