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
from titans_seq.experiment.forecasting.data import read_argument
from titans_seq.experiment.forecasting.experiment import ForecastingExperiment
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
    refit: bool = False,
) -> Any:
    """Evaluate forecasts of the last rows of every series from `windows` origins; write the scores to `out`, if given.

    The last forecast ends with the last row; each earlier one begins `step` rows before the next. The table has one row
    per series and channel: `windows`, `mase`, `smape`, `mse`, `mae` in the series' units, `wql` if the model has
    quantiles, `interval_80` and so on (empirical coverage of the run's intervals); then the means over series, of this
    model and of the seasonal naive forecast. MASE divides by the naive error over the rows before the first forecast.
    Quantiles and intervals are scored up to the trained horizon. The weights are those that validation selected, not
    those of `data.refit`, which have seen these rows.

    Args:
        checkpoint, out, overrides, data: see `titans_seq.experiment.forecast`; `out` is CSV by suffix, else Parquet.
        windows: forecasts per series.
        step: rows between the starts of two forecasts; None is the horizon.
        horizon: steps per forecast; None is the trained horizon.
        baselines: statistical methods whose means stand below: none, auto (AutoETS, AutoTheta and MSTL of
            statsforecast, fitted anew before every window), or some of these names, separated by commas.
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
            out, overrides, data=source, windows=windows, step=step, horizon=horizon, baselines=baselines
        )
        write_table(table, out)
        return in_library_of(data, table)
    members = load_ensemble(checkpoint, source, overrides, refit=False)
    forecasters = [member.forecaster for member in members]
    forecaster = forecasters[0]
    refuse_to_overwrite(out, forecaster.config, source)
    steps = check_steps(forecaster, horizon)
    step = steps if step is None else step
    for each in forecasters:  # their contexts may be of several lengths
        origins = [_origins(each, member, windows, step, steps) for member in each.scaled_series]
    for each in {one.encoder.trained_until: one for one in forecasters}.values():
        _warn_of_training_rows(each, origins, refit=refit)
    scoring = Scoring(
        season=forecaster.encoder.season,
        levels=forecaster.task.quantile_levels,
        trained=forecaster.config.data.horizon,
        coverages=forecaster.calibration.coverages if forecaster.calibration else (),
        has_ids=forecaster.is_panel,
        baselines=choose_methods(baselines, forecaster.encoder.season),
    )
    forecast_all = _forecast_refitted if refit else _forecast_selected
    parts = zip(*(forecast_all(member, origins, steps) for member in members), strict=True)
    table = score_table(map(average_forecasts, parts), scoring)
    write_table(table, out)
    return in_library_of(data, table)


def _origins(
    forecaster: TrainedForecaster, member: ScaledSeries, windows: int, step: int, steps: int
) -> NDArray[np.int64]:
    """First rows (W,) of the forecasts of a series."""
    last = len(member.scaled) - steps
    first = last - (windows - 1) * step
    length = forecaster.config.data.context_length
    if first < length:
        name = f"series {member.series.name!r}: " if forecaster.is_panel else ""
        most = max(0, (last - length) // step + 1)
        raise InputError(
            f"{forecaster.source_name}: {name}{len(member.scaled)} rows; {windows} windows of {steps} steps, {step} "
            f"rows apart, and data.context_length={length} before them need {length + steps + (windows - 1) * step}; "
            + (f"use --windows {most} or fewer" if most else "one window does not fit; use a longer series")
        )
    return np.arange(first, last + 1, step)


def _forecast_selected(member: Member, origins: list[NDArray[np.int64]], steps: int) -> Iterator[SeriesForecasts]:
    """Forecast series by series with the weights of the checkpoint."""
    return _forecast_series(member.forecaster, origins, steps)


def _forecast_refitted(member: Member, origins: list[NDArray[np.int64]], steps: int) -> Iterator[SeriesForecasts]:
    """Forecast window by window with weights that are trained on the rows before the window."""
    selected, windows = SelectedSteps.of(member.checkpoint), len(origins[0])
    print(f"Note: --refit trains {windows} times for {selected.steps:,} steps, on the rows before each window")
    by_window = []
    for window in range(windows):
        ends = [int(rows[window]) for rows in origins]
        forecaster = _train_until(member, selected, ends)
        by_window.append(list(_forecast_series(forecaster, [np.array([end]) for end in ends], steps)))
    for parts in zip(*by_window, strict=True):
        intervals = {
            nominal: (
                np.concatenate([part.intervals[nominal][0] for part in parts]),
                np.concatenate([part.intervals[nominal][1] for part in parts]),
            )
            for nominal in parts[0].intervals
        }
        rows, truth, values = (np.concatenate([part[k] for part in parts]) for k in (1, 2, 3))
        yield SeriesForecasts(parts[0].series, rows, truth, values, intervals)


def _train_until(member: Member, selected: SelectedSteps, ends: list[int]) -> TrainedForecaster:
    """Train a new task on the rows before `ends`, one for each series; series without a window there are left out."""
    forecaster, options = member.forecaster, member.forecaster.config.data
    window = options.context_length + options.horizon
    held_out = [max(options.horizon, end // _HELD_OUT) for end in ends]
    if max(end - held for end, held in zip(ends, held_out, strict=True)) < window:
        raise InputError(
            f"{forecaster.source_name}: --refit: at most {max(ends)} rows before a window are too few to train on and "
            "to select a linear map; use fewer --windows"
        )

    def data(boundaries: list[SplitBoundaries]) -> ForecastingDataModule:
        long = [i for i, ends in enumerate(boundaries) if ends.train >= window]
        module = ForecastingDataModule(
            forecaster.source,
            context_length=options.context_length,
            horizon=options.horizon,
            batch_size=options.batch_size,
            seed=forecaster.config.seed,
            calendar=options.calendar,
        )
        module.take(forecaster.encoder, [forecaster.scaled_series[i] for i in long])
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
    channels = len(encoder.channels)
    calibration = forecaster.calibration.for_steps(steps) if forecaster.calibration else None
    # None: no bar where the output is not a terminal.
    with tqdm(total=sum(map(len, origins)), desc="backtest", unit="window", disable=None) as bar:
        for member, rows in zip(forecaster.scaled_series, origins, strict=True):
            batches = []
            for begin in range(0, len(rows), size):
                known = [member.scaled[row : row + steps, channels + len(encoder.past) :] for row in rows]
                part = slice(begin, begin + size)
                cut = [cut_inputs(forecaster, member, int(r), k) for r, k in zip(rows[part], known[part], strict=True)]
                batches.append(forecast_recursively(forecaster, stack_inputs(cut), steps))
                bar.update(len(cut))
            z_scores = np.concatenate(batches)
            intervals = {}
            if calibration is not None:
                ends = calibration.intervals(z_scores)
                for nominal, low, high in zip(calibration.coverages, *ends, strict=True):
                    intervals[nominal] = (member.scaler.inverse(low), member.scaler.inverse(high))
            truth = member.series.values[rows[:, None] + np.arange(steps)]
            units = np.stack([restore_units(member, window) for window in z_scores])
            yield SeriesForecasts(member.series, rows, truth, units, intervals)


def _warn_of_training_rows(forecaster: TrainedForecaster, origins: list[NDArray[np.int64]], *, refit: bool) -> None:
    stamps = forecaster.scaled_series[0].series.timestamps
    until = np.array([forecaster.encoder.trained_until]).astype(stamps.dtype)
    both = zip(forecaster.scaled_series, origins, strict=True)
    seen = sum(int((member.series.timestamps[rows] <= until).sum()) for member, rows in both)
    if seen:
        last = local_times(to_polars(until, forecaster.timezone))[0]
        count, text = sum(map(len, origins)), timestamp_text(last)
        period = f"within the training period (until {text})"
        effect = "which set the scales and the steps" if refit else "their errors are optimistic"
        print(f"Note: {seen} of {count} windows begin {period}: {effect}")
