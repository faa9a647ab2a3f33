"""Load a trained task, and the experiment it belongs to, from a checkpoint."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from titans_seq.config import from_container
from titans_seq.errors import InputError
from titans_seq.experiment.base import Experiment
from titans_seq.experiment.run.trainer import ONE_DEVICE, check_machine
from titans_seq.schema import Config
from titans_seq.system.checkpoint_files import read_checkpoint
from titans_seq.system.run_folders import find_checkpoint
from titans_seq.tasks import Task

ExperimentT = TypeVar("ExperimentT", bound=Experiment[Any])


class Loaded(NamedTuple, Generic[ExperimentT]):
    """A checkpoint's experiment and trained task; the data are not read yet."""

    experiment: ExperimentT
    task: Any  # the experiment's own kind of `Task`, with the checkpoint's weights
    trained_on: dict[str, Any]  # fingerprint of the training data


def load(
    checkpoint: str | Path, overrides: Iterable[str], build: Callable[[Config], ExperimentT]
) -> Loaded[ExperimentT]:
    """Load a checkpoint, or the best one of a run's folder.

    `key=value` overrides change its configuration, and `build` makes the experiment from it.

    Nothing in the file is executed (weights_only). Raises InputError when it is not a checkpoint of this project, when
    it does not match the configuration, or when `build` supports another task.
    """
    checkpoint = find_checkpoint(checkpoint)
    content = read_checkpoint(checkpoint)
    foreign = InputError(f"{checkpoint}: not a checkpoint of titans_seq: it contains no configuration")
    try:
        hyperparameters, weights = content["hyper_parameters"], content["state_dict"]
        container = hyperparameters["config"]
        trainer = container.get("trainer") or {}
    except (KeyError, TypeError, AttributeError):
        raise foreign from None
    # Limits and devices of the training do not apply to an evaluation, unless the overrides set them again.
    container = {**container, "trainer": {**trainer, "limit_batches": 0, **ONE_DEVICE}}
    config = from_container(container, source=str(checkpoint), overrides=overrides)
    check_machine(config)
    try:
        experiment = build(config)
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from None
    try:
        task = experiment.restored_task(hyperparameters)
    except KeyError:
        raise foreign from None
    _load_weights(task, weights, checkpoint)
    return Loaded(experiment, task, content.get("titans_seq", {}).get("data", {}))


def _load_weights(task: Task, weights: dict[str, torch.Tensor], checkpoint: str | Path) -> None:
    expected = task.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        ours, theirs = (tuple(side[name].shape) if name in side else None for side in (expected, weights))
        if ours != theirs:
            raise InputError(
                f"{checkpoint}: {name} is {shape_text(theirs)} in the checkpoint, {shape_text(ours)} in the configured "
                "model; remove the overrides of model and data, or use the checkpoint that matches them"
            )
    task.load_state_dict(weights)


def shape_text(shape: tuple[int, ...] | None) -> str:
    """A tensor's shape for a message; None for a tensor that does not exist."""
    return "missing" if shape is None else str(shape)
