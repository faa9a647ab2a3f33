"""The baselines of a forecasting run, measured on the same windows by the same metrics as the model."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from datamodules.forecasting import ForecastingDataModule
from datamodules.windows import WindowLoader
from titans_seq.batch import CovariateBatch, ForecastBatch
from titans_seq.models.baselines import LastValue, LinearForecaster, SeasonalNaive, solve_linear
from titans_seq.tasks.forecasting import forecast_metrics

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_BATCH = 512


def best_linear(data: ForecastingDataModule) -> LinearForecaster:
    """The least-squares map of the training windows, its ridge penalty chosen by validation MSE."""
    train, validation = (WindowLoader(data.windows(split), _BATCH) for split in ("train", "validation"))
    candidates = solve_linear(train, _PENALTIES)
    return min(candidates, key=lambda model: _measure(model, validation, "val")["val/mse"])


def measure_baselines(data: ForecastingDataModule, linear: LinearForecaster, count: int) -> dict[str, dict[str, float]]:
    """MSE and MAE of the first `count` test windows by baseline; `linear` is that of `best_linear`."""
    naive = {
        "last value": LastValue(data.horizon),
        f"seasonal naive ({data.source.season} steps)": SeasonalNaive(data.horizon, data.source.season),
    }
    models: dict[str, nn.Module] = {**naive, "linear (least squares)": linear}
    return {name: _measure(model, _first(data, count), "test") for name, model in models.items()}


def _first(data: ForecastingDataModule, count: int) -> Iterator[ForecastBatch | CovariateBatch]:
    """The first `count` test windows."""
    windows = data.windows("test")
    for begin in range(0, count, _BATCH):
        yield windows[np.arange(begin, min(begin + _BATCH, count))]


@torch.inference_mode()
def _measure(model: nn.Module, batches: Iterable[ForecastBatch | CovariateBatch], prefix: str) -> dict[str, float]:
    metrics = forecast_metrics(prefix)
    for batch in batches:
        metrics.update(model(batch.context).contiguous(), batch.target.contiguous())
    return {name: float(value) for name, value in metrics.compute().items()}
