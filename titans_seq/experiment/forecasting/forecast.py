"""`titans-seq forecast`: forecasts of the steps after the last row, by a trained model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.future_covariates import read_future
from datamodules.time_series.steps import times_after
from datamodules.time_series.timestamps import local_times, timestamp_text
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.data import build_table, text_format_of
from titans_seq.experiment.forecasting.inference import (
    TrainedForecaster,
    check_steps,
    cut_inputs,
    forecast_recursively,
    load_trained,
    restore_units,
    stack_inputs,
)
from titans_seq.experiment.forecasting.panels import HISTORY_HORIZONS, check_plot, select_panels
from titans_seq.experiment.forecasting.plots import ForecastPanel, plot_forecast_panels
from titans_seq.experiment.forecasting.pretrained.tables import forecast_pretrained
from titans_seq.experiment.forecasting.tables import long_table
from titans_seq.experiment.run.output import check_table, refuse_to_overwrite, write_table
from titans_seq.tasks.quantiles import central_pairs


def forecast(
    checkpoint: str | Path | None,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    data: Path | None = None,
    future: Path | None = None,
    horizon: int | None = None,
    plot: Path | None = None,
    series: Sequence[str] = (),
) -> pl.DataFrame:
    """Forecast the steps after the last row of every series, in its units, and write the table to `out`.

    The table has one row per step and channel: `timestamp`, `channel`, `origin` (the last row's time), `step`,
    `forecast`, quantiles if the model has them (`q0.1`, ...), bounds of the run's conformal intervals (`lower_80`,
    `upper_80`, ...), and `series` for a panel. Quantiles and intervals are null beyond the trained horizon, where
    forecasts are recursive: earlier forecasts are fed back as input.

    Args:
        checkpoint: checkpoint of a forecasting run; None forecasts with the pre-trained forecaster, without training.
        out: CSV by suffix, else Parquet; an existing file is replaced.
        overrides: `key=value` overrides of the checkpoint's configuration.
        data: a table with the columns of the training table; None is the training data themselves.
        future: a table with the known covariates of the future steps.
        horizon: steps; None is the trained horizon.
        plot: a .png file for a plot of the forecasts.
        series: names of the series or channels to plot; empty: the first ones.
    """
    out = Path(out)
    check_table(out)
    check_plot(plot, series)
    if checkpoint is None:
        if future is not None:
            raise InputError(
                f"--future {future}: the pre-trained forecaster uses no covariates; fine-tune it on your data: "
                "titans-seq fit forecasting/finetune"
            )
        return forecast_pretrained(out, overrides, data=data, horizon=horizon, plot=plot, series=series)
    forecaster = load_trained(Path(checkpoint), data, overrides)
    refuse_to_overwrite(out, forecaster.config, data, future)
    steps = check_steps(forecaster, horizon)
    panel = forecaster.scaled_series
    members = [member.series for member in panel]
    plotted = select_panels(members, series, has_ids=forecaster.is_panel) if plot is not None else []
    interval = forecaster.encoder.interval
    times = [times_after(each.timestamps, interval, steps, each.timezone) for each in members]
    known = _known_covariates(forecaster, future, times)
    tables: list[pl.DataFrame] = []
    panels: list[ForecastPanel] = []
    size = forecaster.config.data.batch_size
    for begin in range(0, len(panel), size):
        part = range(begin, min(begin + size, len(panel)))
        cut = [cut_inputs(forecaster, panel[i], len(panel[i].scaled), known[i]) for i in part]
        for i, values in zip(part, forecast_recursively(forecaster, stack_inputs(cut), steps), strict=True):
            table, series_panels = _forecast_table(forecaster, i, times[i], values)
            tables.append(table)
            panels += [series_panels[channel] for member, channel in plotted if member == i]
    _print_notes(forecaster, steps)
    table = pl.concat(tables)
    write_table(table, out)
    if plot is not None:
        every = sum(len(member.series.channels) for member in panel)
        drawn = f" ({len(panels)} of {every:,} series)" if len(panels) < every else ""
        title = f"{Path(forecaster.source_name).stem}: the next {steps} steps{drawn}"
        plot_forecast_panels(plot, panels, title=title)
    return table


def _known_covariates(
    forecaster: TrainedForecaster, future: Path | None, times: Sequence[pl.Series]
) -> list[NDArray[np.float32]]:
    """Scaled known covariates (N, K) of the future steps, for every series."""
    names = forecaster.encoder.known
    if future is not None and not names:
        raise InputError(
            f"--future {future}: the model has no known covariates (data.known was empty); omit the option"
        )
    columns: list[dict[str, NDArray[Any]]] = [{} for _ in times]
    if names:
        options = forecaster.config.data
        if future is None:
            until = max(local_times(timestamps)[-1] for timestamps in times)
            needed = ", ".join([options.time, *([options.id] if options.id else []), *names])
            raise InputError(f"--future: needed until {timestamp_text(until)}: a table with the columns {needed}")
        roles = build_table(options).roles
        names = [member.series.name for member in forecaster.scaled_series]
        zone, written, levels = forecaster.timezone, text_format_of(options), forecaster.encoder.levels
        columns = read_future(future, roles, options.time_format, names, times, zone, written, levels)
        for note in forecaster.encoder.unknown_levels_notes(columns):
            print(f"Note: {note}")
    encode = forecaster.encoder.known_future
    zone = forecaster.timezone
    return [encode(part, timestamps.to_numpy(), zone) for part, timestamps in zip(columns, times, strict=True)]


def _forecast_table(
    forecaster: TrainedForecaster, index: int, times: pl.Series, values: NDArray[Any]
) -> tuple[pl.DataFrame, list[ForecastPanel]]:
    """Return the table and the plot panels of one series, from its z-scored forecast (N, C, Q)."""
    member, quantiles = forecaster.scaled_series[index], forecaster.task.quantile_levels
    timestamps, trained = times.to_numpy(), forecaster.config.data.horizon
    units = restore_units(member, values)
    point = units[..., forecaster.task.point].copy()
    if quantiles:
        units[trained:] = np.nan
        units[..., forecaster.task.point] = point
    intervals = {}
    if forecaster.calibration is not None:
        lower, upper = forecaster.calibration.for_steps(len(timestamps)).intervals(values)
        for nominal, low, high in zip(forecaster.calibration.coverages, lower, upper, strict=True):
            intervals[nominal] = (restore_units(member, low), restore_units(member, high))
    series = member.series
    origin, zone = series.timestamps[-1:], series.timezone
    table = long_table(series.channels, timestamps[None], origin, units[None], quantiles, intervals, timezone=zone)
    table = table.with_columns(pl.selectors.float().fill_nan(None))
    if forecaster.is_panel:
        table.insert_column(0, pl.Series("series", [series.name] * len(table)))
    length = HISTORY_HORIZONS * len(timestamps)
    bands = intervals or _central(units, quantiles)
    panels = [
        ForecastPanel(
            name=f"{series.name}\n{channel}" if forecaster.is_panel else channel,
            past=series.clock()[-length:],
            history=series.values[-length:, c],
            future=local_times(times).to_numpy(),
            forecast=point[:, c],
            bands={nominal: (low[:, c], high[:, c]) for nominal, (low, high) in bands.items()},
        )
        for c, channel in enumerate(series.channels)
    ]
    return table, panels


def _central(units: NDArray[Any], quantiles: Sequence[float]) -> dict[float, tuple[NDArray[Any], NDArray[Any]]]:
    """The widest central interval of the quantiles (N, C, Q), by its coverage; empty without quantiles."""
    pairs = central_pairs(quantiles)
    return {nominal: (units[..., low], units[..., high]) for nominal, (low, high) in list(pairs.items())[-1:]}


def _print_notes(forecaster: TrainedForecaster, steps: int) -> None:
    trained = forecaster.config.data.horizon
    if forecaster.calibration is None:
        print("Note: no conformal intervals: the run has no calibration for this checkpoint")
    if steps > trained and (forecaster.calibration is not None or forecaster.task.has_quantiles):
        later = "later steps are forecast recursively"
        print(f"Note: quantiles and intervals end at step {trained}, the trained horizon; {later}")
