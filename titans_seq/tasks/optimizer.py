"""Optimiser and learning-rate schedule, used by all tasks."""

from collections.abc import Callable, Mapping
from math import cos, pi
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from titans_seq.errors import InputError
from titans_seq.schema import TaskOptions
from titans_seq.tasks.muon import MuonWithAdamW


def configure(
    module: nn.Module, options: TaskOptions, trainer: Trainer, scale: Callable[[str], float] = lambda _: 1.0
) -> OptimizerLRSchedulerConfig:
    """Return the configured optimiser of all parameters and its schedule over the trainer's steps.

    `scale` maps a parameter name to a factor of its learning rate. Raises InputError where the training has no last
    step, which a falling schedule ends at.
    """
    optimizer = build_optimizer(module, options, scale)
    if options.schedule != "constant" and trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise _no_last_step(options)

    def factor(step: int) -> float:
        # The number of steps is asked for once training runs, never here: Lightning builds the loader to count its
        # batches, and the state of a loader that is built before a checkpoint is read would not be restored.
        if step <= options.warmup_steps or options.schedule == "constant":
            return rate(options, step, step)
        total = trainer.estimated_stepping_batches
        if not 0 <= total < float("inf"):
            raise _no_last_step(options)
        return rate(options, step, int(total))

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def _no_last_step(options: TaskOptions) -> InputError:
    return InputError(
        f"task.schedule={options.schedule}: ends at the last step, which this trainer does not know; set max_epochs or "
        "max_steps, or task.schedule=constant"
    )


def build_optimizer(module: nn.Module, options: TaskOptions, scale: Callable[[str], float]) -> Optimizer:
    """Return the configured optimiser over all parameters.

    Weight decay applies to matrices only, not to vectors (biases, norms, scales), convolutions and initial memories:
    decaying those would move the layer towards a zero output.
    """
    parameters = dict(module.named_parameters())
    betas = options.betas[0], options.betas[1]
    if options.optimizer == "muon":
        hidden = {name: p for name, p in parameters.items() if _is_matrix(name, p) and "backbone" in name.split(".")}
        if not hidden:
            raise InputError("task.optimizer=muon: this model has no matrices in a backbone; use adamw or sgd")
        others = {name: p for name, p in parameters.items() if name not in hidden}
        groups = _groups(hidden, options, scale), _groups(others, options, scale)
        return MuonWithAdamW(*groups, momentum=options.momentum, betas=betas)
    every = _groups(parameters, options, scale)
    return SGD(every, momentum=options.momentum) if options.optimizer == "sgd" else AdamW(every, betas=betas)


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not name.endswith("conv.weight")


def _groups(
    parameters: Mapping[str, nn.Parameter], options: TaskOptions, scale: Callable[[str], float]
) -> list[dict[str, Any]]:
    """Return named parameters grouped by weight decay and learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = options.weight_decay if _is_matrix(name, parameter) else 0.0
        groups.setdefault((decay, options.learning_rate * scale(name)), []).append(parameter)
    return [{"params": each, "weight_decay": decay, "lr": lr} for (decay, lr), each in groups.items()]


def rate(options: TaskOptions, step: int, total_steps: int) -> float:
    """Return the learning rate of a step, counted from 0, as a fraction of the peak: `task.schedule` after warm-up."""
    if step < options.warmup_steps:
        return (step + 1) / (options.warmup_steps + 1)
    if options.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps))
    match options.schedule:
        case "linear":
            return 1 - progress
        case "wsd":
            return min(1.0, (1 - progress) / options.decay_fraction)
        case _:
            return 0.5 * (1 + cos(pi * progress))
