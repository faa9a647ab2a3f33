"""Progress in the console where no progress bar can be drawn, such as in a log file."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class EpochLines(Callback):
    """Print one line after each validation during training: the epoch, counted from 1, and the value of `monitor`."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line, in the first process of several."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero:
            value = float(trainer.callback_metrics[self._monitor])
            print(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {self._monitor} {value:.4g}", flush=True)
