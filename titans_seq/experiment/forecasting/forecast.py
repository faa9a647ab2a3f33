"""`titans-seq forecast`: forecasts of the steps after the last row, by a trained model."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.frames import in_library_of
from datamodules.time_series.future_covariates import read_future
from datamodules.time_series.origin import LAST, steps_until, time_text
from datamodules.time_series.short_series import note
from datamodules.time_series.steps import times_after
from datamodules.time_series.timestamps import local_times, timestamp_text, to_polars
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.baselines import naive_forecast
from titans_seq.experiment.forecasting.data import argument_text, column_roles, read_argument, text_format_of
from titans_seq.experiment.forecasting.inference import (
    Kind,
    Member,
    TrainedForecaster,
    align_series,
    check_steps,
    cut_inputs,
    forecast_recursively,
    load_ensemble,
    new_lines,
    prepare_series,
    print_notes,
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

_NAMED = 5  # series without known covariates that notes name


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
    origin: str | None = None,
) -> Any:
    """Forecast the steps after the last row of every series, in its units; write the table to `out`, if given.

    The table has one row per step and channel: `timestamp`, `channel`, `origin` (the last row's time), `step`,
    `forecast`, quantiles if the model has them (`q0.1`, ...), bounds of the run's conformal intervals (`lower_80`,
    `upper_80`, ...), `model` (what made the forecast), and `series` for a panel. Quantiles and intervals are null
    beyond the trained horizon, where forecasts are recursive: earlier forecasts are fed back as input. They are null
    for naive forecasts too, of series that the model, or one of several, cannot forecast. It is a polars frame, or a
    pandas frame if `data` is one.

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
        origin: time after which all series are forecast, from the rows up to it; "last" is the last time of any series.
            None: each is forecast after its own last row.
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
        if origin is not None:
            raise InputError(f"--origin {origin}: only applies to a trained run, and none was given; omit it")
        table = forecast_pretrained(out, overrides, data=source, horizon=horizon, plot=plot, series=series)
        return in_library_of(data, table)
    members = load_ensemble(checkpoint, source, overrides, refit=True, origin=origin)
    forecaster = members[0].forecaster
    refuse_to_overwrite(out, forecaster.config, source, planned)
    steps = check_steps(forecaster, horizon)
    plans = _plan([member.forecaster for member in members], planned, steps)
    panel = [member.series for member in plans[0].forecaster.scaled_series]
    plotted = select_panels(panel, series, has_ids=forecaster.is_panel) if plot is not None else []
    results = [_forecast_series(plan, steps, plotted) for plan in plans]
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


class _Plan(NamedTuple):
    """What a forecaster forecasts, for every series."""

    forecaster: TrainedForecaster
    gaps: list[int]  # steps from the last row to the origin
    times: list[pl.Series]  # (gap + N,)
    known: list[NDArray[np.float32]]  # (gap + N, K), see `_known_covariates`


def _plan(forecasters: Sequence[TrainedForecaster], future: Path | pl.DataFrame | None, steps: int) -> list[_Plan]:
    """Decide how every series is forecast, in one way by all forecasters; prints notes, each once."""
    said: set[str] = set()
    prepared, known = [], []
    for forecaster in forecasters:
        with new_lines(said):
            prepared.append(prepare_series(forecaster))
    prepared = align_series(prepared)
    first, gaps = _bridge_gaps(prepared[0], steps)  # the others have the same last rows, horizon and covariates
    every = zip([member.series for member in first.scaled_series], gaps, strict=True)
    times = [times_after(each.timestamps, first.encoder.interval, gap + steps, each.timezone) for each, gap in every]
    for i, forecaster in enumerate(prepared):
        with new_lines(said):
            prepared[i], own = _known_covariates(forecaster._replace(kinds=first.kinds), future, times)
        known.append(own)
    return [_Plan(each, gaps, times, own) for each, own in zip(align_series(prepared), known, strict=True)]


def _forecast_series(
    plan: _Plan, steps: int, plotted: Sequence[tuple[int, int]]
) -> tuple[pl.DataFrame, list[ForecastPanel]]:
    """Return one forecaster's table of all series, and the panels of the `plotted` series and channels."""
    tables: dict[int, pl.DataFrame] = {}
    panels: dict[int, list[ForecastPanel]] = {}
    for i, values in _z_scores(plan, steps):
        tables[i], panels[i] = _forecast_table(plan.forecaster, i, plan.times[i], values, plan.gaps[i])
    table = pl.concat([tables[i] for i in range(len(tables))])
    return table, [panels[member][channel] for member, channel in plotted]


def _bridge_gaps(forecaster: TrainedForecaster, steps: int) -> tuple[TrainedForecaster, list[int]]:
    """Return the steps (one number per series) from each series' last row to the origin; prints notes.

    The model forecasts the steps of a gap too, if it is not longer than the trained horizon and needs no covariates
    within it; else the forecast is naive. Without an origin there are no gaps.
    """
    members = [member.series for member in forecaster.scaled_series]
    interval, latest = forecaster.encoder.interval, forecaster.origin
    if latest is None:
        latest = max(series.timestamps[-1] for series in members)
    early = [series for series in members if series.timestamps[-1] < latest and steps_until(series, latest, interval)]
    ends = [f"{series.name}: {time_text(series.timestamps[-1], series.timezone)}" for series in early]
    end = time_text(latest, forecaster.timezone)
    if forecaster.origin is None:
        advice = f"their forecasts follow their own last rows; --origin {LAST} forecasts all series from one time"
        print_notes(note(ends, f"end before the last time, {end}; {advice}"))
        return forecaster, [0] * len(members)
    gaps = [steps_until(series, forecaster.origin, interval) for series in members]
    horizon, encoder = forecaster.config.data.horizon, forecaster.encoder
    too_long = [
        gap > 0 and bool(gap > horizon or encoder.known or (encoder.past and gap + steps > horizon)) for gap in gaps
    ]
    kinds: list[Kind] = ["naive" if far else kind for far, kind in zip(too_long, forecaster.kinds, strict=True)]
    end_of = {series.name: text for series, text in zip(early, ends, strict=True)}
    naive = [each.name for each, far in zip(members, too_long, strict=True) if far]
    short = [each.name for each, gap, far in zip(members, gaps, too_long, strict=True) if gap and not far]
    print_notes(note([end_of[name] for name in naive], f"end before the origin, {end}: the forecast is naive"))
    print_notes(
        note([end_of[name] for name in short], f"end before the origin, {end}: the steps between are forecast too")
    )
    return forecaster._replace(kinds=kinds), gaps


def _known_covariates(
    forecaster: TrainedForecaster, future: Path | pl.DataFrame | None, times: Sequence[pl.Series]
) -> tuple[TrainedForecaster, list[NDArray[np.float32]]]:
    """Scaled known covariates (N, K) of the future steps, for every series.

    The forecast of a series whose known covariates are missing becomes naive, unless that holds for all of them.
    """
    names = forecaster.encoder.known
    if future is not None and not names:
        raise InputError(
            f"--future {argument_text(future)}: the model has no known covariates (data.known was empty); omit the "
            "option"
        )
    columns: list[dict[str, NDArray[Any]]] = [{} for _ in times]
    modelled = [i for i, kind in enumerate(forecaster.kinds) if kind != "naive"]
    if names and modelled:
        options = forecaster.config.data
        if future is None:
            until = max(local_times(times[i])[-1] for i in modelled)
            needed = ", ".join([options.time, *([options.id] if options.id else []), *names])
            raise InputError(f"--future: needed until {timestamp_text(until)}: a table with the columns {needed}")
        roles = column_roles(options)
        own = [forecaster.scaled_series[i].series.name for i in modelled]
        wanted = [times[i] for i in modelled]
        zone, written, levels = forecaster.timezone, text_format_of(options), forecaster.encoder.levels
        found = read_future(future, roles, options.time_format, own, wanted, zone, written, levels)
        faults = {i: each for i, each in zip(modelled, found, strict=True) if isinstance(each, InputError)}
        if faults and (len(faults) == len(modelled) or options.short == "refuse"):
            raise next(iter(faults.values()))
        print_notes(f"{error} The forecast of this series is naive." for error in list(faults.values())[:_NAMED])
        kinds: list[Kind] = ["naive" if i in faults else kind for i, kind in enumerate(forecaster.kinds)]
        forecaster = forecaster._replace(kinds=kinds)
        for i, part in zip(modelled, found, strict=True):
            columns[i] = columns[i] if isinstance(part, InputError) else part
        print_notes(forecaster.encoder.unknown_levels_notes(part for part in columns if part))
    zone, encode = forecaster.timezone, forecaster.encoder.known_future
    empty = np.empty((0, 0), dtype=np.float32)
    return forecaster, [
        empty if kind == "naive" else encode(part, timestamps.to_numpy(), zone)
        for kind, part, timestamps in zip(forecaster.kinds, columns, times, strict=True)
    ]


def _z_scores(plan: _Plan, steps: int) -> Iterator[tuple[int, NDArray[np.float64] | None]]:
    """Yield the index of every series and its z-scored forecast (gap + N, C, Q), None where it is naive."""
    forecaster, gaps = plan.forecaster, plan.gaps
    panel, size = forecaster.scaled_series, forecaster.config.data.batch_size
    yield from ((i, None) for i, kind in enumerate(forecaster.kinds) if kind == "naive")
    for gap in sorted(set(gaps)):
        alike = [i for i, kind in enumerate(forecaster.kinds) if kind != "naive" and gaps[i] == gap]
        for begin in range(0, len(alike), size):
            part = alike[begin : begin + size]
            cut = [cut_inputs(forecaster, panel[i], len(panel[i].scaled), plan.known[i]) for i in part]
            yield from zip(part, forecast_recursively(forecaster, stack_inputs(cut), gap + steps), strict=True)


def _forecast_table(
    forecaster: TrainedForecaster, index: int, times: pl.Series, values: NDArray[Any] | None, gap: int
) -> tuple[pl.DataFrame, list[ForecastPanel]]:
    """Return the table and the plot panels of one series, from its z-scored forecast (gap + N, C, Q).

    None stands for a naive forecast, which has no quantiles and intervals.
    """
    member, quantiles = forecaster.scaled_series[index], forecaster.task.quantile_levels
    timestamps, trained = times.to_numpy(), forecaster.config.data.horizon
    kind = forecaster.kinds[index]
    models = [forecaster.model_name + (", padded" if kind == "padded" else "")] * len(member.series.channels)
    if values is None:
        trained = 0
        naive, models = naive_forecast(member.series, forecaster.encoder.season, len(times))
        values = np.repeat(member.scaler.transform(naive)[..., None], max(1, len(quantiles)), axis=-1)
    units = restore_units(member, values)
    point = units[..., forecaster.task.point].copy()
    if quantiles:
        units[trained:] = np.nan
        units[..., forecaster.task.point] = point
    intervals = {}
    if forecaster.calibration is not None:
        calibration = forecaster.calibration.for_series(member.series.name).for_steps(len(timestamps))
        lower, upper = calibration.intervals(values)
        for nominal, low, high in zip(calibration.coverages, lower, upper, strict=True):
            bounds = restore_units(member, low), restore_units(member, high)
            for bound in bounds:
                bound[trained:] = np.nan
            intervals[nominal] = bounds
    series = member.series
    origin, zone = series.timestamps[-1:], series.timezone
    table = long_table(series.channels, timestamps[None], origin, units[None], quantiles, intervals, timezone=zone)
    made_by = pl.Series("model", models * len(timestamps))
    table = table.with_columns(pl.selectors.float().fill_nan(None), made_by)
    if forecaster.origin is not None:
        common = to_polars(np.array([forecaster.origin]), zone)[0]
        later = table.filter(pl.col("step") > gap)
        table = later.with_columns(pl.col("step") - gap, pl.lit(common, table["origin"].dtype).alias("origin"))
    if forecaster.is_panel:
        table.insert_column(0, pl.Series("series", [series.name] * len(table)))
    length = HISTORY_HORIZONS * (len(timestamps) - gap)
    bands = intervals or _central(units, quantiles)
    panels = [
        ForecastPanel(
            name=f"{series.name}\n{channel}" if forecaster.is_panel else channel,
            past=series.clock()[-length:],
            history=series.values[-length:, c],
            future=local_times(times)[gap:].to_numpy(),
            forecast=point[gap:, c],
            bands={nominal: (low[gap:, c], high[gap:, c]) for nominal, (low, high) in bands.items()},
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
