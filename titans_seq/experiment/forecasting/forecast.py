"""`titans-seq forecast`: what comes after the last row, with a trained model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.future_covariates import read_future
from datamodules.time_series.timestamps import times_after, timestamp_text
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.data import build_table
from titans_seq.experiment.forecasting.inference import (
    TrainedForecaster,
    check_steps,
    cut_inputs,
    forecast_recursively,
    load_forecaster,
    restore_units,
    stack_inputs,
)
from titans_seq.experiment.forecasting.plots import ForecastPanel, plot_forecast_panels
from titans_seq.experiment.forecasting.tables import long_table
from titans_seq.experiment.run.output import check_table, check_writable, refuse_to_overwrite, write_table
from titans_seq.tasks.quantiles import central_pairs

_PICTURES = 6  # series and channels that a plot shows
_HISTORY_HORIZONS = 3


def forecast(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    data: Path | None = None,
    future: Path | None = None,
    horizon: int | None = None,
    plot: Path | None = None,
) -> pl.DataFrame:
    """Forecast the steps after the last row of every series, in its units, and write the table to `out`.

    A row per step and channel: `timestamp`, `channel`, `origin` (the last row's time), `step`, `forecast`, quantiles
    if the model has them (`q0.1`, ...), ends of the run's conformal intervals (`lower_80`, `upper_80`, ...), of a panel
    also `series`. Quantiles and intervals are null beyond the trained horizon: the steps there take a forecast as seen.

    Args:
        checkpoint: of a forecasting run.
        out: CSV by suffix, else Parquet; a file that is there is replaced.
        overrides: `key=value` words for the checkpoint's configuration.
        data: a table laid out as the one of training; None takes the data of training themselves.
        future: a table of the known covariates of the steps to come.
        horizon: steps; None is the trained horizon.
        plot: a .png file to draw.
    """
    out = Path(out)
    check_table(out)
    if plot is not None:
        check_writable(plot, "--plot")
        if plot.suffix != ".png":
            raise InputError(f"--plot {plot}: takes a .png file")
    run = load_forecaster(Path(checkpoint), data, overrides)
    refuse_to_overwrite(out, run.config, data, future)
    steps = check_steps(run, horizon)
    times = [times_after(m.series.timestamps, run.layout.interval, steps) for m in run.members]
    known = _known(run, future, times)
    tables: list[pl.DataFrame] = []
    panels: list[ForecastPanel] = []
    size = run.config.data.batch_size
    for begin in range(0, len(run.members), size):
        part = range(begin, min(begin + size, len(run.members)))
        cut = [cut_inputs(run, run.members[i], len(run.members[i].scaled), known[i]) for i in part]
        for i, values in zip(part, forecast_recursively(run, stack_inputs(cut), steps), strict=True):
            table, pictures = _forecast_table(run, i, times[i], values)
            tables.append(table)
            panels += pictures if len(panels) < _PICTURES else []
    _print_notes(run, steps)
    table = pl.concat(tables)
    write_table(table, out)
    if plot is not None:
        plot_forecast_panels(plot, panels[:_PICTURES], title=f"{Path(run.place).stem}: the next {steps} steps")
    return table


def _known(run: TrainedForecaster, future: Path | None, times: Sequence[pl.Series]) -> list[NDArray[np.float32]]:
    """What is known of the steps to come, scaled (N, K), for every series."""
    names = run.layout.known
    if future is not None and not names:
        raise InputError(f"--future {future}: the model takes no covariates of the future; data.known was empty")
    columns = [np.empty((len(stamps), 0)) for stamps in times]
    if names:
        options = run.config.data
        if future is None:
            until = max(stamps[-1] for stamps in times)
            needed = ", ".join([options.time, *([options.id] if options.id else []), *names])
            raise InputError(f"--future: needed until {timestamp_text(until)}: a table with the columns {needed}")
        roles = build_table(options).roles
        columns = read_future(future, roles, options.time_format, [m.series.name for m in run.members], times)
    return [run.layout.known_future(part, stamps.to_numpy()) for part, stamps in zip(columns, times, strict=True)]


def _forecast_table(
    run: TrainedForecaster, index: int, times: pl.Series, values: NDArray[Any]
) -> tuple[pl.DataFrame, list[ForecastPanel]]:
    """The table and the pictures of one series' forecast (N, C, Q), z-scored."""
    member, quantiles = run.members[index], run.task.quantile_levels
    stamps, trained = times.to_numpy(), run.config.data.horizon
    units = restore_units(member, values)
    point = units[..., run.task.point].copy()
    if quantiles:
        units[trained:] = np.nan
        units[..., run.task.point] = point
    intervals = {}
    if run.calibration is not None:
        lower, upper = run.calibration.for_steps(len(stamps)).intervals(values)
        for nominal, low, high in zip(run.calibration.coverages, lower, upper, strict=True):
            intervals[nominal] = (restore_units(member, low), restore_units(member, high))
    series = member.series
    table = long_table(series.channels, stamps[None], series.timestamps[-1:], units[None], quantiles, intervals)
    table = table.with_columns(pl.selectors.float().fill_nan(None))
    if run.is_panel:
        table.insert_column(0, pl.Series("series", [series.name] * len(table)))
    shown = _HISTORY_HORIZONS * len(stamps)
    bands = intervals or _central(units, quantiles)
    panels = [
        ForecastPanel(
            name=f"{series.name}, {channel}" if run.is_panel else channel,
            past=series.timestamps[-shown:],
            history=series.values[-shown:, c],
            future=stamps,
            forecast=point[:, c],
            bands={nominal: (low[:, c], high[:, c]) for nominal, (low, high) in bands.items()},
        )
        for c, channel in enumerate(series.channels)
    ]
    return table, panels


def _central(units: NDArray[Any], quantiles: Sequence[float]) -> dict[float, tuple[NDArray[Any], NDArray[Any]]]:
    """The widest central interval that the quantiles (N, C, Q) hold, as long as they are given."""
    pairs = central_pairs(quantiles)
    return {nominal: (units[..., low], units[..., high]) for nominal, (low, high) in list(pairs.items())[-1:]}


def _print_notes(run: TrainedForecaster, steps: int) -> None:
    trained = run.config.data.horizon
    if run.calibration is None:
        print("Note: no conformal intervals: the run keeps none for this checkpoint")
    if steps > trained and (run.calibration is not None or run.task.has_quantiles):
        print(f"Note: quantiles and intervals end at step {trained}, the trained horizon; later steps are rolled")
