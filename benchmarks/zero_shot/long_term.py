"""Evaluation on ETTh1, ETTh2, ETTm1, ETTm2 and Weather by the protocol of long-term forecasting.

Values are z-scores by the training rows, every channel is forecast as a series of its own, and every test window counts
(docs/protocols.md). One forecast of 720 steps serves all horizons, cut to 96, 192, 336 and 720; origins too late for a
longer horizon count for the shorter ones only. The sums are kept per horizon, so that an interrupted run can resume
after any block of windows.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.datasets.ett import ETT, ETT_DATASETS
from datamodules.time_series.datasets.weather import Weather
from datamodules.time_series.series import Scaler

from .forecaster import LEVELS, MEDIAN, Forecaster
from .metrics import pinball, seasonal_scale

DATASETS = (*ETT_DATASETS, "Weather")
HORIZONS = (96, 192, 336, 720)
CONTEXT = 2048
BLOCK = 1024  # forecasts per call of a forecaster, about
_NOT_MEASURED = -9999.0

Sums = dict[str, dict[str, float]]  # horizon to sums over windows, steps and channels


class LongSeries(NamedTuple):
    """Scaled rows of a dataset, up to the end of its test split."""

    name: str
    values: NDArray[np.float32]  # (T, C), z-scores
    first: int  # row of the first forecast origin
    period: int  # rows of a day
    scales: NDArray[np.float64]  # (C,), seasonal naive's mean absolute error on the training rows, z-scores

    def windows(self, horizon: int) -> int:
        """Return the number of test windows at a horizon."""
        return len(self.values) - self.first - horizon + 1


def read_dataset(name: str, root: str | None = None) -> LongSeries:
    """Read a dataset; raises InputError when its file is missing or modified.

    Weather's cells of -9999 stay, as in published results, except in the scale of the MASE.
    """
    source = Weather(root) if name == "Weather" else ETT(name, root)
    series = source.load()
    borders = series.boundaries
    train = series.values[: borders.train]
    scaler = Scaler.fit(train)
    measured = scaler.transform(np.where(train == _NOT_MEASURED, np.nan, train))
    scales = np.array([seasonal_scale(channel, source.seasonal_period) for channel in measured.T])
    values = scaler.transform(series.values[: borders.test]).astype(np.float32)
    return LongSeries(name, values, borders.validation, source.seasonal_period, scales)


def evaluate(
    forecaster: Forecaster,
    data: LongSeries,
    every: int = 1,
    context: int = CONTEXT,
    partial: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Forecast every `every`-th test window; return the metrics per horizon and the CPU time of the forecasts.

    Args:
        forecaster: the forecaster.
        data: a dataset.
        every: distance of the windows' origins.
        context: rows before the origin that the forecaster sees.
        partial: file of the sums of an unfinished run; written after every block, deleted at the end.
        progress: called with a line of text after every block.
    """
    channels = data.values.shape[1]
    starts = range(0, data.windows(HORIZONS[0]), every)
    size = max(1, BLOCK // channels)
    done, seconds, sums = _resume(partial, every, context)
    while done < len(starts):
        origins = [data.first + start for start in starts[done : done + size]]
        contexts = [data.values[max(0, o - context) : o, channel] for o in origins for channel in range(channels)]
        started = time.process_time()
        forecasts = forecaster.predict_arrays(contexts, HORIZONS[-1], [data.period] * len(contexts))
        seconds += time.process_time() - started
        if forecasts.shape != (len(contexts), HORIZONS[-1], len(LEVELS)) or not np.isfinite(forecasts).all():
            raise ValueError(f"{data.name}: forecasts of shape {forecasts.shape}, or not finite")
        _add(sums, data, origins, forecasts.reshape(len(origins), channels, HORIZONS[-1], len(LEVELS)))
        done += len(origins)
        if partial:
            _keep(partial, every, context, done, seconds, sums)
        progress(f"{data.name}: {done} of {len(starts)} windows, {seconds:.0f} s")
    if partial:
        partial.unlink(missing_ok=True)
    count = done * channels
    results = {"windows": done, "channels": channels, "seconds": seconds, "forecasts_a_second": count / seconds}
    return results | {"horizons": {horizon: _metrics(found) for horizon, found in sums.items()}}


def difference_of_cut(forecaster: Forecaster, data: LongSeries, context: int = CONTEXT) -> float:
    """Return the largest difference, in z-scores, between forecasts of 96 steps and the first 96 of 720.

    It is 0 up to rounding if a forecaster's first steps do not depend on the horizon.
    """
    contexts = [channel[max(0, data.first - context) : data.first] for channel in data.values.T]
    periods = [data.period] * len(contexts)
    short, long = (forecaster.predict_arrays(contexts, horizon, periods) for horizon in (HORIZONS[0], HORIZONS[-1]))
    return float(np.abs(short - long[:, : HORIZONS[0]]).max())


def mean_over_horizons(results: dict[str, Any], metric: str) -> float:
    """Return the mean of a metric over the horizons of a dataset's results."""
    return float(np.mean([found[metric] for found in results["horizons"].values()]))


def _add(sums: Sums, data: LongSeries, origins: list[int], forecasts: NDArray[np.floating]) -> None:
    """Add the errors of forecasts (windows, channels, 720, Q) to the sums of every horizon."""
    target = np.full(forecasts.shape[:3], np.nan, np.float32)
    for window, origin in enumerate(origins):
        rows = data.values[origin : origin + HORIZONS[-1]]
        target[window, :, : len(rows)] = rows.T
    error, error_of_mean = target - forecasts[..., MEDIAN], target - forecasts.mean(-1)
    errors = {
        "squared": np.square(error),
        "absolute": np.abs(error),
        "squared_of_mean": np.square(error_of_mean),
        "absolute_of_mean": np.abs(error_of_mean),
        "inside": (forecasts[..., 0] <= target) & (target <= forecasts[..., -1]),
        "pinball": pinball(forecasts, target).sum(-1),
        "magnitude": np.abs(target),
        "scaled": np.abs(error) / data.scales[:, None],
    }  # each (windows, channels, 720)
    for horizon in HORIZONS:
        complete = [window for window, origin in enumerate(origins) if origin + horizon <= len(data.values)]
        if not complete:
            continue
        total = sums.setdefault(str(horizon), dict.fromkeys(["windows", "count", *errors], 0.0))
        total["windows"] += len(complete)
        total["count"] += len(complete) * data.values.shape[1] * horizon
        for key, values in errors.items():
            total[key] += float(values[complete, :, :horizon].sum(dtype=np.float64))


def _metrics(sums: dict[str, float]) -> dict[str, float]:
    count = sums["count"]
    return {
        "windows": int(sums["windows"]),
        "mse": sums["squared"] / count,
        "mae": sums["absolute"] / count,
        "mse_of_mean": sums["squared_of_mean"] / count,
        "mae_of_mean": sums["absolute_of_mean"] / count,
        "mase": sums["scaled"] / count,
        "wql": 2 * sums["pinball"] / len(LEVELS) / sums["magnitude"],
        "coverage": sums["inside"] / count,
    }


def _keep(partial: Path, every: int, context: int, done: int, seconds: float, sums: Sums) -> None:
    state = {"every": every, "context": context, "done": done, "seconds": seconds, "sums": sums}
    new = partial.with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(partial)


def _resume(partial: Path | None, every: int, context: int) -> tuple[int, float, Sums]:
    """Return windows done, seconds and sums of an unfinished run with the same settings, or of none."""
    if partial and partial.exists():
        state = json.loads(partial.read_text())
        if (state["every"], state["context"]) == (every, context):
            return state["done"], state["seconds"], state["sums"]
    return 0, 0.0, {}
