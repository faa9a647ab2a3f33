"""Base class of the tasks."""

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.parsing import AttributeDict
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from titans_seq.config import from_container
from titans_seq.schema import Config
from titans_seq.tasks.optimizer import configure

_OF_A_RUN = "titans_seq"  # key of checkpoints that `titans_seq.callbacks.TrainingCheckpoints` has written to
_PROCESS_STATE = "process_state"


class Task(LightningModule, ABC):
    """A model with its loss, metrics and optimiser.

    Subclasses set `model` and `monitor`, and save their constructor arguments as hyperparameters.

    Args:
        config: the whole experiment as plain containers (`titans_seq.config.to_container`); subclasses save it in
            checkpoints, so that `load_from_checkpoint(path, weights_only=True)` needs nothing else.
    """

    model: nn.Module
    monitor: str  # the logged quantity that selects a checkpoint
    mode: Literal["min", "max"] = "min"  # which of its values is best

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config: Config = from_container(config, source="checkpoint")

    @property
    def hparams_initial(self) -> AttributeDict:
        """The configuration, which is what loggers record; checkpoints also have the other constructor arguments."""
        return AttributeDict(super().hparams_initial.get("config", {}))

    @property
    def learning_rate(self) -> float:
        """`task.learning_rate`, under the name that Lightning's `Tuner.lr_find` reads and sets."""
        return self.config.task.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.config.task.learning_rate = value
        config = self.hparams["config"]
        self.hparams["config"] = {**config, "task": {**config["task"], "learning_rate": value}}  # for checkpoints

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The configured optimiser (`task.optimizer`) over all parameters, and its schedule."""
        return configure(self.model, self.config.task, self.trainer)

    @abstractmethod
    def as_batch(self, batch: Any, *, with_targets: bool = True) -> NamedTuple:
        """Return a loader's batch as the batch type of this task; raises InputError when it does not fit the model.

        Without targets, as in a prediction, those that are missing are filled in.
        """

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Convert the batches of loaders that are not the project's own, see `as_batch`."""
        return self.as_batch(batch, with_targets=not self.trainer.predicting)

    def process_state(self) -> dict[str, Tensor]:
        """Return the state of this process, besides weights, that exact resuming requires; tensors on the CPU."""
        return {}

    def set_process_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `process_state` returned; called when training resumes from a checkpoint."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the process state; the checkpoints of a run have it themselves, for every process."""
        if _OF_A_RUN not in checkpoint and (state := self.process_state()):
            checkpoint[_PROCESS_STATE] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the process state."""
        self.set_process_state(checkpoint.get(_PROCESS_STATE, {}))
