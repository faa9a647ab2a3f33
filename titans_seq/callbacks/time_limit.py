"""Callback that ends training after a given time."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class TimeLimit(Callback):
    """Stop training after `minutes`, counted over all processes of a run; Lightning validates the last step.

    Args:
        minutes: of training.
        seconds: returns the run's training time so far.
    """

    def __init__(self, minutes: float, seconds: Callable[[], float]) -> None:
        self.minutes = minutes
        self.seconds = seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Request a stop after the step at which the time is over."""
        over = self.seconds() >= 60 * self.minutes
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.strategy.reduce_boolean_decision(over, all=False):
            trainer.should_stop = True
