"""What is done with a checkpoint after training."""

import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from datamodules.forecasting import ForecastingDataModule
from titans_seq.config import from_container, to_container
from titans_seq.errors import InputError
from titans_seq.experiment.build import build_data, build_trainer, check_machine
from titans_seq.schema import Config
from titans_seq.tasks import ForecastingTask


def load_run(
    checkpoint: str | Path, overrides: Iterable[str] = ()
) -> tuple[Config, ForecastingTask, ForecastingDataModule]:
    """The configuration, trained task and data of a checkpoint; `key=value` words change the configuration.

    Nothing in the file is executed (weights_only). Raises InputError when it is not a checkpoint of this project, or
    does not fit the configuration.
    """
    content = _read_checkpoint(Path(checkpoint))
    try:
        hyperparameters, weights = content["hyper_parameters"], content["state_dict"]
        container, num_channels = hyperparameters["config"], hyperparameters["num_channels"]
    except (KeyError, TypeError):
        raise InputError(f"{checkpoint}: not a checkpoint of titans_seq: it holds no configuration") from None
    # What limited the training is not to limit what is measured, unless it is asked for again.
    container = {**container, "trainer": {**container.get("trainer", {}), "limit_batches": 0}}
    config = from_container(container, source=str(checkpoint), overrides=overrides)
    check_machine(config)
    data = build_data(config)
    found = len(data.series.channels)
    if found != num_channels:
        raise InputError(f"{checkpoint}: trained on {num_channels} channels; {data.series.name} has {found}")
    task = ForecastingTask(to_container(config), num_channels)
    _load_weights(task, weights, checkpoint)
    return config, task, data


def measure(
    checkpoint: str | Path, split: Literal["validation", "test"], overrides: Iterable[str] = ()
) -> dict[str, float]:
    """MSE and MAE of a checkpoint on all windows of a split, z-scored, by name (`test/mse`, ...)."""
    config, task, data = load_run(checkpoint, overrides)
    trainer = build_trainer(config)
    evaluate = trainer.test if split == "test" else trainer.validate
    return dict(evaluate(task, datamodule=data, verbose=False)[0])


def predict(checkpoint: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> pl.DataFrame:
    """Forecast the test split once, horizon after horizon, in the source's units, and write it as Parquet to `out`.

    A file that is there already is replaced.

    A row per step and channel: `timestamp`, `channel`, `origin` (the last stamp the model saw), `step` (1 to horizon),
    `forecast`, `truth`. Steps after the last whole horizon are left out.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: no such folder {out.parent}")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"--out {out}: {'is a folder' if out.is_dir() else 'the folder cannot be written to'}")
    config, task, data = load_run(checkpoint, overrides)
    windows = data.windows("test")
    starts = np.arange(0, len(windows), data.horizon)
    parts = np.array_split(starts, -(-len(starts) // data.batch_size))
    loader = (windows[part] for part in parts)  # a list would be taken for several loaders
    trainer = build_trainer(config)
    batches = trainer.predict(task, dataloaders=loader)
    assert batches is not None
    z_scores = torch.cat([torch.as_tensor(b) for b in batches]).cpu().double().numpy()
    table = _as_table(data, data.scaler.inverse(z_scores), starts[: len(z_scores)])  # trainer.limit_batches
    partial = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        table.write_parquet(partial)
        partial.replace(out)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return table


def _as_table(data: ForecastingDataModule, forecast: NDArray[np.float64], starts: NDArray[np.int64]) -> pl.DataFrame:
    """Forecasts (W, H, C) of the windows at `starts` beside the truth, in long form."""
    windows, horizon, channels = forecast.shape
    rows = data.rows("test")[0] + data.context_length + starts[:, None] + np.arange(horizon)  # (W, H)
    stamps = data.series.timestamps[rows]
    shape = forecast.shape
    return pl.DataFrame(
        {
            "timestamp": np.broadcast_to(stamps[..., None], shape).ravel(),
            "channel": np.tile(np.array(data.series.channels), windows * horizon),
            "origin": np.broadcast_to(data.series.timestamps[rows[:, :1] - 1][..., None], shape).ravel(),
            "step": np.broadcast_to(np.arange(1, horizon + 1)[:, None], shape).ravel(),
            "forecast": forecast.ravel(),
            "truth": data.series.values[rows].reshape(windows * horizon * channels),
        }
    )


def _load_weights(task: ForecastingTask, weights: dict[str, torch.Tensor], checkpoint: str | Path) -> None:
    expected = task.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        ours, theirs = (tuple(side[name].shape) if name in side else None for side in (expected, weights))
        if ours != theirs:
            raise InputError(
                f"{checkpoint}: {name} is {_shape(theirs)} in the checkpoint, {_shape(ours)} in the configured model; "
                "drop the overrides of model and data, or take the checkpoint that matches them"
            )
    task.load_state_dict(weights)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    if not zipfile.is_zipfile(path):  # torch would read it as its older format, and fail in any way whatever
        raise InputError(f"{path}: cut short, damaged or not a checkpoint: not the archive that torch writes")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__  # an EOFError says nothing
        raise InputError(f"{path}: cut short, damaged or not a checkpoint: {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint of titans_seq: it holds a {type(content).__name__}")
    return content
