"""Automatic statistical forecasts beside a model in a backtest: AutoETS, AutoTheta and MSTL of statsforecast.

W windows, N steps, C channels, Q quantiles.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.series import Series
from titans_seq.errors import InputError

METHODS = ("AutoETS", "AutoTheta", "MSTL")
_MOST_ROWS = 2000  # of the history, the last ones: the time of AutoETS grows with them
_LONGEST_ETS = 24  # seasonal period; beyond it AutoETS has no seasonal component


def choose_methods(baselines: str, season: int) -> tuple[str, ...]:
    """Return the methods of `--baselines`: none, all that suit the seasonal period (`auto`), or the named ones.

    Raises InputError for another name, and when the package that computes them is not installed.
    """
    if baselines == "none":
        return ()
    names = METHODS if baselines == "auto" else tuple(baselines.split(","))
    if unknown := [name for name in names if name not in METHODS]:
        raise InputError(f"--baselines {unknown[0]}: expected none, auto, or some of {','.join(METHODS)}")
    if find_spec("statsforecast") is None:
        raise InputError(
            f"--baselines {baselines}: requires the package statsforecast: pip install 'titans-seq[baselines]'"
        )
    if season <= 1 and "MSTL" in names:
        if baselines != "auto":
            raise InputError("--baselines MSTL: requires a seasonal period above 1; set data.season")
        names = tuple(name for name in names if name != "MSTL")
    return names


def statistical_forecasts(
    method: str,
    series: Series,
    rows: NDArray[np.int64],
    steps: int,
    *,
    season: int,
    levels: Sequence[float],
    coverages: Sequence[float],
) -> tuple[NDArray[np.float64], dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Fit a method anew before every window of a series, on the last 2,000 rows before it, and forecast the window.

    Missing values are interpolated linearly, as the methods accept none. Central intervals give the quantiles, the
    point forecast the median. A history that a method cannot be fitted to gives NaN.

    Args:
        method: one of METHODS.
        series: the series, C channels.
        rows: (W,) first row of every window.
        steps: N.
        season: seasonal period in steps.
        levels: Q quantile levels; empty: the point forecast alone (Q = 1).
        coverages: nominal coverages of the intervals.

    Returns:
        Forecasts (W, N, C, Q), and the ends of the intervals, (W, N, C) each, by coverage.
    """
    channels = len(series.channels)
    shape = (len(rows), steps, channels)
    values = np.full((*shape, max(1, len(levels))), np.nan)
    ends = {coverage: (np.full(shape, np.nan), np.full(shape, np.nan)) for coverage in coverages}
    for w, row in enumerate(rows):
        for c in range(channels):
            history = _interpolated(series.values[max(0, row - _MOST_ROWS) : row, c])
            found = _fit(method, history, steps, season, _percents(levels, coverages))
            if found is None:
                continue
            for q, level in enumerate(levels or [0.5]):
                values[w, :, c, q] = found["mean"] if level == 0.5 else found[_key(level)]
            for coverage, (low, high) in ends.items():
                low[w, :, c], high[w, :, c] = found[_key((1 - coverage) / 2)], found[_key((1 + coverage) / 2)]
    return values, ends


def _percents(levels: Sequence[float], coverages: Sequence[float]) -> list[float]:
    """Return the central intervals, in percent, that have the quantiles and the coverages as their ends."""
    of_levels = {_percent(level) for level in levels if level != 0.5}
    return sorted(of_levels | {_percent((1 + coverage) / 2) for coverage in coverages})


def _percent(level: float) -> float:
    return round(100 * abs(2 * level - 1), 6)


def _key(level: float) -> str:
    """Return the name that statsforecast gives to a quantile."""
    return f"{'lo' if level < 0.5 else 'hi'}-{_percent(level)}"


def _fit(
    method: str, history: NDArray[np.float64], steps: int, season: int, percents: list[float]
) -> dict[str, Any] | None:
    """Return statsforecast's forecast by name; None where it cannot be fitted."""
    models = import_module("statsforecast.models")

    if not len(history):
        return None
    if method == "AutoETS" and season > _LONGEST_ETS:
        season = 1
    try:
        model = getattr(models, method)(season_length=max(1, season))
        found: dict[str, Any] = model.forecast(y=history, h=steps, level=percents or None)
    except Exception:  # noqa: BLE001 - whatever it is, one series must not take the scores of the others
        return None
    return found


def _interpolated(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values (T,) with missing ones interpolated; those before the first known one are left out."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.empty(0)
    return np.interp(np.arange(known[0], len(values)), known, values[known])
