"""Train a task again on other rows, for the number of steps that validation has selected (`data.refit`)."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

from titans_seq.callbacks import NaNGuard, Schedule, TrainingCheckpoints
from titans_seq.callbacks.checkpoints import RESUME
from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.base import Experiment
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.trainer import ONE_DEVICE, build_trainer
from titans_seq.system.checkpoint_files import DamagedCheckpointError, by_age, read_checkpoint
from titans_seq.system.run_folders import BEST, REFIT
from titans_seq.system.signals import StopSignals
from titans_seq.tasks import Task

_PROGRESS = "refit"  # folder in `checkpoints` with the state of an unfinished training


class SelectedSteps(NamedTuple):
    """How long the selected weights of a run were trained."""

    steps: int  # optimiser steps
    schedule_steps: int  # of the learning rate's schedule that they are the first of

    @classmethod
    def of(cls, checkpoint: Path) -> "SelectedSteps":
        """Read them from a checkpoint; raises InputError for one of an earlier version."""
        content = read_checkpoint(checkpoint)
        steps = int(content.get("global_step", 0))
        schedule = content.get("titans_seq", {}).get("schedule_steps", 0 if steps == 0 else None)
        if schedule is None:
            raise InputError(
                f"{checkpoint}: written by an earlier version, without the length of its schedule; train it again"
            )
        return cls(steps, schedule)


def refit(experiment: Experiment[Any], folder: RunFolder, signals: StopSignals, metadata: dict[str, Any]) -> int:
    """Train a new task of `experiment` for the steps of the run's best checkpoint; returns their number.

    Writes the weights to checkpoints/refit.ckpt. Its state is kept in checkpoints/refit/, from which a later call
    resumes, bit for bit on a CPU. Raises Interrupted after a signal.
    """
    selected = SelectedSteps.of(folder.checkpoints / BEST)
    if (folder.checkpoints / REFIT).is_file():  # the run was stopped after it
        return selected.steps
    options, progress = experiment.config.trainer, folder.checkpoints / _PROGRESS
    progress.mkdir(exist_ok=True)
    checkpoints = TrainingCheckpoints(
        progress,
        Schedule(options.checkpoint_steps, options.checkpoint_minutes, options.keep_checkpoints),
        signals,
        rows=lambda: 0,
        metadata={**metadata, "data": experiment.fingerprint()},
    )
    resumed = _newest(progress)
    print(f"\n{'Resuming the training' if resumed else 'Training again'} on all rows: {selected.steps:,} steps")
    try:
        trainer, _ = train_for(experiment, selected, folder.checkpoints, (checkpoints,), resumed)
    except Interrupted as stop:
        rest = f"interrupted while training on all rows. Resume with: titans-seq fit resume={folder.path}"
        raise Interrupted(rest, stop.status) from None
    trainer.save_checkpoint(folder.checkpoints / REFIT)
    shutil.rmtree(progress)
    return selected.steps


def train_for(
    experiment: Experiment[Any],
    selected: SelectedSteps,
    checkpoints: Path,
    callbacks: tuple[Callback, ...] = (),
    resumed: Path | None = None,
) -> tuple[Trainer, Task]:
    """Train a new task of the experiment on one device for the selected steps, without validation or loggers.

    `checkpoints` is the folder whose last good checkpoint the error for a loss that is NaN names.
    """
    config = experiment.config
    seed_everything(config.seed, workers=True, verbose=False)
    task, _ = experiment.new_task()
    trained = any(parameter.requires_grad for parameter in task.parameters())
    if config.trainer.compile:
        task.model.compile()
    limits = {"max_epochs": -1, "max_steps": max(1, selected.schedule_steps), **ONE_DEVICE}
    averages = [EMAWeightAveraging(decay=config.trainer.ema_decay)] if config.trainer.ema_decay and trained else []
    every = [*callbacks, *averages, NaNGuard(task.monitor, checkpoints), _StopAfter(selected.steps)]
    trainer = build_trainer(replace(config, trainer=replace(config.trainer, **limits)), callbacks=every)
    trainer.limit_val_batches = 0
    if trained:
        trainer.fit(task, datamodule=experiment.data, ckpt_path=resumed)
    else:
        trainer.strategy.connect(task)  # solved in closed form: there is nothing to train, but weights to save
    return trainer, task


def _newest(folder: Path) -> Path | None:
    """The newest intact checkpoint of an unfinished training; None: there is none."""
    for path in by_age(folder):
        try:
            if RESUME in read_checkpoint(path):
                return path
        except DamagedCheckpointError:
            continue
    return None


class _StopAfter(Callback):
    """End training after a number of optimiser steps, within the schedule of a longer training."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self._steps:
            trainer.should_stop = True
