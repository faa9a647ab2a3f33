"""A trained forecaster before new data: what `forecast` and `backtest` have in common."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.time_series.datamodule import ScaledSeries
from datamodules.time_series.encoder import FeatureEncoder, interval_of
from datamodules.time_series.series import Scaler, Series
from titans_seq.batch import CovariateInputs
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.conformal import Calibration, load_calibration
from titans_seq.experiment.forecasting.data import build_series_source, build_table
from titans_seq.experiment.forecasting.experiment import ForecastingExperiment
from titans_seq.experiment.run.checkpoint import load
from titans_seq.experiment.run.trainer import build_trainer
from titans_seq.schema import ForecastingConfig
from titans_seq.system.run_folders import find_checkpoint
from titans_seq.tasks import ForecastingTask


class TrainedForecaster(NamedTuple):
    """A trained task, the series it is shown, and the intervals that its run calibrated."""

    config: ForecastingConfig
    task: ForecastingTask  # on the device of the configuration, ready to forecast
    layout: FeatureEncoder
    members: list[ScaledSeries]
    calibration: Calibration | None
    place: str  # the name of the data, for messages

    @property
    def is_panel(self) -> bool:
        """Whether the series have names that a table of results must show."""
        return self.config.data.id is not None


class Inputs(NamedTuple):
    """What the model sees of some windows, scaled."""

    context: NDArray[np.float32]  # (B, L, C)
    past: NDArray[np.float32]  # (B, L, P)
    known: NDArray[np.float32]  # (B, L + N, K): as many steps ahead as are forecast
    categories: NDArray[np.int64]  # (B, S)
    numbers: NDArray[np.float32]  # (B, N)


def load_forecaster(checkpoint: Path, data: Path | None, overrides: Iterable[str]) -> TrainedForecaster:
    """Load a checkpoint and read the table `data`, or the data it was trained on, by the checkpoint's layout."""
    checkpoint = find_checkpoint(checkpoint)
    words = [*(["data.name=table"] if data else []), *overrides]
    experiment, task, _ = load(checkpoint, words, ForecastingExperiment)
    config = experiment.config
    try:
        layout = FeatureEncoder.from_container(task.hparams["layout"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{checkpoint}: does not say what its data were like; train it again") from None
    if data is not None:
        config.data.path = str(data)
    if config.data.name == "table":
        config.data.target = list(layout.channels)
        table = build_table(config.data)
        loaded: Series | list[Series] = table.read()
        for note in table.notes:
            print(f"Note: {note}")
    else:
        source = build_series_source(config.data)
        source.prepare()
        loaded = source.load()
    panel = [loaded] if isinstance(loaded, Series) else loaded
    members = _members(panel, layout, config, str(data or config.data.path or config.data.name))
    task.to(build_trainer(config).strategy.root_device).eval()
    place = str(config.data.path or config.data.name)
    return TrainedForecaster(config, task, layout, members, load_calibration(checkpoint), place)


def _members(
    panel: Sequence[Series], layout: FeatureEncoder, config: ForecastingConfig, place: str
) -> list[ScaledSeries]:
    interval = interval_of(panel[0].timestamps)
    if interval != layout.interval:
        raise InputError(f"{place}: a step of {interval}; the model was trained on steps of {layout.interval}")
    members, strangers = [], []
    for series in panel:
        if len(series.channels) != len(layout.channels):
            raise InputError(f"{place}: {len(series.channels)} channels; trained on {len(layout.channels)}")
        if config.data.id is None:
            scaler = next(iter(layout.scalers.values()))
        else:
            known = layout.scalers.get(series.name)
            strangers += [] if known else [series.name]
            scaler = known or Scaler.fit(series.values)
        members.append(ScaledSeries(series, scaler, layout.encode(series, scaler)))
    if strangers:
        shown = ", ".join(map(repr, strangers[:5])) + (" and more" if len(strangers) > 5 else "")
        print(f"Note: {len(strangers)} series that training never saw are scaled by their own rows: {shown}")
    return members


def cut_inputs(run: TrainedForecaster, member: ScaledSeries, row: int, known_future: NDArray[np.float32]) -> Inputs:
    """The one window of a series whose first step to forecast is `row`, given the known covariates (N, K) from there.

    Nothing from `row` on is looked at. Raises InputError when fewer rows than the context stand before it.
    """
    length, layout = run.config.data.context_length, run.layout
    if row < length:
        name = f"series {member.series.name!r}: " if run.is_panel else ""
        raise InputError(
            f"{run.place}: {name}{row} rows before the first step to forecast; the model sees "
            f"data.context_length={length}"
        )
    seen = member.scaled[row - length : row]
    channels = len(layout.channels)
    ahead = channels + len(layout.past)
    codes, numbers = layout.static(member.series)
    known = np.concatenate([seen[:, ahead:], known_future])
    past = seen[None, :, channels:ahead]
    return Inputs(seen[None, :, :channels], past, known[None], codes[None], numbers[None])


def stack_inputs(inputs: Sequence[Inputs]) -> Inputs:
    """Several windows as one."""
    return Inputs(*(np.concatenate(parts) for parts in zip(*inputs, strict=True)))


@torch.inference_mode()
def forecast_recursively(run: TrainedForecaster, inputs: Inputs, steps: int) -> NDArray[np.float64]:
    """Forecasts (B, N, C, Q) of `steps` = N steps, z-scored; beyond the horizon the forecast is taken as seen."""
    task, data = run.task, run.config.data
    context, past, known, categories, numbers = (torch.from_numpy(part).to(task.device) for part in inputs)
    blocks = -(-steps // data.horizon)
    # A step's covariates say nothing about other steps: those beyond the last are never looked at.
    known = torch.cat([known, known[:, -1:].expand(-1, blocks * data.horizon - steps, -1)], dim=1)
    forecasts: list[Tensor] = []
    for block in range(blocks):
        covariates: Any = None
        if run.layout.has_covariates:
            window = known[:, block * data.horizon :][:, : data.context_length + data.horizon]
            covariates = CovariateInputs(past, window, categories, numbers)
        forecast = task.quantiles(context, covariates)
        forecasts.append(forecast)
        context = torch.cat([context, forecast[..., task.point]], dim=1)[:, -data.context_length :]
    return torch.cat(forecasts, dim=1)[:, :steps].double().cpu().numpy()


def check_steps(run: TrainedForecaster, horizon: int | None) -> int:
    """The steps to forecast, the trained horizon for None; raises InputError for more than can be."""
    steps = run.config.data.horizon if horizon is None else horizon
    if steps < 1:
        raise InputError(f"--horizon {steps}: must be at least 1")
    if steps > run.config.data.horizon and run.layout.past:
        raise InputError(
            f"--horizon {steps}: exceeds data.horizon={run.config.data.horizon}, and the past covariates "
            f"{', '.join(run.layout.past)} of the steps between are not known; train with a longer horizon"
        )
    return steps


def restore_units(member: ScaledSeries, values: NDArray[Any]) -> NDArray[np.float64]:
    """From z-scores (N, C, ...) to the series' units."""
    moved: NDArray[np.float64] = np.moveaxis(member.scaler.inverse(np.moveaxis(values, 1, -1)), -1, 1)
    return moved
