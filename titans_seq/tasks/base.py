"""Base class of the tasks."""

from abc import ABC
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from titans_seq.config import from_container
from titans_seq.schema import Config
from titans_seq.tasks.optimizer import adamw


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

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over all parameters."""
        return adamw(self.model, self.config.task, int(self.trainer.estimated_stepping_batches))

    def process_state(self) -> dict[str, Tensor]:
        """Return the state of this process, besides weights, that exact resuming requires; tensors on the CPU."""
        return {}

    def set_process_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `process_state` returned; called when training resumes from a checkpoint."""
