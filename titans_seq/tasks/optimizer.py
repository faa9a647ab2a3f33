"""AdamW with warm-up, as every task uses it."""

from math import cos, pi

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from titans_seq.schema import TaskOptions


def adamw(module: nn.Module, options: TaskOptions, total_steps: int) -> OptimizerLRSchedulerConfig:
    """AdamW and its schedule over `total_steps`: linear warm-up, then a cosine to zero or a constant rate.

    Matrices decay; vectors (biases, norms, scales), the convolutions and the initial memories do not: decay would pull
    those towards a layer that passes nothing on.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        exempt = parameter.ndim != 2 or name.endswith("conv.weight")
        (kept if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizer = AdamW([group for group in groups if group["params"]], lr=options.learning_rate)

    def factor(step: int) -> float:
        if step < options.warmup_steps:
            return (step + 1) / (options.warmup_steps + 1)
        if options.schedule == "constant":
            return 1.0
        progress = (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps)
        return 0.5 * (1 + cos(pi * min(1.0, progress)))

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
