"""`titans-seq forecast` and `backtest` without a run: a table and the pre-trained forecaster."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from datamodules.time_series.datasets.table import Table
from datamodules.time_series.series import Series
from datamodules.time_series.timestamps import local_times
from titans_seq.config import differences, load_config
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.conformal.adaptive import adapt_in_time
from titans_seq.experiment.forecasting.data import build_table
from titans_seq.experiment.forecasting.panels import HISTORY_HORIZONS, select_panels
from titans_seq.experiment.forecasting.plots import ForecastPanel, plot_forecast_panels
from titans_seq.experiment.forecasting.pretrained.forecaster import (
    FALLBACK,
    MIN_ROWS,
    PretrainedForecaster,
    TableForecast,
    load_forecaster,
    to_table,
)
from titans_seq.experiment.forecasting.scores import Scoring, SeriesForecasts, score_table
from titans_seq.experiment.forecasting.statistical import choose_methods
from titans_seq.experiment.run.output import refuse_to_overwrite, write_table
from titans_seq.models.universal.forecaster import LEVELS
from titans_seq.schema import ForecastingConfig

# Keys of the section `data` that have an effect.
_READ = ("time", "time_format", "timezone", "id", "target", "season", "separator", "encoding", "decimal", "thousands")
_OF_FILES = ("separator", "encoding")  # those of them without effect on a data frame
_NAMED = 5  # series that a note names
_COVERAGE = 0.8  # of the interval between the outer quantiles


def forecast_pretrained(
    out: Path | None,
    overrides: Iterable[str],
    *,
    data: Path | pl.DataFrame | None,
    horizon: int | None,
    plot: Path | None,
    series: Sequence[str],
) -> pl.DataFrame:
    """Forecast the steps after the last row of every series of a table; see `titans_seq.experiment.forecast`."""
    table, config = _open_table(data, overrides)
    refuse_to_overwrite(out, config, data)
    forecasts = load_forecaster().forecast(table, _horizon(horizon))
    has_ids = table.resolved_roles.id is not None
    plotted = select_panels([each.series for each in forecasts], series, has_ids=has_ids) if plot else []
    _print_notes(table, forecasts, has_ids=has_ids)
    result = pl.concat([to_table(each, has_ids) for each in forecasts])
    write_table(result, out)
    if plot is not None:
        panels = [_panel(forecasts[i], c, has_ids=has_ids) for i, c in plotted]
        plot_forecast_panels(plot, panels, title=f"{table.path.stem}: the next {horizon} steps")
    return result


def backtest_pretrained(
    out: Path | None,
    overrides: Iterable[str],
    *,
    data: Path | pl.DataFrame | None,
    windows: int,
    step: int | None,
    horizon: int | None,
    baselines: str,
    adaptive: bool = False,
) -> pl.DataFrame:
    """Return the scores of forecasts of a table's last rows; see `titans_seq.experiment.backtest`."""
    table, config = _open_table(data, overrides)
    refuse_to_overwrite(out, config, data)
    steps = _horizon(horizon)
    panel = table.read()
    for note in table.notes:
        print(f"Note: {note}")
    span = steps + (windows - 1) * (step or steps)
    long_enough = [series for series in panel if len(series.values) >= span + MIN_ROWS]
    if not long_enough:
        longest = max(len(series.values) for series in panel)
        needed = f"{windows} windows of {steps} steps, and {MIN_ROWS} rows before them, need {span + MIN_ROWS} rows"
        advice = "use fewer --windows or a smaller --horizon"
        raise InputError(f"{table.path}: {needed}; the longest series has {longest}: {advice}")
    left_out = [series.name for series in panel if len(series.values) < span + MIN_ROWS]
    _print_left_out(left_out, "too few rows for the windows")
    scoring = Scoring(
        season=table.seasonal_period,
        levels=LEVELS,
        trained=steps,
        coverages=(_COVERAGE,),
        has_ids=table.resolved_roles.id is not None,
        baselines=choose_methods(baselines, table.seasonal_period),
    )
    starts = np.arange(windows)[::-1] * (step or steps) + steps  # rows from a window's first step to the end
    forecasts = _rolling_forecasts(load_forecaster(), long_enough, starts, steps, table.seasonal_period)
    if adaptive:
        forecasts = (adapt_in_time(each, LEVELS.index(0.5)) for each in forecasts)
    return score_table(forecasts, scoring)


def _rolling_forecasts(
    forecaster: PretrainedForecaster, panel: Sequence[Series], starts: np.ndarray, steps: int, season: int
) -> Iterator[SeriesForecasts]:
    """Forecast every series from `starts` rows before its end."""
    period = season if season > 1 else 0
    for series in panel:
        rows = len(series.values) - starts
        contexts = [series.values[:row, c] for row in rows for c in range(len(series.channels))]
        quantiles = forecaster.predict_arrays(contexts, steps, [period] * len(contexts))
        values = np.moveaxis(quantiles.reshape(len(rows), len(series.channels), steps, -1), 1, 2)
        truth = series.values[rows[:, None] + np.arange(steps)]
        yield SeriesForecasts(series, rows, truth, values, {_COVERAGE: (values[..., 0], values[..., -1])})


def _open_table(data: Path | pl.DataFrame | None, overrides: Iterable[str]) -> tuple[Table, ForecastingConfig]:
    """Return the table, unread; raises InputError without one, or for a key that has no effect."""
    if data is None:
        raise InputError("give a trained run, or a table to forecast with the pre-trained forecaster: --data FILE")
    config = load_config((), ["data.name=table", *overrides])
    assert isinstance(config, ForecastingConfig)
    of_files = _OF_FILES if isinstance(data, pl.DataFrame) else ()
    allowed = ("data.name", *(f"data.{name}" for name in _READ if name not in of_files))
    for key, _, _ in differences(ForecastingConfig(), config, ignoring=allowed):
        raise InputError(f"{key}: has no effect without a trained run; available: {', '.join(allowed[1:])}")
    if not isinstance(data, pl.DataFrame):
        config.data.path = str(data)
        return build_table(config.data, fill="missing", infer_roles=True), config
    return build_table(config.data, data, fill="missing", infer_roles=True), config


def _horizon(horizon: int | None) -> int:
    if horizon is None:
        raise InputError("--horizon: the number of steps to forecast, is needed without a trained run")
    if horizon < 1:
        raise InputError(f"--horizon {horizon}: must be at least 1")
    return horizon


def _print_notes(table: Table, forecasts: Sequence[TableForecast], *, has_ids: bool) -> None:
    for note in table.notes:
        print(f"Note: {note}")
    short, outlying = [], []
    for each in forecasts:
        for channel, model, outliers in zip(each.series.channels, each.models, each.outliers, strict=True):
            name = f"{each.series.name}, {channel}" if has_ids else channel
            short += [name] if model == FALLBACK else []
            outlying += [f"{name} ({outliers})"] if outliers else []
    _print_left_out(short, f"fewer than {MIN_ROWS} values: the forecast is the last value, without quantiles")
    _print_left_out(outlying, "values 10,000 times as far from the median as most others are read as missing")


def _print_left_out(names: Sequence[str], reason: str) -> None:
    if names:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        print(f"Note: {', '.join(names[:_NAMED])}{more}: {reason}")


def _panel(forecast: TableForecast, channel: int, *, has_ids: bool) -> ForecastPanel:
    series, values = forecast.series, forecast.quantiles[:, channel]
    length = HISTORY_HORIZONS * len(values)
    name = series.channels[channel]
    return ForecastPanel(
        name=f"{series.name}\n{name}" if has_ids else name,
        past=series.clock()[-length:],
        history=series.values[-length:, channel],
        future=local_times(forecast.times).to_numpy(),
        forecast=values[:, LEVELS.index(0.5)],
        bands={_COVERAGE: (values[:, 0], values[:, -1])},
    )
