"""Inference with a trained forecaster, shared by `forecast` and `backtest`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.common.messages import listed
from datamodules.time_series.datamodule import ScaledSeries
from datamodules.time_series.encoder import FeatureEncoder, interval_of
from datamodules.time_series.origin import cut_at_origin, time_text
from datamodules.time_series.series import Scaler, Series, SeriesSource
from datamodules.time_series.short_series import UNSEEN_CATEGORY, has_empty_column, note
from titans_seq.batch import CovariateInputs
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.conformal.calibration import Calibration, load_calibration
from titans_seq.experiment.forecasting.data import build_series_source, build_table
from titans_seq.experiment.forecasting.experiment import ForecastingExperiment
from titans_seq.experiment.run.checkpoint import load
from titans_seq.experiment.run.trainer import build_trainer
from titans_seq.schema import FRAME, ForecastingConfig
from titans_seq.system.run_folders import BEST, REFIT, find_checkpoint, find_forecasters
from titans_seq.tasks import ForecastingTask

Kind = Literal["model", "padded", "naive"]  # padded: the model, with rows before the first (`pad_series`)
_KINDS: tuple[Kind, ...] = get_args(Kind)  # of several checkpoints, the last of these counts


class TrainedForecaster(NamedTuple):
    """A trained task, the series to forecast, and the conformal calibration of its run."""

    config: ForecastingConfig
    task: ForecastingTask  # on the device of the configuration, ready to forecast
    encoder: FeatureEncoder
    scaled_series: list[ScaledSeries]
    calibration: Calibration | None
    source_name: str  # the name of the data, for messages
    source: SeriesSource  # of the series
    kinds: list[Kind]  # of each series, how it is forecast
    origin: Any = None  # time that all forecasts follow; None: each follows the last row of its series

    @property
    def is_panel(self) -> bool:
        """Whether tables of results must name the series."""
        return self.config.data.id is not None

    @property
    def model_name(self) -> str:
        """What forecasts a series, for the column `model`."""
        model = self.config.model
        if model.pretrained is not None:
            return "universal"
        return model.variant if model.baseline == "none" else model.baseline

    @property
    def trained_until(self) -> NDArray[Any]:
        """Last time of the training rows, (1,), in the type of the series' timestamps."""
        return np.array([self.encoder.trained_until]).astype(self.scaled_series[0].series.timestamps.dtype)

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
    floor: NDArray[np.float32]  # (B, C): least forecast, minus infinity where there is none


def load_ensemble(
    checkpoints: str | Path | Sequence[str | Path],
    data: Path | pl.DataFrame | None,
    overrides: Iterable[str],
    *,
    refit: bool,
    origin: str | None = None,
) -> list[Member]:
    """Load the forecasters of one or more checkpoints, runs or folders of runs, with the data to forecast.

    `refit` prefers the weights that a run has trained again on all rows; for `origin` see `load_trained`. Notes that
    several have are printed once. Raises InputError when two do not forecast the same series, columns and steps.
    """
    given = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    paths = list(dict.fromkeys(found for each in given for found in find_forecasters(each, refit=refit)))
    overrides, said = list(overrides), set[str]()
    members: list[Member] = []
    for path in paths:
        with new_lines(said):
            members.append(Member(path, load_trained(path, data, overrides, origin)))
        _check_match(members[0], members[-1])
    if len(members) > 1:
        print(f"Note: forecasts are means of {len(members)} checkpoints: {', '.join(map(str, paths))}")
    return members


@contextmanager
def new_lines(said: set[str]) -> Iterator[None]:
    """Print what is printed within, except for lines in `said`, which the others join."""
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line not in said:
                said.add(line)
                print(line)


def load_trained(
    checkpoint: Path, data: Path | pl.DataFrame | None, overrides: Iterable[str], origin: str | None = None
) -> TrainedForecaster:
    """Load a checkpoint and read `data`, or the data it was trained on, with the checkpoint's encoder.

    `data` is a table, as a file or a frame, with the columns of the training table. With an `origin` (a time, or "last"
    for the last one of all series) rows after it are not read.
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
        source: SeriesSource = (table := build_table(config.data, frame, categories=encoder.levels))
        loaded: Series | list[Series] = table.read()
        print_notes(table.notes)
    else:
        source = build_series_source(config.data)
        source.prepare()
        loaded = source.load()
    panel = [loaded] if isinstance(loaded, Series) else loaded
    start = None
    if origin is not None:
        names = {series.name for series in panel}
        panel, start = cut_at_origin(panel, origin)
        later = sorted(names - {series.name for series in panel})
        print_notes(note(later, f"start after the origin, {time_text(start, panel[0].timezone)}: left out"))
    source_name = str(config.data.path or config.data.name)
    scaled_series = _scale(panel, encoder, config, source_name)
    task.to(build_trainer(config).strategy.root_device).eval()
    print_notes(encoder.unknown_levels_notes(each.covariates.timed() for each in panel))
    # The margins of weights that were trained again are those that the selected ones had on rows they had not seen.
    calibrated = checkpoint.with_name(BEST) if checkpoint.name == REFIT else checkpoint
    calibration = load_calibration(calibrated) if calibrated.is_file() else None
    kinds: list[Kind] = ["model"] * len(scaled_series)
    return TrainedForecaster(config, task, encoder, scaled_series, calibration, source_name, source, kinds, start)


def _check_match(first: Member, other: Member) -> None:
    """Raise InputError when two forecasters differ in what their forecasts mean."""
    for (key, before), found in zip(_facts(first.forecaster).items(), _facts(other.forecaster).values(), strict=True):
        if found != before:
            raise InputError(
                f"{other.checkpoint}: {key} {found} does not match {before} of {first.checkpoint}; runs that are "
                "forecast together must have the same"
            )
    if _ends(first.forecaster) != _ends(other.forecaster):
        raise InputError(
            f"{other.checkpoint}: its data have other series, or other last times, than those of {first.checkpoint}; "
            "give both the same table: --data FILE, in Python data=frame"
        )


def _ends(forecaster: TrainedForecaster) -> list[tuple[str, Any]]:
    """Return the name and the last time of every series; a single one has no name of its own."""
    every = [member.series for member in forecaster.scaled_series]
    return [(each.name if forecaster.is_panel else "", each.timestamps[-1]) for each in every]


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
            scaler = fitted or Scaler.fit(series.values, robust=config.data.scaling == "robust")
        scaled_series.append(ScaledSeries.encode(series, scaler, encoder, floor=config.model.floor))
    if unseen:
        names = ", ".join(map(repr, unseen[:5])) + (" and more" if len(unseen) > 5 else "")
        print(f"Note: {len(unseen)} series unseen in training are scaled by their own statistics: {names}")
    return scaled_series


def prepare_series(
    forecaster: TrainedForecaster, *, span: int = 0, steps: int = 0, naive: bool = True
) -> TrainedForecaster:
    """Decide how each series is forecast, from its end or from origins in its last `span` rows; prints notes.

    A series with fewer rows than the context length before the first origin is padded or left out (`data.short`). The
    forecast is naive, or with `naive=False` left out, for those with less than a season of rows before the last origin,
    `steps` before the end; with a column without values; or with an unseen category that the model has no code for.
    Raises InputError when no series is left.
    """
    if forecaster.config.data.short == "refuse":
        return forecaster
    length, encoder = forecaster.config.data.context_length, forecaster.encoder
    least = min(encoder.season, length)
    reasons: dict[str, list[str]] = {}
    kept: list[ScaledSeries] = []
    kinds: list[Kind] = []
    for member in forecaster.scaled_series:
        kind, reason = _kind(forecaster, member.series, length + span, least + steps)
        if kind == "naive":
            reason += ": the forecast is naive" if naive else ": left out"
        for text in (reason, *_static_faults(encoder, member.series, kind)):
            reasons.setdefault(text, []).append(member.series.name)
        if kind is None or (kind == "naive" and not naive):
            continue
        padding = length - least if kind == "padded" else 0
        if padding:
            member = ScaledSeries.encode(*member[:2], encoder, padding, floor=member.floor)  # noqa: PLW2901
        kept.append(member)
        kinds.append(kind)
    for reason, names in reasons.items():
        print_notes(note(names if reason else [], reason))
    if not kept:
        rows = length + span if forecaster.config.data.short == "drop" else least + steps
        raise InputError(f"{forecaster.source_name}: no series has the {rows} rows for a forecast by the model")
    return forecaster._replace(scaled_series=kept, kinds=kinds)


def align_series(forecasters: Sequence[TrainedForecaster]) -> list[TrainedForecaster]:
    """Return forecasters whose forecasts can be averaged: the same series, and one kind of forecast for each.

    A series that one of them forecasts naively is naive for all; one that any of them pads counts as padded; one that
    any of them leaves out is left out, with a note. Raises InputError when no series is left.
    """
    names = [[member.series.name for member in each.scaled_series] for each in forecasters]
    if forecasters[0].is_panel:
        common = set(names[0]).intersection(*names[1:])
        forecasters = [_keep(each, common) for each in forecasters]
        lost = sorted(set().union(*names) - common)
        print_notes(note(lost, "not forecast by every one of the checkpoints: left out"))
        if not common:
            raise InputError(f"{forecasters[0].source_name}: no series that every one of the checkpoints can forecast")
    by_series = list(zip(*(each.kinds for each in forecasters), strict=True))
    panel = [member.series.name for member in forecasters[0].scaled_series]
    naive = [name for name, own in zip(panel, by_series, strict=True) if "naive" in own and len(set(own)) > 1]
    print_notes(note(naive, "naive for one of the checkpoints, and so for all of them"))
    kinds = [max(own, key=_KINDS.index) for own in by_series]
    return [each._replace(kinds=kinds) for each in forecasters]


def _keep(forecaster: TrainedForecaster, names: set[str]) -> TrainedForecaster:
    """Return a forecaster of the named series alone."""
    pairs = zip(forecaster.scaled_series, forecaster.kinds, strict=True)
    kept = [(member, kind) for member, kind in pairs if member.series.name in names]
    return forecaster._replace(scaled_series=[member for member, _ in kept], kinds=[kind for _, kind in kept])


def _kind(forecaster: TrainedForecaster, series: Series, needed: int, least: int) -> tuple[Kind | None, str]:
    """Return how a series is forecast, None for not at all, and why in words; empty for the model."""
    rows = len(series.timestamps)
    if has_empty_column(series):
        return "naive", "a column has no values"
    if forecaster.encoder.unseen_categories(series) and not forecaster.encoder.unknown:
        return "naive", "categories not in training, which this checkpoint has no code for; train again"
    if rows >= needed:
        return "model", ""
    if forecaster.config.data.short == "drop":
        return None, f"fewer than {needed} rows: left out, data.short=drop"
    if rows < least:
        return "naive", f"fewer than {least} rows"
    return "padded", f"fewer than {needed} rows: their first season is repeated before them"


def _static_faults(encoder: FeatureEncoder, series: Series, kind: Kind | None) -> Iterator[str]:
    """Yield notes about static values that the model replaces."""
    if kind in ("model", "padded"):
        if unseen := encoder.unseen_categories(series):
            yield f"{listed(unseen)} {UNSEEN_CATEGORY}"
        if unreadable := encoder.unreadable_numbers(series):
            yield f"{listed(unreadable)} not a number; the mean is taken"


def print_notes(notes: Iterable[str]) -> None:
    """Print notes about the data."""
    for text in notes:
        print(f"Note: {text}")


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
    ahead = channels + encoder.num_past
    codes, numbers = encoder.static(member.series)
    known = np.concatenate([context[:, ahead:], known_future])
    past = context[None, :, channels:ahead]
    floor = member.scaled_floor()
    return Inputs(context[None, :, :channels], past, known[None], codes[None], numbers[None], floor[None])


def stack_inputs(inputs: Sequence[Inputs]) -> Inputs:
    """Concatenate the inputs of several windows along the batch dimension."""
    return Inputs(*(np.concatenate(parts) for parts in zip(*inputs, strict=True)))


@torch.inference_mode()
def forecast_recursively(forecaster: TrainedForecaster, inputs: Inputs, steps: int) -> NDArray[np.float64]:
    """Return z-scored forecasts (B, N, C, Q) of N = `steps`; beyond the horizon, forecasts are fed back as input."""
    task, data = forecaster.task, forecaster.config.data
    context, past, known, categories, numbers, floor = (torch.from_numpy(part).to(task.device) for part in inputs)
    blocks = -(-steps // data.horizon)
    # A step's covariates do not affect the forecasts of other steps, so the padding of the last block may be any.
    known = torch.cat([known, known[:, -1:].expand(-1, blocks * data.horizon - steps, -1)], dim=1)
    forecasts: list[Tensor] = []
    for block in range(blocks):
        covariates: Any = None
        if forecaster.encoder.has_covariates:
            window = known[:, block * data.horizon :][:, : data.context_length + data.horizon]
            covariates = CovariateInputs(past, window, categories, numbers)
        forecast = torch.maximum(task.quantiles(context, covariates), floor[:, None, :, None])
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
    """Convert z-scored forecasts (N, C, ...) to the units of the series."""
    moved: NDArray[np.float64] = np.moveaxis(member.restore(np.moveaxis(values, 1, -1)), -1, 1)
    return moved
