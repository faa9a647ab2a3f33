"""Conformal intervals of a run: calibrated on its validation windows, measured on its test windows.

S series, C channels, K coverages.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray

from datamodules.common.splitting import Split
from datamodules.time_series.datamodule import ForecastingDataModule
from titans_seq.experiment.forecasting.conformal.calibration import Calibration
from titans_seq.experiment.forecasting.conformal.margins import WindowScores, calibrate, conformal_scores
from titans_seq.experiment.forecasting.metrics import worst_tenth
from titans_seq.tasks import ForecastingTask

# Number of windows of a split that are used, evenly spaced within each series. More overlap more and add little.
_MOST_WINDOWS = 2000
_MOST_PER_SERIES = 100  # of more series than the windows above would serve
_LEAST_WINDOWS = 200
_MOST_VALUES = 10_000_000  # limits the windows of a calibration, which must fit into memory, to `_LEAST_WINDOWS`


class MeasuredCoverage(NamedTuple):
    """Empirical coverage of intervals."""

    coverages: list[float]  # nominal
    all: list[float]  # of all windows
    worst: list[float]  # mean over the tenth of the series, or channels, with the lowest
    series: int  # number of series times channels

    def text(self) -> str:
        """Coverage in words, overall and for the worst tenth of the series."""
        pairs = zip(self.all, self.coverages, strict=True)
        overall = ", ".join(f"{100 * share:.1f} % (nominal {100 * nominal:g} %)" for share, nominal in pairs)
        if self.series < 2:
            return overall
        worst = ", ".join(f"{100 * share:.1f} %" for share in self.worst)
        return f"{overall}; in the worst tenth of {self.series:,} series: {worst}"


def calibrate_on_validation(
    data: ForecastingDataModule, task: ForecastingTask, coverages: Sequence[float], limit_batches: int = 0
) -> Calibration:
    """Calibrate intervals of the nominal `coverages` on validation windows.

    Only the first `limit_batches` batches are used if it is not 0.
    """
    most = max(_LEAST_WINDOWS, _MOST_VALUES // (data.horizon * len(data.encoder.channels)))
    scores = []
    for index, forecasts, truth in forecast_windows(data, task, "validation", limit_batches, most):
        values = conformal_scores(forecasts, truth, task.quantile_levels)
        scores.append(WindowScores(values, *data.locate_windows("validation", index)))
    joined = WindowScores(*(np.concatenate(parts) for parts in zip(*scores, strict=True)))
    return calibrate(joined, [each.series.name for each in data.scaled_series], task.quantile_levels, coverages)


def measure_coverage(
    data: ForecastingDataModule, task: ForecastingTask, calibration: Calibration, limit_batches: int = 0
) -> MeasuredCoverage:
    """Empirical coverage of the intervals on the test windows."""
    shape = len(data.scaled_series), len(data.encoder.channels)
    inside, count = np.zeros((len(calibration.coverages), *shape)), np.zeros(shape)
    names = [each.series.name for each in data.scaled_series]
    for index, forecasts, truth in forecast_windows(data, task, "test", limit_batches):
        series, _ = data.locate_windows("test", index)
        lower, upper = calibration.for_windows([names[i] for i in series]).intervals(forecasts)
        np.add.at(count, series, truth.shape[1])
        for total, held in zip(inside, (lower <= truth) & (truth <= upper), strict=True):
            np.add.at(total, series, held.sum(axis=1))
    measured = count > 0
    overall = inside.sum(axis=(1, 2)) / count.sum()
    worst = [worst_tenth(each[measured] / count[measured]) for each in inside]
    return MeasuredCoverage(calibration.coverages, overall.tolist(), worst, int(measured.sum()))


def forecast_windows(
    data: ForecastingDataModule, task: ForecastingTask, split: Split, limit_batches: int = 0, most: int | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
    """Yield numbers (B,), z-scored forecasts (B, H, C, Q) and truth (B, H, C) of windows of a split, by batch."""
    windows, size = data.windows(split), data.batch_size
    count = min(len(windows), limit_batches * size) if limit_batches else len(windows)
    chosen = _spread_windows(data.locate_windows(split, np.arange(count))[0], most)
    task.eval()
    for begin in range(0, len(chosen), size):
        index = chosen[begin : begin + size]
        batch = windows[index]
        with torch.inference_mode():
            forecasts = task.predict_step(move_data_to_device(batch, task.device), 0)
        yield index, forecasts.float().cpu().numpy(), batch.target.numpy()


def _spread_windows(series: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Choose windows, evenly spaced within each series, given the number of each window's series (n,), ascending."""
    sizes = np.bincount(series)
    present = int((sizes > 0).sum())
    total = max(_MOST_WINDOWS, _MOST_PER_SERIES * present)
    each = max(1, (total if most is None else min(most, total)) // present)
    firsts = np.cumsum(sizes) - sizes
    chosen = [
        first + np.linspace(0, n - 1, min(n, each)).astype(np.int64) for first, n in zip(firsts, sizes, strict=True)
    ]
    return np.concatenate(chosen)
