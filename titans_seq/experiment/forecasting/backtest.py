"""`titans-seq backtest`: rolling-origin evaluation on the last rows of a table."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from datamodules.common.frames import in_library_of
from datamodules.time_series.datamodule import ForecastingDataModule, ScaledSeries
from datamodules.time_series.series import SplitBoundaries
from datamodules.time_series.timestamps import local_times, timestamp_text, to_polars
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.conformal.adaptive import adapt_in_time
from titans_seq.experiment.forecasting.data import build_data_module, read_argument
from titans_seq.experiment.forecasting.experiment import ForecastingExperiment
from titans_seq.experiment.forecasting.inference import (
    Member,
    TrainedForecaster,
    align_series,
    check_steps,
    cut_inputs,
    forecast_recursively,
    load_ensemble,
    new_lines,
    prepare_series,
    restore_units,
    stack_inputs,
)
from titans_seq.experiment.forecasting.pretrained.tables import backtest_pretrained
from titans_seq.experiment.forecasting.scores import Scoring, SeriesForecasts, average_forecasts, score_table
from titans_seq.experiment.forecasting.statistical import choose_methods
from titans_seq.experiment.run.output import check_table, refuse_to_overwrite, write_table
from titans_seq.experiment.run.refit import SelectedSteps, train_for
from titans_seq.tasks import ForecastingTask

_HELD_OUT = 8  # with --refit, one of so many rows before a window selects the penalty of the linear map


def backtest(
    checkpoint: str | Path | Sequence[str | Path] | None,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    data: Any = None,
    windows: int = 10,
    step: int | None = None,
    horizon: int | None = None,
    baselines: str = "none",
    adaptive: bool = False,
    refit: bool = False,
) -> Any:
    """Evaluate forecasts of the last rows of every series from `windows` origins; write the scores to `out`, if given.

    The last forecast ends with the last row; each earlier one begins `step` rows before the next. The table has one row
    per series and channel: `windows`, `mase`, `smape`, `mse`, `mae` in the series' units, `wql` if the model has
    quantiles, `interval_80` and so on (empirical coverage of the run's intervals); then the means over series, of this
    model and of the seasonal naive forecast. MASE divides by the naive error over the rows before the first forecast.
    Quantiles and intervals are scored up to the trained horizon. With `data.short=pad` a shorter series has fewer
    windows, from the first with a season of rows before it on. The weights are those that validation selected, not
    those of `data.refit`, which have seen these rows.

    Args:
        checkpoint, out, overrides, data: see `titans_seq.experiment.forecast`; `out` is CSV by suffix, else Parquet.
        windows: forecasts per series.
        step: rows between the starts of two forecasts; None is the horizon.
        horizon: steps per forecast; None is the trained horizon.
        baselines: statistical methods whose means stand below: none, auto (AutoETS, AutoTheta and MSTL of
            statsforecast, fitted anew before every window), or some of these names, separated by commas.
        adaptive: widen or narrow the intervals of a series after every window by its coverage so far, see
            `titans_seq.experiment.forecasting.conformal.adaptive`; those of several runs after their mean is taken.
        refit: train a new model for every window, as long as the run's was, on the rows before the window alone. Its
            scales and intervals stay those of the run.
    """
    out = None if out is None else Path(out)
    check_table(out)
    if windows < 1 or (step is not None and step < 1):
        raise InputError(f"--windows {windows} --step {step or 'horizon'}: both must be at least 1")
    source = read_argument(data, "data")
    if checkpoint is None and refit:
        raise InputError("--refit: trains the model of a run again; the pre-trained forecaster is not trained")
    if checkpoint is None:
        table = backtest_pretrained(
            out,
            overrides,
            data=source,
            windows=windows,
            step=step,
            horizon=horizon,
            baselines=baselines,
            adaptive=adaptive,
        )
        write_table(table, out)
        return in_library_of(data, table)
    members = load_ensemble(checkpoint, source, overrides, refit=False)
    forecaster = members[0].forecaster
    refuse_to_overwrite(out, forecaster.config, source)
    if adaptive and forecaster.calibration is None:
        raise InputError("--adaptive: the run has no intervals to adapt; train it with task.intervals=[0.8,0.95]")
    steps = check_steps(forecaster, horizon)
    plans = _plan(members, windows, steps if step is None else step, steps)
    for member, origins in {member.forecaster.encoder.trained_until: (member, o) for member, o in plans}.values():
        _warn_of_training_rows(member.forecaster, origins, refit=refit)
    scoring = Scoring(
        season=forecaster.encoder.season,
        levels=forecaster.task.quantile_levels,
        trained=forecaster.config.data.horizon,
        coverages=forecaster.calibration.coverages if forecaster.calibration else (),
        has_ids=forecaster.is_panel,
        baselines=choose_methods(baselines, forecaster.encoder.season),
    )
    forecast_all = _forecast_refitted if refit else _forecast_selected
    parts = zip(*(forecast_all(member, origins, steps) for member, origins in plans), strict=True)
    forecasts: Iterable[SeriesForecasts] = map(average_forecasts, parts)
    if adaptive:
        forecasts = (adapt_in_time(each, forecaster.task.point) for each in forecasts)
    table = score_table(forecasts, scoring)
    write_table(table, out)
    return in_library_of(data, table)


def _origins(
    forecaster: TrainedForecaster, member: ScaledSeries, windows: int, step: int, steps: int, *, fewer: bool = False
) -> NDArray[np.int64]:
    """First rows (W,) of the forecasts of a series; with `fewer`, as many of the windows as it has rows for."""
    last = len(member.scaled) - steps
    first = last - (windows - 1) * step
    length = forecaster.config.data.context_length
    if fewer:
        first += max(0, -(-(length - first) // step)) * step
    if first < length:
        name = f"series {member.series.name!r}: " if forecaster.is_panel else ""
        most = max(0, (last - length) // step + 1)
        raise InputError(
            f"{forecaster.source_name}: {name}{len(member.scaled)} rows; {windows} windows of {steps} steps, {step} "
            f"rows apart, and data.context_length={length} before them need {length + steps + (windows - 1) * step}; "
            + (f"use --windows {most} or fewer" if most else "one window does not fit; use a longer series")
        )
    return np.arange(first, last + 1, step)


def _plan(
    members: Sequence[Member], windows: int, step: int, steps: int
) -> list[tuple[Member, list[NDArray[np.int64]]]]:
    """Return every member with the series that all of them forecast, and the origins (W,) of each, by its own rows."""
    said, prepared = set[str](), []
    for member in members:
        with new_lines(said):
            prepared.append(_prepare(member.forecaster, windows, step, steps))
    prepared = align_series(prepared)
    origins = [
        [
            _origins(each, member, windows, step, steps, fewer=kind == "padded")
            for member, kind in zip(each.scaled_series, each.kinds, strict=True)
        ]
        for each in prepared
    ]
    counts = [min(map(len, every)) for every in zip(*origins, strict=True)]  # contexts may be of several lengths
    origins = [[rows[-count:] for rows, count in zip(own, counts, strict=True)] for own in origins]
    return [
        (member._replace(forecaster=_scale_unseen(each, own)), own)
        for member, each, own in zip(members, prepared, origins, strict=True)
    ]


def _prepare(forecaster: TrainedForecaster, windows: int, step: int, steps: int) -> TrainedForecaster:
    """Leave out series that the model cannot forecast from any origin, and pad short ones."""
    if forecaster.config.data.short == "refuse":
        return forecaster
    longest = max(forecaster.scaled_series, key=lambda member: len(member.scaled))
    _origins(forecaster, longest, windows, step, steps)  # raises an error where even this one is too short
    return prepare_series(forecaster, span=steps + (windows - 1) * step, steps=steps, naive=False)


def _scale_unseen(forecaster: TrainedForecaster, origins: list[NDArray[np.int64]]) -> TrainedForecaster:
    """Scale series unseen in training by their rows before the first origin alone."""
    if not forecaster.is_panel:
        return forecaster
    seen, panel = forecaster.encoder.scalers, zip(forecaster.scaled_series, origins, strict=True)
    robust = forecaster.config.data.scaling == "robust"
    scaled = [
        member if member.series.name in seen else member.rescaled(int(rows[0]), robust=robust) for member, rows in panel
    ]
    return forecaster._replace(scaled_series=scaled)


def _forecast_selected(member: Member, origins: list[NDArray[np.int64]], steps: int) -> Iterator[SeriesForecasts]:
    """Forecast series by series with the weights of the checkpoint."""
    return _forecast_series(member.forecaster, origins, steps)


def _forecast_refitted(member: Member, origins: list[NDArray[np.int64]], steps: int) -> Iterator[SeriesForecasts]:
    """Forecast window by window with weights that are trained on the rows before the window."""
    forecaster, selected = member.forecaster, SelectedSteps.of(member.checkpoint)
    longest = max(origins, key=len)
    print(f"Note: --refit trains {len(longest)} times for {selected.steps:,} steps, on the rows before each window")
    by_series: list[list[SeriesForecasts]] = [[] for _ in origins]
    for back in (longest[-1] - longest).tolist():  # rows from the window's first step to that of the last window
        ends = [int(rows[-1]) - back for rows in origins]
        due = [i for i, (rows, end) in enumerate(zip(origins, ends, strict=True)) if end >= rows[0]]
        trained = _train_until(member, selected, ends)
        trained = trained._replace(scaled_series=[forecaster.scaled_series[i] for i in due])
        found = _forecast_series(trained, [np.array([ends[i]]) for i in due], steps)
        for i, forecasts in zip(due, found, strict=True):
            by_series[i].append(forecasts)
    yield from map(_join_windows, by_series)


def _join_windows(parts: Sequence[SeriesForecasts]) -> SeriesForecasts:
    """Return the forecasts of a series from all origins, of those from one origin each."""
    intervals = {
        nominal: (
            np.concatenate([part.intervals[nominal][0] for part in parts]),
            np.concatenate([part.intervals[nominal][1] for part in parts]),
        )
        for nominal in parts[0].intervals
    }
    rows, truth, values = (np.concatenate([part[k] for part in parts]) for k in (1, 2, 3))
    return SeriesForecasts(parts[0].series, rows, truth, values, intervals)


def _train_until(member: Member, selected: SelectedSteps, ends: list[int]) -> TrainedForecaster:
    """Train a new task on the rows before `ends`, one for each series; series without a window there are left out."""
    forecaster, options, encoder = member.forecaster, member.forecaster.config.data, member.forecaster.encoder
    window = options.context_length + options.horizon
    held_out = [max(options.horizon, end // _HELD_OUT) for end in ends]
    if max(end - held for end, held in zip(ends, held_out, strict=True)) < window:
        raise InputError(
            f"{forecaster.source_name}: --refit: at most {max(ends)} rows before a window are too few to train on and "
            "to select a linear map; use fewer --windows"
        )

    def data(boundaries: list[SplitBoundaries]) -> ForecastingDataModule:
        long = [i for i, ends in enumerate(boundaries) if ends.train >= window]
        module = build_data_module(
            forecaster.config,
            forecaster.source,
            unknown_categories=encoder.unknown,
            categories=encoder.categories,
        )
        module.take(encoder, [forecaster.scaled_series[i] for i in long])
        return module.with_boundaries([boundaries[i] for i in long])

    selection = data([SplitBoundaries(end - held, end, end) for end, held in zip(ends, held_out, strict=True)])
    rows = data([SplitBoundaries(end, end, end) for end in ends])
    experiment = ForecastingExperiment(forecaster.config).on_rows(selection, rows)
    _, task = train_for(experiment, selected, member.checkpoint.parent)
    assert isinstance(task, ForecastingTask)
    task.to(forecaster.task.device).eval()
    return forecaster._replace(task=task)


def _forecast_series(
    forecaster: TrainedForecaster, origins: list[NDArray[np.int64]], steps: int
) -> Iterator[SeriesForecasts]:
    """Forecast series by series, with a progress bar over windows on a terminal."""
    encoder, size = forecaster.encoder, forecaster.config.data.batch_size
    ahead = len(encoder.channels) + encoder.num_past  # first column of the known covariates
    # None: no bar where the output is not a terminal.
    with tqdm(total=sum(map(len, origins)), desc="backtest", unit="window", disable=None) as bar:
        for member, rows in zip(forecaster.scaled_series, origins, strict=True):
            batches = []
            for begin in range(0, len(rows), size):
                cut = [
                    cut_inputs(forecaster, member, row, member.scaled[row : row + steps, ahead:])
                    for row in rows[begin : begin + size].tolist()
                ]
                batches.append(forecast_recursively(forecaster, stack_inputs(cut), steps))
                bar.update(len(cut))
            z_scores = np.concatenate(batches)
            intervals = {}
            if forecaster.calibration is not None:
                calibration = forecaster.calibration.for_series(member.series.name).for_steps(steps)
                ends = calibration.intervals(z_scores)
                for nominal, low, high in zip(calibration.coverages, *ends, strict=True):
                    intervals[nominal] = (member.restore(low), member.restore(high))
            truth = member.series.values[rows[:, None] + np.arange(steps)]
            units = np.stack([restore_units(member, window) for window in z_scores])
            yield SeriesForecasts(member.series, rows, truth, units, intervals)


def _warn_of_training_rows(forecaster: TrainedForecaster, origins: list[NDArray[np.int64]], *, refit: bool) -> None:
    until = forecaster.trained_until
    both = zip(forecaster.scaled_series, origins, strict=True)
    seen = sum(int((member.series.timestamps[rows] <= until).sum()) for member, rows in both)
    if seen:
        last = local_times(to_polars(until, forecaster.timezone))[0]
        count, text = sum(map(len, origins)), timestamp_text(last)
        period = f"within the training period (until {text})"
        effect = "which set the scales and the steps" if refit else "their errors are optimistic"
        print(f"Note: {seen} of {count} windows begin {period}: {effect}")
