"""Logging callbacks: gradient norm, throughput, peak memory, and statistics of the memory layers."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from titans_seq.nn import NeuralMemory
from titans_seq.system.platform_features import peak_memory

# Prefix of quantities that depend on the machine; all others are identical when a run is repeated.
MACHINE = "machine/"


class StepLog(Callback):
    """Log `gradient_norm` (before clipping), throughput and peak memory, in the rows that contain the loss.

    `machine/samples_per_second` counts windows or sequences, `machine/tokens_per_second` the backbone's input tokens,
    both over all devices and without validation; `machine/peak_memory_gib` is that of the device, or on a CPU that of
    the process (absent on Windows).
    """

    def __init__(self) -> None:
        self._samples = self._tokens = 0
        self._seconds = 0.0
        self._began: float | None = None
        self._handle: RemovableHandle | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the hook that counts the backbone's input tokens."""
        backbone = getattr(pl_module.model, "backbone", None)
        if isinstance(backbone, nn.Module):
            self._handle = backbone.register_forward_pre_hook(self._count)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the timer."""
        self._began = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the gradient norm over all parameters."""
        if is_logged(trainer, trainer.global_step + 1):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            pl_module.log("gradient_norm", norm, batch_size=1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the timer, and log throughput since the last logged row."""
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
        if (peak := _peak_memory(pl_module.device)) is not None:
            pl_module.log(f"{MACHINE}peak_memory_gib", peak / 2**30, batch_size=1)
        self._samples, self._tokens, self._seconds = 0, 0, 0.0

    def _count(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            batch, length = inputs[0].shape[:2]
            self._tokens += batch * length


class MemoryLog(Callback):
    """Log the statistics of every `NeuralMemory`, averaged over tokens and heads, in the rows that contain the loss.

    The names are memory/<layer>/<quantity>, of `titans_seq.nn.memory.LayerStats`: surprise, update, memory (norms), lr,
    momentum and forget (gates). In steps that are not logged no statistics are computed. In a bidirectional backbone, a
    sequence shorter than the batch's longest counts with the repeats that fill its row.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._means: dict[str, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Request statistics from the memories if the step will be logged."""
        last = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not (last and is_logged(trainer, trainer.global_step + 1)):
            return
        memories = [module for module in pl_module.modules() if isinstance(module, NeuralMemory)]
        for number, memory in enumerate(memories):
            self._handles.append(memory.register_forward_pre_hook(_request_stats, with_kwargs=True))
            self._handles.append(memory.register_forward_hook(self._collector(number)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the collected statistics."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name, values in self._means.items():
            pl_module.log(f"memory/{name}", sum(values) / len(values), batch_size=1)
        self._means.clear()

    def _collector(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> tuple[Tensor, Any]:
            y, state, stats = output
            for name, mean in stats.means().items():
                self._means.setdefault(f"{number}/{name}", []).append(mean)
            return y, state

        return hook


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether a row is logged at step number `step`, counted from 1."""
    return step % int(trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]


def _request_stats(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return inputs, {**keywords, "return_stats": True}


def _peak_memory(device: torch.device) -> float | None:
    """Return the peak memory in bytes, None if the system does not report it."""
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else peak_memory()


class ValidateLastStep(Callback):
    """Run validation when `max_steps` ends training within an epoch; Lightning validates only at the end of epochs."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Request a stop the way early stopping does, so that Lightning validates first."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
