"""`titans-seq forecast`: forecasts of the steps after the last row, by a trained model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.frames import in_library_of
from datamodules.time_series.future_covariates import read_future
from datamodules.time_series.steps import times_after
from datamodules.time_series.timestamps import local_times, timestamp_text
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.data import argument_text, column_roles, read_argument
from titans_seq.experiment.forecasting.inference import (
    Member,
    TrainedForecaster,
    check_steps,
    cut_inputs,
    forecast_recursively,
    load_ensemble,
    restore_units,
    stack_inputs,
)
from titans_seq.experiment.forecasting.panels import HISTORY_HORIZONS, average_panels, check_plot, select_panels
from titans_seq.experiment.forecasting.plots import ForecastPanel, plot_forecast_panels
from titans_seq.experiment.forecasting.pretrained.tables import forecast_pretrained
from titans_seq.experiment.forecasting.tables import average_tables, long_table
from titans_seq.experiment.run.output import check_table, refuse_to_overwrite, write_table
from titans_seq.system.run_folders import REFIT
from titans_seq.tasks.quantiles import central_pairs


def forecast(
    checkpoint: str | Path | Sequence[str | Path] | None,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    data: Any = None,
    future: Any = None,
    horizon: int | None = None,
    plot: Path | None = None,
    series: Sequence[str] = (),
) -> Any:
    """Forecast the steps after the last row of every series, in its units; write the table to `out`, if given.

    The table has one row per step and channel: `timestamp`, `channel`, `origin` (the last row's time), `step`,
    `forecast`, quantiles if the model has them (`q0.1`, ...), bounds of the run's conformal intervals (`lower_80`,
    `upper_80`, ...), and `series` for a panel. Quantiles and intervals are null beyond the trained horizon, where
    forecasts are recursive: earlier forecasts are fed back as input. It is a polars frame, or a pandas frame if `data`
    is one.

    Args:
        checkpoint: checkpoint or folder of a forecasting run, whose weights of `data.refit` are preferred; several of
            them, or a folder of several runs, give the means of their forecasts, quantiles and intervals. None
            forecasts with the pre-trained forecaster, without training.
        out: CSV by suffix, else Parquet; an existing file is replaced.
        overrides: `key=value` overrides of the checkpoint's configuration.
        data: a file, polars frame or pandas frame with the columns of the training table; None is the training data
            themselves.
        future: likewise, with the known covariates of the future steps.
        horizon: steps; None is the trained horizon.
        plot: a .png file for a plot of the forecasts.
        series: names of the series or channels to plot; empty: the first ones.
    """
    out = None if out is None else Path(out)
    check_table(out)
    check_plot(plot, series)
    source, planned = read_argument(data, "data"), read_argument(future, "future")
    if checkpoint is None:
        if future is not None:
            raise InputError(
                f"--future {argument_text(future)}: the pre-trained forecaster uses no covariates; fine-tune it on "
                "your data: titans-seq fit forecasting/finetune"
            )
        table = forecast_pretrained(out, overrides, data=source, horizon=horizon, plot=plot, series=series)
        return in_library_of(data, table)
    members = load_ensemble(checkpoint, source, overrides, refit=True)
    forecaster = members[0].forecaster
    refuse_to_overwrite(out, forecaster.config, source, planned)
    steps = check_steps(forecaster, horizon)
    panel = [member.series for member in forecaster.scaled_series]
    plotted = select_panels(panel, series, has_ids=forecaster.is_panel) if plot is not None else []
    results = [_forecast_series(member.forecaster, planned, steps, plotted) for member in members]
    for member in members:
        _note_selected(member)
    _print_notes(forecaster, steps)
    table = average_tables([result[0] for result in results], [str(member.checkpoint) for member in members])
    write_table(table, out)
    if plot is not None:
        panels = [average_panels(each) for each in zip(*(result[1] for result in results), strict=True)]
        every = sum(len(each.channels) for each in panel)
        drawn = f" ({len(panels)} of {every:,} series)" if len(panels) < every else ""
        title = f"{Path(forecaster.source_name).stem}: the next {steps} steps{drawn}"
        plot_forecast_panels(plot, panels, title=title)
    return in_library_of(data, table)


def _forecast_series(
    forecaster: TrainedForecaster,
    future: Path | pl.DataFrame | None,
    steps: int,
    plotted: Sequence[tuple[int, int]],
) -> tuple[pl.DataFrame, list[ForecastPanel]]:
    """Return one forecaster's table of all series, and the panels of the `plotted` series and channels."""
    panel, interval = forecaster.scaled_series, forecaster.encoder.interval
    series = [member.series for member in panel]
    times = [times_after(each.timestamps, interval, steps, each.timezone) for each in series]
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
    return pl.concat(tables), panels


def _known_covariates(
    forecaster: TrainedForecaster, future: Path | pl.DataFrame | None, times: Sequence[pl.Series]
) -> list[NDArray[np.float32]]:
    """Scaled known covariates (N, K) of the future steps, for every series."""
    names = forecaster.encoder.known
    if future is not None and not names:
        raise InputError(
            f"--future {argument_text(future)}: the model has no known covariates (data.known was empty); omit the "
            "option"
        )
    columns = [np.empty((len(timestamps), 0)) for timestamps in times]
    if names:
        options = forecaster.config.data
        if future is None:
            until = max(local_times(timestamps)[-1] for timestamps in times)
            needed = ", ".join([options.time, *([options.id] if options.id else []), *names])
            raise InputError(f"--future: needed until {timestamp_text(until)}: a table with the columns {needed}")
        roles = column_roles(options)
        names = [member.series.name for member in forecaster.scaled_series]
        columns = read_future(future, roles, options.time_format, names, times, forecaster.timezone)
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


def _note_selected(member: Member) -> None:
    """Print a note for the selected weights of a run that trains others on all rows."""
    if member.forecaster.config.data.refit and member.checkpoint.name != REFIT:
        print(f"Note: {member.checkpoint} was not trained on the validation and test rows (data.refit=true)")


def _print_notes(forecaster: TrainedForecaster, steps: int) -> None:
    trained = forecaster.config.data.horizon
    if forecaster.calibration is None:
        print("Note: no conformal intervals: the run has no calibration for this checkpoint")
    if steps > trained and (forecaster.calibration is not None or forecaster.task.has_quantiles):
        later = "later steps are forecast recursively"
        print(f"Note: quantiles and intervals end at step {trained}, the trained horizon; {later}")
