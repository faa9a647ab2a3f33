"""Scores of the forecasts of a backtest: a row for each series and channel, and the means.

W windows, N steps, C channels, Q quantiles.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.series import Series
from titans_seq.experiment.forecasting.metrics import mase, smape, weighted_quantile_loss, worst_tenth
from titans_seq.experiment.forecasting.statistical import statistical_forecasts
from titans_seq.experiment.run.console_table import format_table

_HEADINGS = {"mase": "MASE", "smape": "sMAPE", "mse": "MSE", "mae": "MAE", "wql": "WQL"}
_MAX_PRINTED = 20  # series in the printed table
TOTAL, NAIVE = "all", "seasonal naive"  # the last rows: means over the series


class Scoring(NamedTuple):
    """What the scores of all series have in common."""

    season: int  # steps, for MASE and the naive forecast
    levels: Sequence[float]  # of the quantiles; empty: none
    trained: int  # first steps of a forecast that have quantiles and intervals
    coverages: Sequence[float]  # nominal ones of the intervals
    has_ids: bool  # whether rows name their series
    baselines: tuple[str, ...] = ()  # statistical methods beside the seasonal naive forecast


class SeriesForecasts(NamedTuple):
    """Forecasts of one series from all origins, in the units of the series."""

    series: Series
    rows: NDArray[np.int64]  # (W,) first step of each forecast
    truth: NDArray[np.float64]  # (W, N, C), NaN where missing
    values: NDArray[np.float64]  # (W, N, C, Q)
    intervals: dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]]  # (W, N, C) each


def average_forecasts(forecasts: Sequence[SeriesForecasts]) -> SeriesForecasts:
    """Return the mean forecasts of a series, and the mean bounds of its intervals."""
    intervals = {
        nominal: (
            np.mean([f.intervals[nominal][0] for f in forecasts], axis=0),
            np.mean([f.intervals[nominal][1] for f in forecasts], axis=0),
        )
        for nominal in forecasts[0].intervals
    }
    return forecasts[0]._replace(values=np.mean([f.values for f in forecasts], axis=0), intervals=intervals)


def score_table(forecasts: Iterable[SeriesForecasts], scoring: Scoring) -> pl.DataFrame:
    """Return the scores of every series and channel, then the means, also of the baselines' forecasts."""
    rows: list[dict[str, Any]] = []
    of_baselines: dict[str, list[dict[str, Any]]] = {name: [] for name in (NAIVE, *scoring.baselines)}
    for each in forecasts:
        rows += _score(each, scoring)
        of_baselines[NAIVE] += _score(_naive(each, scoring.season), scoring)
        for name in scoring.baselines:
            of_baselines[name] += _score(_statistical(each, name, scoring), scoring)
    means = [_mean(rows, TOTAL), *(_mean(found, name) for name, found in of_baselines.items())]
    table = pl.DataFrame([*rows, *means], infer_schema_length=None)
    return table.with_columns(pl.selectors.float().fill_nan(None))


def _score(forecasts: SeriesForecasts, scoring: Scoring) -> list[dict[str, Any]]:
    """Rows of the table for one series, one per channel; missing values are not scored."""
    many = forecasts.values.shape[-1] > 1
    median = list(scoring.levels).index(0.5) if scoring.levels and many else 0
    scored = []
    for c, channel in enumerate(forecasts.series.channels):
        values = forecasts.values[..., c, :]
        known = ~np.isnan(forecasts.truth[..., c]) & ~np.isnan(values[..., median])
        truth, point = forecasts.truth[..., c][known], values[..., median][known]
        with_quantiles = known & (np.arange(known.shape[1]) < scoring.trained)
        history = forecasts.series.values[: forecasts.rows[0], c]
        row: dict[str, Any] = {"series": forecasts.series.name} if scoring.has_ids else {}
        row |= {
            "channel": channel,
            "windows": len(forecasts.rows),
            "mase": mase(truth, point, history, scoring.season),
            "smape": smape(truth, point) if len(truth) else np.nan,
            "mse": float(np.square(truth - point).mean()) if len(truth) else np.nan,
            "mae": float(np.abs(truth - point).mean()) if len(truth) else np.nan,
        }
        targets = forecasts.truth[..., c][with_quantiles]
        if scoring.levels:
            quantiles = values[with_quantiles]
            row["wql"] = weighted_quantile_loss(targets, quantiles, scoring.levels) if many else np.nan
        for nominal in scoring.coverages:
            coverage = np.nan
            if forecasts.intervals and len(targets):
                low, high = (end[..., c][with_quantiles] for end in forecasts.intervals[nominal])
                coverage = float(((low <= targets) & (targets <= high)).mean())
            row[f"interval_{100 * nominal:g}"] = coverage
        scored.append(row)
    return scored


def _naive(forecasts: SeriesForecasts, season: int) -> SeriesForecasts:
    """Seasonal naive forecasts: the last season before each origin, repeated."""
    steps = forecasts.truth.shape[1]
    season = min(season, int(forecasts.rows[0]))
    before = forecasts.rows[:, None] - season + np.arange(steps) % season
    return forecasts._replace(values=forecasts.series.values[before][..., None], intervals={})


def _statistical(forecasts: SeriesForecasts, method: str, scoring: Scoring) -> SeriesForecasts:
    """Forecasts of the same windows by a statistical method."""
    values, intervals = statistical_forecasts(
        method,
        forecasts.series,
        forecasts.rows,
        forecasts.truth.shape[1],
        season=scoring.season,
        levels=scoring.levels,
        coverages=scoring.coverages,
    )
    return forecasts._replace(values=values, intervals=intervals)


def means_of(table: pl.DataFrame) -> int:
    """Return the number of the last rows of a table of scores that are means over its series."""
    return table["channel"].to_list()[::-1].index(TOTAL) + 1


def _mean(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Unweighted mean of every score over series and channels; NaN scores are left out."""
    total: dict[str, Any] = {}
    for key, value in rows[0].items():
        if isinstance(value, str):
            total[key] = None
        elif key == "windows":
            total[key] = sum(row[key] for row in rows)
        else:
            values = np.array([row[key] for row in rows])
            defined = values[~np.isnan(values)]
            total[key] = float(defined.mean()) if len(defined) else float("nan")
    return {**total, "channel": name}


def backtest_text(table: pl.DataFrame) -> str:
    """Return the table as text: the first series and the means."""
    scores = [name for name in table.columns if name in _HEADINGS or name.startswith("interval_")]
    columns = {name: _HEADINGS.get(name, f"coverage {name.removeprefix('interval_')} %") for name in scores}
    rows, means = {}, means_of(table)
    for row in [*table[:-means].head(_MAX_PRINTED).to_dicts(), *table[-means:].to_dicts()]:
        name = ", ".join(str(row[key]) for key in ("series", "channel") if row.get(key) is not None)
        rows[name] = {key: row[key] for key in scores if row[key] is not None}
    hidden = len(table) - means - _MAX_PRINTED
    more = f"\n({hidden} more series are in the file)" if hidden > 0 else ""
    return format_table(rows, columns, spec=".4g") + more + _worst_coverage(table)


def _worst_coverage(table: pl.DataFrame) -> str:
    """Return a line with the coverage in the worst tenth of the series; empty for one series or without intervals."""
    series = table[: -means_of(table)]
    named = {name: series[name].drop_nulls().to_numpy() for name in table.columns if name.startswith("interval_")}
    parts = [
        f"{100 * worst_tenth(values):.1f} % (nominal {name.removeprefix('interval_')} %)"
        for name, values in named.items()
        if len(values)
    ]
    if len(series) < 2 or not parts:
        return ""
    return f"\n\nCoverage of the intervals in the worst tenth of {len(series):,} series: {', '.join(parts)}"
