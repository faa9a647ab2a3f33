"""The last step of a training, wherever in an epoch it is."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ValidateLastStep(Callback):
    """Validates where `max_steps` ends a training within an epoch; Lightning does so at the end of epochs alone."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops as early stopping does: after a validation."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
