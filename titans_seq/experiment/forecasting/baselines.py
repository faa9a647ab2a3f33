"""The baselines of a forecasting run, measured on the same windows by the same metrics as the model."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.common.digest import hash_arrays
from datamodules.common.splitting import Split
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.series import Series
from titans_seq.batch import CovariateBatch, ForecastBatch
from titans_seq.models.baselines import LastValue, SeasonalNaive
from titans_seq.models.least_absolute import absolute_error, descend
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

SEASONAL, LAST_VALUE, NO_FORECAST = "seasonal naive", "last value", "none"  # what `naive_forecast` takes
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_SHRINKAGES = (0.1, 0.3, 1.0, 3.0)  # weights of the mean of all channels in a channel's own map
_STEPS = 12  # of the descent to the least absolute error, at most
_BATCH = 512
_FITTED: tuple[Split, Split] = ("train", "validation")
_CACHE_SIZE = 4


class _Choice(NamedTuple):
    """What validation selects of a linear map."""

    penalty: float
    shrinkage: float | None  # None: a map that all channels share
    steps: int  # of the descent to the least absolute error


_CACHE: dict[tuple[str, int, int, int, str, str], tuple[LinearForecaster, _Choice]] = {}


def best_linear(
    data: ForecastingDataModule,
    linear_maps: Literal["shared", "channels"],
    loss: Literal["mse", "mae"] = "mse",
    selected_on: ForecastingDataModule | None = None,
) -> LinearForecaster:
    """Fit a linear forecaster to the training windows by squared or absolute error; select it on validation.

    For least squares, validation MSE selects the ridge penalty of the map that all channels share, and with `channels`
    how far each channel's own map is shrunk towards it; the shared map is then a candidate too. With loss="mae" the
    result is the start of a descent (`titans_seq.models.least_absolute`), and validation MAE selects the step at
    which to stop. With `selected_on`, the splits of that data select all this, and `data` needs training windows only.

    The last few results are cached, since consecutive runs of a suite often need the same map.
    """
    splits = selected_on or data
    rows = [part.numpy() for split in _FITTED for part in _rows(splits, split)]
    key = (hash_arrays(*rows), data.context_length, data.horizon, data.source.seasonal_period, linear_maps, loss)
    if key not in _CACHE:
        _CACHE[key] = _select(splits, linear_maps, loss)
        if len(_CACHE) > _CACHE_SIZE:
            del _CACHE[next(iter(_CACHE))]
    model, choice = _CACHE[key]
    return model if selected_on is None else _solve(data, linear_maps, choice)


def _select(
    data: ForecastingDataModule, linear_maps: Literal["shared", "channels"], loss: Literal["mse", "mae"]
) -> tuple[LinearForecaster, _Choice]:
    train, validation = (_moments(data, split) for split in _FITTED)
    shared = {penalty: solve_linear(train, penalty) for penalty in _PENALTIES}
    best, shrinkage = best_of(list(shared.values()), validation), None
    penalty = next(penalty for penalty, model in shared.items() if model is best)
    if linear_maps == "channels":
        own = {shrinkage: solve_linear(train, penalty, shrinkage) for shrinkage in _SHRINKAGES}
        widened = share_map(best, len(train.xx))
        best = best_of([widened, *own.values()], validation)
        shrinkage = next((shrinkage for shrinkage, model in own.items() if model is best), None)
    if loss == "mse":
        return best, _Choice(penalty, shrinkage, 0)
    held_out = _rows(data, "validation")
    start = best if shrinkage is not None else shared[penalty]
    path = chain([start], islice(_descent(data, start, train, penalty, shrinkage), _STEPS))
    steps, best = min(enumerate(path), key=lambda step: absolute_error(step[1], held_out))
    best = share_map(best, len(train.xx)) if linear_maps == "channels" and shrinkage is None else best
    return best, _Choice(penalty, shrinkage, steps)


def _solve(
    data: ForecastingDataModule, linear_maps: Literal["shared", "channels"], choice: _Choice
) -> LinearForecaster:
    """Fit the selected kind of map to the training windows."""
    train = _moments(data, "train")
    model = solve_linear(train, choice.penalty, choice.shrinkage)
    if choice.steps:
        path = _descent(data, model, train, choice.penalty, choice.shrinkage)
        model = next(islice(path, choice.steps - 1, None))
    return share_map(model, len(train.xx)) if linear_maps == "channels" and choice.shrinkage is None else model


def _descent(
    data: ForecastingDataModule, start: LinearForecaster, train: WindowMoments, penalty: float, shrinkage: float | None
) -> Iterator[LinearForecaster]:
    rows, period = _rows(data, "train"), data.source.seasonal_period
    return descend(start, train, rows, penalty=penalty, shrinkage=shrinkage, seasonal_period=period)


def _rows(data: ForecastingDataModule, split: Split) -> list[Tensor]:
    """The z-scored rows (T, C) of every series that has a window."""
    channels, parts = len(data.encoder.channels), []
    for member in (each for each in data.scaled_series if data.has_windows(split, each.series)):
        first, end = data.rows(split, member.series)
        parts.append(torch.from_numpy(member.scaled[first:end, :channels]))
    return parts


def _moments(data: ForecastingDataModule, split: Split) -> WindowMoments:
    """Moments of the windows of all series together."""
    return sum_moments([window_moments(rows, data.context_length, data.horizon) for rows in _rows(data, split)])


def measure_baselines(
    data: ForecastingDataModule, linear: LinearForecaster, count: int, loss: Literal["mse", "mae"] = "mse"
) -> dict[str, dict[str, float]]:
    """MSE and MAE of the first `count` test windows by baseline; `linear` comes from `best_linear` for `loss`."""
    period = data.source.seasonal_period
    naive = {
        "last value": LastValue(data.horizon),
        f"seasonal naive ({period} steps)": SeasonalNaive(data.horizon, period),
    }
    name = "linear (least squares)" if loss == "mse" else "linear (least absolute error)"
    models: dict[str, nn.Module] = {**naive, name: linear}
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


def naive_forecast(series: Series, season: int, steps: int) -> tuple[NDArray[np.float64], list[str]]:
    """Return the next N steps (N, C) of a series, in its units, and what forecast each channel.

    The last season is repeated where all its values are known, else the last value; a channel without values is NaN.
    """
    forecast, names = np.full((steps, len(series.channels)), np.nan), []
    for c, values in enumerate(series.values.T):
        observed = values[~np.isnan(values)]
        if not len(observed):
            names.append(NO_FORECAST)
        elif season > 1 and len(values) >= season and not np.isnan(values[-season:]).any():
            forecast[:, c] = values[-season:][np.arange(steps) % season]
            names.append(SEASONAL)
        else:
            forecast[:, c] = observed[-1]
            names.append(LAST_VALUE)
    return forecast, names
