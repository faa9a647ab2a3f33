"""AdamW with learning-rate warm-up, used by all tasks."""

from collections.abc import Callable
from math import cos, pi

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from titans_seq.schema import TaskOptions


def adamw(
    module: nn.Module, options: TaskOptions, total_steps: int, scale: Callable[[str], float] = lambda _: 1.0
) -> OptimizerLRSchedulerConfig:
    """Return AdamW and its schedule over `total_steps`: linear warm-up, then a cosine to zero or a constant rate.

    Weight decay applies to matrices only, not to vectors (biases, norms, scales), convolutions and initial memories:
    decaying those would move the layer towards a zero output. `scale` maps a parameter name to a factor of its
    learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}  # by weight decay and learning rate
    for name, parameter in module.named_parameters():
        exempt = parameter.ndim != 2 or name.endswith("conv.weight")
        key = (0.0 if exempt else options.weight_decay, options.learning_rate * scale(name))
        groups.setdefault(key, []).append(parameter)
    optimizer = AdamW([{"params": each, "weight_decay": decay, "lr": lr} for (decay, lr), each in groups.items()])

    def factor(step: int) -> float:
        if step < options.warmup_steps:
            return (step + 1) / (options.warmup_steps + 1)
        if options.schedule == "constant":
            return 1.0
        progress = (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps)
        return 0.5 * (1 + cos(pi * min(1.0, progress)))

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
