"""Starts a forecasting task from the weights of a universal forecaster (fine-tuning)."""

from pathlib import Path
from typing import Any

from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.models.universal.windows import WindowForecaster
from titans_seq.schema import ForecastingConfig
from titans_seq.system.checkpoint_files import read_checkpoint
from titans_seq.system.run_folders import find_checkpoint
from titans_seq.tasks import ForecastingTask
from titans_seq.tasks.forecasting import Universal
from titans_seq.tasks.pretrained import CONFIG, SHIPPED, from_pretrained
from titans_seq.tasks.universal import UniversalTask

UNIVERSAL = "universal"  # the task, and the name of the weights that come with the package


def fine_tuned(
    config: ForecastingConfig, pretrained: str, num_channels: int, covariates: dict[str, Any], layout: dict[str, Any]
) -> tuple[ForecastingTask, str]:
    """Return the task with the weights that `pretrained` names, and a line about them.

    Args:
        config: with model.pretrained.
        pretrained: see `load_universal`.
        num_channels, covariates, layout: see `ForecastingTask`.
    """
    try:
        source = load_universal(pretrained)
    except InputError as error:
        raise InputError(f"model.pretrained={pretrained}: {error}") from None
    universal = Universal(to_container(source.config), int(layout["season"]))
    task = ForecastingTask(to_container(config), num_channels, covariates, layout, universal._asdict())
    assert isinstance(task.model, WindowForecaster)
    task.model.forecaster.load_state_dict(source.model.state_dict())
    values = sum(w.numel() for w in source.model.parameters())
    new = " Without effect at first: the known covariates." if task.model.known is not None else ""
    return task, f"pre-trained weights: {pretrained} ({source.config.model.variant.upper()}, {values:,} values).{new}"


def load_universal(name: str) -> UniversalTask:
    """Load a universal forecaster: "universal" is the one of the package, another name a path.

    A path is a folder of `titans-seq export`, a run's folder or a checkpoint. Raises InputError when there are no such
    weights, or they are of another task.
    """
    folder = SHIPPED / UNIVERSAL if name == UNIVERSAL else Path(name).expanduser()
    is_exported = (folder / CONFIG).is_file()
    if name == UNIVERSAL and not is_exported:
        raise InputError("this installation contains no weights; name a run with task.name=universal instead")
    return _from_folder(folder) if is_exported else _from_checkpoint(find_checkpoint(folder))


def _from_folder(folder: Path) -> UniversalTask:
    task = from_pretrained(folder)
    if not isinstance(task, UniversalTask):
        raise _other_task(folder, task.config.task.name)
    return task


def _from_checkpoint(path: Path) -> UniversalTask:
    content = read_checkpoint(path)
    try:
        container, weights = content["hyper_parameters"]["config"], content["state_dict"]
        kind = container["task"]["name"]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a checkpoint of titans_seq: it contains no configuration") from None
    if kind != UNIVERSAL:
        raise _other_task(path, kind)
    task = UniversalTask(container)
    try:
        task.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: its weights do not match its configuration: {reason}") from None
    return task


def _other_task(path: Path, kind: str) -> InputError:
    return InputError(f"{path}: weights of task.name={kind}; expected task.name=universal")
