"""Validation after the last training step, also in the middle of an epoch."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ValidateLastStep(Callback):
    """Run validation when `max_steps` ends training within an epoch; Lightning validates only at the end of epochs."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Request a stop the way early stopping does, so that Lightning validates first."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
