"""`titans-seq backtest`: rolling-origin evaluation on the last rows of a table."""

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
_MAX_PRINTED = 20  # series in the printed table
TOTAL, NAIVE = "all", "seasonal naive"  # the last rows: means over the series


class _SeriesForecasts(NamedTuple):
    """Forecasts of one series from all origins, in the units of the series."""

    member: ScaledSeries
    rows: NDArray[np.int64]  # (W,) first step of each forecast
    truth: NDArray[np.float64]  # (W, N, C)
    values: NDArray[np.float64]  # (W, N, C, Q)
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
    """Evaluate forecasts of the last rows of every series from `windows` origins; write the scores to `out`.

    The last forecast ends with the last row; each earlier one begins `step` rows before the next. The table has one row
    per series and channel: `windows`, `mase`, `smape`, `mse`, `mae` in the series' units, `wql` if the model has
    quantiles, `interval_80` and so on (empirical coverage of the run's intervals); then the means over series, of this
    model and of the seasonal naive forecast. MASE divides by the naive error over the rows before the first forecast.
    Quantiles and intervals are scored up to the trained horizon.

    Args:
        checkpoint, out, overrides, data: see `titans_seq.experiment.forecast`; `out` is CSV by suffix, else Parquet.
        windows: forecasts per series.
        step: rows between the starts of two forecasts; None is the horizon.
        horizon: steps per forecast; None is the trained horizon.
    """
    out = Path(out)
    check_table(out)
    if windows < 1 or (step is not None and step < 1):
        raise InputError(f"--windows {windows} --step {step or 'horizon'}: both must be at least 1")
    forecaster = load_forecaster(Path(checkpoint), data, overrides)
    refuse_to_overwrite(out, forecaster.config, data)
    steps = check_steps(forecaster, horizon)
    step = steps if step is None else step
    origins = [_origins(forecaster, member, windows, step, steps) for member in forecaster.scaled_series]
    _warn_of_training_rows(forecaster, origins)
    rows, naive = [], []
    for forecasts in _forecast_series(forecaster, origins, steps):
        rows += _score(forecaster, forecasts)
        naive += _score(forecaster, _naive(forecasts, forecaster.encoder.season))
    table = pl.DataFrame([*rows, _mean(rows, TOTAL), _mean(naive, NAIVE)], infer_schema_length=None)
    table = table.with_columns(pl.selectors.float().fill_nan(None))
    write_table(table, out)
    return table


def backtest_text(table: pl.DataFrame) -> str:
    """Return the table as text: the first series and the means."""
    scores = [name for name in table.columns if name in _HEADINGS or name.startswith("interval_")]
    columns = {name: _HEADINGS.get(name, f"coverage {name.removeprefix('interval_')} %") for name in scores}
    rows = {}
    for row in [*table[:-2].head(_MAX_PRINTED).to_dicts(), *table[-2:].to_dicts()]:
        name = ", ".join(str(row[key]) for key in ("series", "channel") if row.get(key) is not None)
        rows[name] = {key: row[key] for key in scores if row[key] is not None}
    hidden = len(table) - 2 - _MAX_PRINTED
    more = f"\n({hidden} more series are in the file)" if hidden > 0 else ""
    return format_table(rows, columns, spec=".4g") + more


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


def _forecast_series(
    forecaster: TrainedForecaster, origins: list[NDArray[np.int64]], steps: int
) -> Iterator[_SeriesForecasts]:
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
            yield _SeriesForecasts(member, rows, truth, units, intervals)


def _score(forecaster: TrainedForecaster, forecasts: _SeriesForecasts) -> list[dict[str, Any]]:
    """Rows of the table for one series, one per channel."""
    series = forecasts.member.series
    quantiles, trained = forecaster.task.quantile_levels, forecaster.config.data.horizon
    many = forecasts.values.shape[-1] > 1
    scored = []
    for c, channel in enumerate(series.channels):
        truth, values = forecasts.truth[..., c], forecasts.values[..., c, :]
        point = values[..., forecaster.task.point if many else 0]
        history = series.values[: forecasts.rows[0], c]
        row: dict[str, Any] = {"series": series.name} if forecaster.is_panel else {}
        row |= {
            "channel": channel,
            "windows": len(forecasts.rows),
            "mase": mase(truth, point, history, forecaster.encoder.season),
            "smape": smape(truth, point),
            "mse": float(np.square(truth - point).mean()),
            "mae": float(np.abs(truth - point).mean()),
        }
        if quantiles:
            wql = weighted_quantile_loss(truth[:, :trained], values[:, :trained], quantiles) if many else np.nan
            row["wql"] = wql
        for nominal in forecaster.calibration.coverages if forecaster.calibration else []:
            coverage = np.nan
            if forecasts.intervals:
                low, high = (end[:, :trained, c] for end in forecasts.intervals[nominal])
                coverage = float(((low <= truth[:, :trained]) & (truth[:, :trained] <= high)).mean())
            row[f"interval_{100 * nominal:g}"] = coverage
        scored.append(row)
    return scored


def _naive(forecasts: _SeriesForecasts, season: int) -> _SeriesForecasts:
    """Seasonal naive forecasts: the last season before each origin, repeated."""
    steps = forecasts.truth.shape[1]
    season = min(season, int(forecasts.rows[0]))
    before = forecasts.rows[:, None] - season + np.arange(steps) % season
    values = forecasts.member.series.values[before]
    return forecasts._replace(values=values[..., None], intervals={})


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


def _warn_of_training_rows(forecaster: TrainedForecaster, origins: list[NDArray[np.int64]]) -> None:
    until = np.datetime64(forecaster.encoder.trained_until)
    both = zip(forecaster.scaled_series, origins, strict=True)
    seen = sum(int((member.series.timestamps[rows] <= until).sum()) for member, rows in both)
    if seen:
        count, text = sum(map(len, origins)), timestamp_text(datetime.fromisoformat(forecaster.encoder.trained_until))
        period = f"within the training period (until {text})"
        print(f"Note: {seen} of {count} windows begin {period}: their errors are optimistic")
