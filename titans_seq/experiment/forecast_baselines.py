"""The baselines of a forecasting run, measured on the same windows by the same metrics as the model."""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import nn

from datamodules.forecasting import ForecastingDataModule, Split
from titans_seq.batch import CovariateBatch, ForecastBatch
from titans_seq.models.baselines import LastValue, SeasonalNaive
from titans_seq.models.linear import (
    LinearForecaster,
    WindowMoments,
    best_of,
    share_map,
    solve_linear,
    sum_moments,
    window_moments,
)
from titans_seq.tasks.forecasting import forecast_metrics

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_PULLS = (0.1, 0.3, 1.0, 3.0)  # of a channel's own map to the shared one
_BATCH = 512
_FITTED: tuple[Split, Split] = ("train", "validation")


def best_linear(data: ForecastingDataModule, linear_maps: Literal["shared", "channels"]) -> LinearForecaster:
    """The least-squares map of the training windows, chosen by validation MSE.

    What is chosen is the ridge penalty of the map that all channels share, and with `channels` how far each channel's
    own map is pulled towards it; the shared map is then a candidate too.
    """
    train, validation = (_moments(data, split) for split in _FITTED)
    shared = {penalty: solve_linear(train, penalty) for penalty in _PENALTIES}
    best = best_of(list(shared.values()), validation)
    if linear_maps == "shared":
        return best
    penalty = next(penalty for penalty, model in shared.items() if model is best)
    own = [solve_linear(train, penalty, pull) for pull in _PULLS]
    return best_of([share_map(best, len(train.xx)), *own], validation)


def _moments(data: ForecastingDataModule, split: Split) -> WindowMoments:
    """Those of all series together."""
    channels, parts = len(data.layout.channels), []
    for member in data.members:
        first, end = data.rows(split, member.series)
        values = torch.from_numpy(member.scaled[first:end, :channels])
        parts.append(window_moments(values, data.context_length, data.horizon))
    return sum_moments(parts)


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
