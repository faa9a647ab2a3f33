"""A loss that is not a number stops the training before it reaches the weights."""

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
    """Raises InputError with step, batch and module at the first loss or gradient that is NaN or infinite.

    Looked at between the backward pass and the optimiser's step: weights, averages and checkpoints stay good. With
    16-mixed the gradients are the loss scaler's affair, which skips such steps itself.

    Args:
        monitor: the validation score, looked at too.
        folder: of the checkpoints, whose last good one is named.
    """

    def __init__(self, monitor: str, folder: Path) -> None:
        self.monitor = monitor
        self.folder = folder
        self._losses: list[tuple[int, Tensor]] = []  # of the batches since the last step
        self._batch: tuple[int, Any] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remembers the batch."""
        self._batch = batch_idx, batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remembers the loss."""
        assert self._batch
        self._losses.append((self._batch[0], loss.detach()))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Looks at losses and gradient, in one question to the device."""
        losses = torch.stack([loss.float().reshape(()) for _, loss in self._losses])
        looked_at = [losses]
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        if trainer.precision != "16-mixed":
            looked_at.append(torch.stack(torch._foreach_norm(list(gradients.values()))).float())
        if bool(torch.cat(looked_at).isfinite().all()):
            self._losses.clear()
            return
        for batch_idx, loss in self._losses:
            if not loss.isfinite():
                raise self._fault(trainer, cast(Task, pl_module), batch_idx, f"the loss is {float(loss)}")
        norms = torch._foreach_norm(list(gradients.values()))
        worst = [name for name, norm in zip(gradients, norms, strict=True) if not norm.isfinite()]
        # Of finite numbers the norm is infinite from 1.8e19 on; to clip by it would be to train on nothing.
        infinite = [name for name in worst if not gradients[name].isfinite().all()]
        what = f"the gradient of {infinite[0]}" if infinite else f"the norm of the gradient of {worst[0]}"
        raise self._fault(trainer, cast(Task, pl_module), self._losses[-1][0], f"{what} is not finite")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the score."""
        score = trainer.callback_metrics.get(self.monitor)
        if score is not None and not score.isfinite() and not trainer.sanity_checking:
            raise InputError(
                f"step {trainer.global_step}, validation of epoch {trainer.current_epoch + 1}: {self.monitor} is "
                f"{float(score)}; lower task.learning_rate. {self._last_good()}"
            )

    def _last_good(self) -> str:
        path = newest_good(self.folder)
        return f"Last good checkpoint: {path}" if path else "There is no checkpoint yet"

    def _fault(self, trainer: Trainer, task: Task, batch_idx: int, what: str) -> InputError:
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
    """The innermost module of a task whose output on `batch` is first not finite."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(bool(x.isfinite().all()) for x in _tensors(output)):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in task.model.named_modules(prefix="model")]
    with _nothing_logged(task):
        task.training_step(batch, batch_idx)
    for handle in handles:
        handle.remove()
    return found[0] if found else None


@contextmanager
def _nothing_logged(task: Task) -> Iterator[None]:
    """Let nothing be logged: a step that is repeated is no new number."""
    for name in ("log", "log_dict"):
        setattr(task, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            delattr(task, name)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of floating point in nested tuples, lists and dictionaries."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from (x for each in output.values() for x in _tensors(each))
    elif isinstance(output, (tuple, list)):
        yield from (x for each in output for x in _tensors(each))
