"""`titans-seq backtest`: forecasts of the last rows of a table from the rows before them, again and again."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from datamodules.time_series.datamodule import ScaledSeries
from datamodules.time_series.timestamps import timestamp_text
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.inference import (
    TrainedForecaster,
    check_steps,
    cut_inputs,
    forecast_recursively,
    load_forecaster,
    restore_units,
    stack_inputs,
)
from titans_seq.experiment.forecasting.metrics import mase, smape, weighted_quantile_loss
from titans_seq.experiment.run.console_table import format_table
from titans_seq.experiment.run.output import check_table, refuse_to_overwrite, write_table

_HEADINGS = {"mase": "MASE", "smape": "sMAPE", "mse": "MSE", "mae": "MAE", "wql": "WQL"}
_SHOWN = 20  # series in the printed table
TOTAL, NAIVE = "all", "seasonal naive"  # the last rows: means over the series


class _Answer(NamedTuple):
    """Forecasts of one series from all origins, in its units."""

    member: ScaledSeries
    rows: NDArray[np.int64]  # (W,) first step of each forecast
    truth: NDArray[np.float64]  # (W, N, C)
    forecasts: NDArray[np.float64]  # (W, N, C, Q)
    intervals: dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]]  # (W, N, C) each


def backtest(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    data: Path | None = None,
    windows: int = 10,
    step: int | None = None,
    horizon: int | None = None,
) -> pl.DataFrame:
    """Forecast the last rows of every series `windows` times, and write how far off that was to `out`.

    The last forecast ends with the last row; those before begin `step` rows earlier each. A row per series and channel:
    `windows`, `mase`, `smape`, `mse`, `mae` in the series' units, `wql` if the model has quantiles, `interval_80` and
    so on (the share of values within the run's intervals); then their means over series, of this model and of the
    seasonal naive forecast. MASE divides by the naive error over the rows before the first forecast. What has quantiles
    or intervals is scored up to the trained horizon.

    Args:
        checkpoint, out, overrides, data: see `titans_seq.experiment.forecast`; `out` is CSV by suffix, else Parquet.
        windows: forecasts of each series.
        step: rows between their starts; None is the horizon.
        horizon: steps of each; None is the trained horizon.
    """
    out = Path(out)
    check_table(out)
    if windows < 1 or (step is not None and step < 1):
        raise InputError(f"--windows {windows} --step {step or 'horizon'}: both must be at least 1")
    run = load_forecaster(Path(checkpoint), data, overrides)
    refuse_to_overwrite(out, run.config, data)
    steps = check_steps(run, horizon)
    apart = steps if step is None else step
    origins = [_origins(run, member, windows, apart, steps) for member in run.members]
    _warn_of_training_rows(run, origins)
    rows, naive = [], []
    for answer in _answers(run, origins, steps):
        rows += _score(run, answer)
        naive += _score(run, _naive(answer, run.layout.season))
    table = pl.DataFrame([*rows, _mean(rows, TOTAL), _mean(naive, NAIVE)], infer_schema_length=None)
    table = table.with_columns(pl.selectors.float().fill_nan(None))
    write_table(table, out)
    return table


def backtest_text(table: pl.DataFrame) -> str:
    """The table as text: the first series and the means."""
    scores = [name for name in table.columns if name in _HEADINGS or name.startswith("interval_")]
    columns = {name: _HEADINGS.get(name, f"in {name.removeprefix('interval_')} %") for name in scores}
    rows = {}
    for row in [*table[:-2].head(_SHOWN).to_dicts(), *table[-2:].to_dicts()]:
        name = ", ".join(str(row[key]) for key in ("series", "channel") if row.get(key) is not None)
        rows[name] = {key: row[key] for key in scores if row[key] is not None}
    hidden = len(table) - 2 - _SHOWN
    more = f"\n({hidden} more series are in the file)" if hidden > 0 else ""
    return format_table(rows, columns, spec=".4g") + more


def _origins(run: TrainedForecaster, member: ScaledSeries, windows: int, apart: int, steps: int) -> NDArray[np.int64]:
    """The rows at which the forecasts of a series begin, (W,)."""
    last = len(member.scaled) - steps
    first = last - (windows - 1) * apart
    length = run.config.data.context_length
    if first < length:
        name = f"series {member.series.name!r}: " if run.is_panel else ""
        most = max(0, (last - length) // apart + 1)
        raise InputError(
            f"{run.place}: {name}{len(member.scaled)} rows; {windows} windows of {steps} steps, {apart} rows apart, "
            f"and data.context_length={length} before them need {length + steps + (windows - 1) * apart}; "
            + (f"--windows {most} would fit" if most else "not even one window fits")
        )
    return np.arange(first, last + 1, apart)


def _answers(run: TrainedForecaster, origins: list[NDArray[np.int64]], steps: int) -> Iterator[_Answer]:
    """Forecast series by series, with a progress bar over windows."""
    layout, size = run.layout, run.config.data.batch_size
    channels = len(layout.channels)
    calibration = run.calibration.for_steps(steps) if run.calibration else None
    with tqdm(total=sum(map(len, origins)), desc="backtest", unit="window") as bar:
        for member, rows in zip(run.members, origins, strict=True):
            batches = []
            for begin in range(0, len(rows), size):
                known = [member.scaled[row : row + steps, channels + len(layout.past) :] for row in rows]
                part = slice(begin, begin + size)
                cut = [cut_inputs(run, member, int(r), k) for r, k in zip(rows[part], known[part], strict=True)]
                batches.append(forecast_recursively(run, stack_inputs(cut), steps))
                bar.update(len(cut))
            z_scores = np.concatenate(batches)
            intervals = {}
            if calibration is not None:
                ends = calibration.intervals(z_scores)
                for nominal, low, high in zip(calibration.coverages, *ends, strict=True):
                    intervals[nominal] = (member.scaler.inverse(low), member.scaler.inverse(high))
            truth = member.series.values[rows[:, None] + np.arange(steps)]
            units = np.stack([restore_units(member, window) for window in z_scores])
            yield _Answer(member, rows, truth, units, intervals)


def _score(run: TrainedForecaster, answer: _Answer) -> list[dict[str, Any]]:
    """The rows of the table for one series."""
    series, quantiles, trained = answer.member.series, run.task.quantile_levels, run.config.data.horizon
    many = answer.forecasts.shape[-1] > 1
    scored = []
    for c, channel in enumerate(series.channels):
        truth, forecasts = answer.truth[..., c], answer.forecasts[..., c, :]
        point = forecasts[..., run.task.point if many else 0]
        history = series.values[: answer.rows[0], c]
        row: dict[str, Any] = {"series": series.name} if run.is_panel else {}
        row |= {
            "channel": channel,
            "windows": len(answer.rows),
            "mase": mase(truth, point, history, run.layout.season),
            "smape": smape(truth, point),
            "mse": float(np.square(truth - point).mean()),
            "mae": float(np.abs(truth - point).mean()),
        }
        if quantiles:
            wql = weighted_quantile_loss(truth[:, :trained], forecasts[:, :trained], quantiles) if many else np.nan
            row["wql"] = wql
        for nominal in run.calibration.coverages if run.calibration else []:
            share = np.nan
            if answer.intervals:
                low, high = (end[:, :trained, c] for end in answer.intervals[nominal])
                share = float(((low <= truth[:, :trained]) & (truth[:, :trained] <= high)).mean())
            row[f"interval_{100 * nominal:g}"] = share
        scored.append(row)
    return scored


def _naive(answer: _Answer, season: int) -> _Answer:
    """The last season before each forecast, repeated."""
    steps = answer.truth.shape[1]
    season = min(season, int(answer.rows[0]))
    before = answer.rows[:, None] - season + np.arange(steps) % season
    values = answer.member.series.values[before]
    return answer._replace(forecasts=values[..., None], intervals={})


def _mean(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The mean of every score over series and channels, each counting alike; without those that have none."""
    total: dict[str, Any] = {}
    for key, value in rows[0].items():
        if isinstance(value, str):
            total[key] = None
        elif key == "windows":
            total[key] = sum(row[key] for row in rows)
        else:
            values = np.array([row[key] for row in rows])
            known = values[~np.isnan(values)]
            total[key] = float(known.mean()) if len(known) else float("nan")
    return {**total, "channel": name}


def _warn_of_training_rows(run: TrainedForecaster, origins: list[NDArray[np.int64]]) -> None:
    until = np.datetime64(run.layout.trained_until)
    both = zip(run.members, origins, strict=True)
    seen = sum(int((member.series.timestamps[rows] <= until).sum()) for member, rows in both)
    if seen:
        count, text = sum(map(len, origins)), timestamp_text(datetime.fromisoformat(run.layout.trained_until))
        print(f"Note: {seen} of {count} windows begin before training ended, {text}: their errors flatter")
