"""Conformal intervals of a run: calibrated on its validation windows, measured on its test windows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray

from datamodules.common.splitting import Split
from datamodules.time_series.datamodule import ForecastingDataModule
from titans_seq.experiment.forecasting.conformal import Calibration, calibrate, conformal_scores
from titans_seq.tasks import ForecastingTask

# Number of evenly spaced windows of a split that are used. More windows overlap more and add little information.
_MOST_WINDOWS = 2000
_LEAST_WINDOWS = 200
_MOST_VALUES = 20_000_000  # limits the windows between these two bounds, so that a calibration fits into memory


def calibrate_on_validation(
    data: ForecastingDataModule, task: ForecastingTask, coverages: Sequence[float], limit_batches: int = 0
) -> Calibration:
    """Calibrate intervals of the nominal `coverages` on validation windows.

    Only the first `limit_batches` batches are used if it is not 0.
    """
    quantiles = task.quantile_levels
    most = max(_LEAST_WINDOWS, _MOST_VALUES // (data.horizon * len(data.encoder.channels) * len(coverages)))
    pairs = forecast_windows(data, task, "validation", limit_batches, most)
    scores = [conformal_scores(forecasts, truth, quantiles, coverages) for forecasts, truth in pairs]
    return calibrate(np.concatenate(scores, axis=1), quantiles, coverages)


def measure_coverage(
    data: ForecastingDataModule, task: ForecastingTask, calibration: Calibration, limit_batches: int = 0
) -> dict[float, float]:
    """Empirical coverage of the intervals on the test windows, by nominal coverage."""
    inside, count = np.zeros(len(calibration.coverages)), 0
    if not len(inside):
        return {}
    for forecasts, truth in forecast_windows(data, task, "test", limit_batches):
        lower, upper = calibration.intervals(forecasts)
        inside += ((lower <= truth) & (truth <= upper)).sum(axis=(1, 2, 3))
        count += truth.size
    return dict(zip(calibration.coverages, (inside / count).tolist(), strict=True))


def forecast_windows(
    data: ForecastingDataModule, task: ForecastingTask, split: Split, limit_batches: int = 0, most: int = _MOST_WINDOWS
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield z-scored forecasts (B, H, C, Q) and truth (B, H, C) of evenly spaced windows of a split, by batch."""
    windows, size = data.windows(split), data.batch_size
    count = min(len(windows), limit_batches * size) if limit_batches else len(windows)
    chosen = np.linspace(0, count - 1, min(count, most, _MOST_WINDOWS)).astype(np.int64)
    task.eval()
    for begin in range(0, len(chosen), size):
        batch = windows[chosen[begin : begin + size]]
        with torch.inference_mode():
            forecasts = task.predict_step(move_data_to_device(batch, task.device), 0)
        yield forecasts.float().cpu().numpy(), batch.target.numpy()
