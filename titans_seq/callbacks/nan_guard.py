"""Callback that stops training at a NaN or infinite loss or gradient, before the weights are updated."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from titans_seq.errors import InputError
from titans_seq.system.checkpoint_files import newest_good
from titans_seq.tasks import Task


class NaNGuard(Callback):
    """Raise InputError with step, batch and module at the first loss or gradient that is NaN or infinite.

    Checked between the backward pass and the optimiser step, so that weights, averages and checkpoints stay finite.
    With 16-mixed only losses are checked: the loss scaler itself skips steps with infinite gradients.

    Args:
        monitor: name of the validation score, which is checked too.
        folder: folder of the checkpoints; the message names the last good one.
    """

    def __init__(self, monitor: str, folder: Path) -> None:
        self.monitor = monitor
        self.folder = folder
        self._losses: list[tuple[int, Tensor]] = []  # batch index and loss of the batches since the last step
        self._batch: tuple[int, Any] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Store the batch."""
        self._batch = batch_idx, batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Store the loss."""
        assert self._batch
        self._losses.append((self._batch[0], loss.detach()))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check losses and gradients with one device synchronisation."""
        losses = torch.stack([loss.float().reshape(()) for _, loss in self._losses])
        checked = [losses]
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        if trainer.precision != "16-mixed":
            checked.append(torch.stack(torch._foreach_norm(list(gradients.values()))).float())
        if bool(torch.cat(checked).isfinite().all()):
            self._losses.clear()
            return
        for batch_idx, loss in self._losses:
            if not loss.isfinite():
                raise self._error(trainer, cast(Task, pl_module), batch_idx, f"the loss is {float(loss)}")
        norms = torch._foreach_norm(list(gradients.values()))
        worst = [name for name, norm in zip(gradients, norms, strict=True) if not norm.isfinite()]
        # The norm of finite gradients overflows from 1.8e19 on; clipping by it would set all gradients to zero.
        infinite = [name for name in worst if not gradients[name].isfinite().all()]
        what = f"the gradient of {infinite[0]}" if infinite else f"the norm of the gradient of {worst[0]}"
        raise self._error(trainer, cast(Task, pl_module), self._losses[-1][0], f"{what} is not finite")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the validation score."""
        score = trainer.callback_metrics.get(self.monitor)
        if score is not None and not score.isfinite() and not trainer.sanity_checking:
            raise InputError(
                f"step {trainer.global_step}, validation of epoch {trainer.current_epoch + 1}: {self.monitor} is "
                f"{float(score)}; lower task.learning_rate. {self._last_good()}"
            )

    def _last_good(self) -> str:
        path = newest_good(self.folder)
        return f"Last good checkpoint: {path}" if path else "There is no checkpoint yet"

    def _error(self, trainer: Trainer, task: Task, batch_idx: int, what: str) -> InputError:
        assert self._batch
        last, batch = self._batch
        module = first_bad_module(task, batch, batch_idx) if last == batch_idx else None
        where = f", first in {module}" if module else ""
        return InputError(
            f"step {trainer.global_step + 1}, batch {batch_idx + 1} of epoch {trainer.current_epoch + 1}: "
            f"{what}{where}; lower task.learning_rate or trainer.gradient_clip. {self._last_good()}"
        )


@torch.no_grad()
def first_bad_module(task: Task, batch: Any, batch_idx: int) -> str | None:
    """Return the name of the innermost module whose output on `batch` is the first that is not finite."""
    found: list[str] = []

    def make_hook(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(bool(x.isfinite().all()) for x in _tensors(output)):
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(make_hook(name)) for name, module in task.model.named_modules(prefix="model")
    ]
    with _logging_disabled(task):
        task.training_step(batch, batch_idx)
    for handle in handles:
        handle.remove()
    return found[0] if found else None


@contextmanager
def _logging_disabled(task: Task) -> Iterator[None]:
    """Disable the task's logging: a repeated step must not be logged twice."""
    for name in ("log", "log_dict"):
        setattr(task, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            delattr(task, name)


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in nested tuples, lists and dictionaries."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from (x for each in output.values() for x in _tensors(each))
    elif isinstance(output, (tuple, list)):
        yield from (x for each in output for x in _tensors(each))
