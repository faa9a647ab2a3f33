"""Inference with a trained forecaster, shared by `forecast` and `backtest`."""

from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.time_series.datamodule import ScaledSeries
from datamodules.time_series.encoder import FeatureEncoder, interval_of
from datamodules.time_series.series import Scaler, Series, SeriesSource
from titans_seq.batch import CovariateInputs
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.conformal import Calibration, load_calibration
from titans_seq.experiment.forecasting.data import build_series_source, build_table
from titans_seq.experiment.forecasting.experiment import ForecastingExperiment
from titans_seq.experiment.run.checkpoint import load
from titans_seq.experiment.run.trainer import build_trainer
from titans_seq.schema import FRAME, ForecastingConfig
from titans_seq.system.run_folders import BEST, REFIT, find_checkpoint, find_forecasters
from titans_seq.tasks import ForecastingTask


class TrainedForecaster(NamedTuple):
    """A trained task, the series to forecast, and the conformal calibration of its run."""

    config: ForecastingConfig
    task: ForecastingTask  # on the device of the configuration, ready to forecast
    encoder: FeatureEncoder
    scaled_series: list[ScaledSeries]
    calibration: Calibration | None
    source_name: str  # the name of the data, for messages
    source: SeriesSource  # of the series

    @property
    def is_panel(self) -> bool:
        """Whether tables of results must name the series."""
        return self.config.data.id is not None

    @property
    def timezone(self) -> str | None:
        """Time zone of the series."""
        return self.scaled_series[0].series.timezone


class Member(NamedTuple):
    """A forecaster of an ensemble."""

    checkpoint: Path
    forecaster: TrainedForecaster


class Inputs(NamedTuple):
    """Scaled model inputs of some windows."""

    context: NDArray[np.float32]  # (B, L, C)
    past: NDArray[np.float32]  # (B, L, P)
    known: NDArray[np.float32]  # (B, L + N, K), including the N steps to forecast
    categories: NDArray[np.int64]  # (B, S)
    numbers: NDArray[np.float32]  # (B, N)


def load_ensemble(
    checkpoints: str | Path | Sequence[str | Path],
    data: Path | pl.DataFrame | None,
    overrides: Iterable[str],
    *,
    refit: bool,
) -> list[Member]:
    """Load the forecasters of one or more checkpoints, runs or folders of runs, with the data to forecast.

    `refit` prefers the weights that a run has trained again on all rows. Notes that several have are printed once.
    Raises InputError when two do not forecast the same columns and steps.
    """
    given = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    paths = list(dict.fromkeys(found for each in given for found in find_forecasters(each, refit=refit)))
    overrides, said = list(overrides), set[str]()
    members: list[Member] = []
    for path in paths:
        with redirect_stdout(StringIO()) as printed:
            members.append(Member(path, load_trained(path, data, overrides)))
        lines = [line for line in printed.getvalue().splitlines() if line not in said]
        said.update(lines)
        print("".join(f"{line}\n" for line in lines), end="")
        _check_match(members[0], members[-1])
    if len(members) > 1:
        print(f"Note: forecasts are means of {len(members)} checkpoints: {', '.join(map(str, paths))}")
    return members


def load_trained(checkpoint: Path, data: Path | pl.DataFrame | None, overrides: Iterable[str]) -> TrainedForecaster:
    """Load a checkpoint and read `data`, or the data it was trained on, with the checkpoint's encoder.

    `data` is a table, as a file or a frame, with the columns of the training table.
    Raises InputError when the data do not match those of the training.
    """
    checkpoint = find_checkpoint(checkpoint)
    overrides = [*(["data.name=table"] if data is not None else []), *overrides]
    frame = data if isinstance(data, pl.DataFrame) else None
    experiment, task, _ = load(checkpoint, overrides, ForecastingExperiment)
    config = experiment.config
    try:
        encoder = FeatureEncoder.from_container(task.hparams["layout"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{checkpoint}: contains no description of its training data; train the model again") from None
    if data is not None:
        config.data.path = str(data) if frame is None else FRAME
    if config.data.name == "table":
        config.data.target = list(encoder.channels)
        config.data.timezone = config.data.timezone or encoder.timezone
        source: SeriesSource = (table := build_table(config.data, frame))
        loaded: Series | list[Series] = table.read()
        for note in table.notes:
            print(f"Note: {note}")
    else:
        source = build_series_source(config.data)
        source.prepare()
        loaded = source.load()
    panel = [loaded] if isinstance(loaded, Series) else loaded
    source_name = str(config.data.path or config.data.name)
    scaled_series = _scale(panel, encoder, config, source_name)
    task.to(build_trainer(config).strategy.root_device).eval()
    # The margins of weights that were trained again are those that the selected ones had on rows they had not seen.
    calibrated = checkpoint.with_name(BEST) if checkpoint.name == REFIT else checkpoint
    calibration = load_calibration(calibrated) if calibrated.is_file() else None
    return TrainedForecaster(config, task, encoder, scaled_series, calibration, source_name, source)


def _check_match(first: Member, other: Member) -> None:
    """Raise InputError when two forecasters differ in what their forecasts mean."""
    for (key, before), found in zip(_facts(first.forecaster).items(), _facts(other.forecaster).values(), strict=True):
        if found != before:
            raise InputError(
                f"{other.checkpoint}: {key} {found} does not match {before} of {first.checkpoint}; runs that are "
                "forecast together must have the same"
            )


def _facts(forecaster: TrainedForecaster) -> dict[str, Any]:
    config, encoder = forecaster.config, forecaster.encoder
    return {
        "horizon": config.data.horizon,
        "target columns": encoder.channels,
        "past covariates": encoder.past,
        "known covariates": encoder.known,
        "time step": encoder.interval,
        "column of series": config.data.id,
        "quantiles": forecaster.task.quantile_levels,
        "intervals": list(forecaster.calibration.coverages) if forecaster.calibration else [],
    }


def _scale(
    panel: Sequence[Series], encoder: FeatureEncoder, config: ForecastingConfig, source_name: str
) -> list[ScaledSeries]:
    """Scale and encode every series; raises InputError for another time step or another number of channels."""
    interval = interval_of(panel[0])
    if interval != encoder.interval:
        raise InputError(
            f"{source_name}: time step {interval}; the model requires time step {encoder.interval}, as in training"
        )
    scaled_series, unseen = [], []
    for series in panel:
        if len(series.channels) != len(encoder.channels):
            raise InputError(
                f"{source_name}: expected {len(encoder.channels)} channels, as in training; got {len(series.channels)}"
            )
        if config.data.id is None:
            scaler = next(iter(encoder.scalers.values()))
        else:
            fitted = encoder.scalers.get(series.name)
            unseen += [] if fitted else [series.name]
            scaler = fitted or Scaler.fit(series.values)
        scaled_series.append(ScaledSeries(series, scaler, encoder.encode(series, scaler)))
    if unseen:
        names = ", ".join(map(repr, unseen[:5])) + (" and more" if len(unseen) > 5 else "")
        print(f"Note: {len(unseen)} series unseen in training are scaled by their own statistics: {names}")
    return scaled_series


def cut_inputs(
    forecaster: TrainedForecaster, member: ScaledSeries, row: int, known_future: NDArray[np.float32]
) -> Inputs:
    """Inputs of the window of a series whose first step to forecast is `row`, given known covariates (N, K) from there.

    Nothing else from `row` on is read. Raises InputError when fewer rows than the context length precede it.
    """
    length, encoder = forecaster.config.data.context_length, forecaster.encoder
    if row < length:
        name = f"series {member.series.name!r}: " if forecaster.is_panel else ""
        raise InputError(
            f"{forecaster.source_name}: {name}{row} rows before the first step to forecast; the model requires "
            f"data.context_length={length}"
        )
    context = member.scaled[row - length : row]
    channels = len(encoder.channels)
    ahead = channels + len(encoder.past)
    codes, numbers = encoder.static(member.series)
    known = np.concatenate([context[:, ahead:], known_future])
    past = context[None, :, channels:ahead]
    return Inputs(context[None, :, :channels], past, known[None], codes[None], numbers[None])


def stack_inputs(inputs: Sequence[Inputs]) -> Inputs:
    """Concatenate the inputs of several windows along the batch dimension."""
    return Inputs(*(np.concatenate(parts) for parts in zip(*inputs, strict=True)))


@torch.inference_mode()
def forecast_recursively(forecaster: TrainedForecaster, inputs: Inputs, steps: int) -> NDArray[np.float64]:
    """Return z-scored forecasts (B, N, C, Q) of N = `steps`; beyond the horizon, forecasts are fed back as input."""
    task, data = forecaster.task, forecaster.config.data
    context, past, known, categories, numbers = (torch.from_numpy(part).to(task.device) for part in inputs)
    blocks = -(-steps // data.horizon)
    # A step's covariates do not affect the forecasts of other steps, so the padding of the last block may be any.
    known = torch.cat([known, known[:, -1:].expand(-1, blocks * data.horizon - steps, -1)], dim=1)
    forecasts: list[Tensor] = []
    for block in range(blocks):
        covariates: Any = None
        if forecaster.encoder.has_covariates:
            window = known[:, block * data.horizon :][:, : data.context_length + data.horizon]
            covariates = CovariateInputs(past, window, categories, numbers)
        forecast = task.quantiles(context, covariates)
        forecasts.append(forecast)
        context = torch.cat([context, forecast[..., task.point]], dim=1)[:, -data.context_length :]
    return torch.cat(forecasts, dim=1)[:, :steps].double().cpu().numpy()


def check_steps(forecaster: TrainedForecaster, horizon: int | None) -> int:
    """Return the number of steps to forecast, the trained horizon for None.

    Raises InputError for fewer than one, and for more than the trained horizon with past covariates.
    """
    steps = forecaster.config.data.horizon if horizon is None else horizon
    if steps < 1:
        raise InputError(f"--horizon {steps}: must be at least 1")
    if steps > forecaster.config.data.horizon and forecaster.encoder.past:
        raise InputError(
            f"--horizon {steps}: exceeds data.horizon={forecaster.config.data.horizon}, and later steps require future "
            f"values of the past covariates {', '.join(forecaster.encoder.past)}; train with a longer data.horizon"
        )
    return steps


def restore_units(member: ScaledSeries, values: NDArray[Any]) -> NDArray[np.float64]:
    """Convert z-scores (N, C, ...) to the units of the series."""
    moved: NDArray[np.float64] = np.moveaxis(member.scaler.inverse(np.moveaxis(values, 1, -1)), -1, 1)
    return moved
