"""The callbacks of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)

from titans_seq.callbacks import (
    EpochLines,
    MemoryLog,
    NaNGuard,
    Schedule,
    StepLog,
    TimeLimit,
    TrainingCheckpoints,
    ValidateLastStep,
)
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.metrics_csv import MetricsCsv
from titans_seq.experiment.run.resume import StartPoint
from titans_seq.schema import Config
from titans_seq.system.console import can_redraw
from titans_seq.system.signals import StopSignals
from titans_seq.tasks import Task


@dataclass(frozen=True)
class RunCallbacks:
    """Callbacks of a run, in the order in which the trainer calls them."""

    checkpoints: TrainingCheckpoints
    best: ModelCheckpoint
    all: list[Callback]

    @classmethod
    def build(
        cls,
        config: Config,
        task: Task,
        folder: RunFolder,
        signals: StopSignals,
        metrics: MetricsCsv | None,
        start: StartPoint,
        metadata: dict[str, Any],
        others: Sequence[Callback] = (),
    ) -> "RunCallbacks":
        """The callbacks for a configuration and its task, and `others`; `metadata` is stored in checkpoints."""
        options = config.trainer
        checkpoints = TrainingCheckpoints(
            folder.checkpoints,
            Schedule(options.checkpoint_steps, options.checkpoint_minutes, options.keep_checkpoints),
            signals,
            rows=metrics.secure if metrics else lambda: 0,
            metadata=metadata,
            seconds=start.progress["seconds"],
        )
        best = ModelCheckpoint(
            folder.checkpoints, filename="best", monitor=task.monitor, mode=task.mode, enable_version_counter=False
        )
        callbacks: list[Callback] = [checkpoints]
        if options.ema_decay:
            callbacks.append(EMAWeightAveraging(decay=options.ema_decay))
        callbacks += [
            NaNGuard(task.monitor, folder.checkpoints),
            EarlyStopping(task.monitor, mode=task.mode, patience=options.patience),
            LearningRateMonitor("step"),
            ValidateLastStep(),
            *([TimeLimit(options.max_minutes, lambda: checkpoints.seconds)] if options.max_minutes else []),
            StepLog(),
            *([MemoryLog()] if config.logging.memory else []),
            best,
            *others,
        ]
        if options.progress_bar:
            callbacks.append(_ProgressBar(refresh_rate=10) if can_redraw() else EpochLines(task.monitor))
        return cls(checkpoints, best, callbacks)


class _ProgressBar(TQDMProgressBar):
    """A progress bar without the logger's version number, which means nothing to users."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
