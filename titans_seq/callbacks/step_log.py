"""What is logged beside the loss: the gradient's norm, the machine's speed and memory, and what the memories do."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from titans_seq.nn import NeuralMemory

# Quantities of the machine and the moment; all others are the same in every repetition of a run.
MACHINE = "machine/"


class StepLog(Callback):
    """Adds to the rows that hold the loss: `gradient_norm` before clipping, and under machine/ what the run takes.

    `machine/samples_per_second` counts windows or sequences, `machine/tokens_per_second` tokens at the backbone's
    entrance, both over all devices and without validation; `machine/peak_memory_gib` is the device's, or on a CPU the
    process's.
    """

    def __init__(self) -> None:
        self._samples = self._tokens = 0
        self._seconds = 0.0
        self._began: float | None = None
        self._handle: RemovableHandle | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts tokens where they enter the backbone."""
        backbone = getattr(pl_module.model, "backbone", None)
        if isinstance(backbone, nn.Module):
            self._handle = backbone.register_forward_pre_hook(self._count)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts no more."""
        if self._handle is not None:
            self._handle.remove()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Logs the norm over all parameters."""
        if is_logged(trainer, trainer.global_step + 1):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            pl_module.log("gradient_norm", norm, batch_size=1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock, and logs what has been done since the last row."""
        assert self._began is not None
        self._samples += len(batch[0])
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        logged = stepped and is_logged(trainer, trainer.global_step)
        if logged and pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds += time.perf_counter() - self._began
        if not logged:
            return
        rates = {"samples": self._samples, "tokens": self._tokens}
        for name, count in rates.items():
            pl_module.log(f"{MACHINE}{name}_per_second", count * trainer.world_size / self._seconds, batch_size=1)
        pl_module.log(f"{MACHINE}peak_memory_gib", _peak_memory(pl_module.device) / 2**30, batch_size=1)
        self._samples, self._tokens, self._seconds = 0, 0, 0.0

    def _count(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            batch, length = inputs[0].shape[:2]
            self._tokens += batch * length


class MemoryLog(Callback):
    """Adds to the rows that hold the loss what every `NeuralMemory` did in that step, averaged over tokens and heads.

    The names are memory/<layer>/<quantity>, of `titans_seq.nn.memory.LayerStats`: surprise, update, memory (norms), lr,
    momentum and forget (gates). Between these steps nothing is computed. Where both directions are read, a sequence
    shorter than the batch's longest counts with the repeats that fill its row.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._means: dict[str, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Asks the memories for their stats when the step will be logged."""
        last = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not (last and is_logged(trainer, trainer.global_step + 1)):
            return
        memories = [module for module in pl_module.modules() if isinstance(module, NeuralMemory)]
        for number, memory in enumerate(memories):
            self._handles.append(memory.register_forward_pre_hook(_ask, with_kwargs=True))
            self._handles.append(memory.register_forward_hook(self._taker(number)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs what they answered."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name, values in self._means.items():
            pl_module.log(f"memory/{name}", sum(values) / len(values), batch_size=1)
        self._means.clear()

    def _taker(self, number: int) -> Any:
        def take(module: nn.Module, inputs: Any, output: Any) -> tuple[Tensor, Any]:
            y, state, stats = output
            for name, mean in stats.means().items():
                self._means.setdefault(f"{number}/{name}", []).append(mean)
            return y, state

        return take


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether step number `step`, from 1, is one whose row is written."""
    return step % int(trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]


def _ask(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return inputs, {**keywords, "return_stats": True}


def _peak_memory(device: torch.device) -> float:
    """Bytes."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    # Linux counts KiB, macOS bytes.
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


class ValidateLastStep(Callback):
    """Validates where `max_steps` ends a training within an epoch; Lightning does so at the end of epochs alone."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops as early stopping does: after a validation."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
