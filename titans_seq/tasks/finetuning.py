"""Fine-tuning of a classifier: layer freezing, gradual unfreezing and layer-wise learning rates."""

from torch import nn

from titans_seq.schema import ClassificationTaskOptions


def depth_of(name: str, num_blocks: int) -> int:
    """Return a parameter's layer: 0 for the stem, 1 to `num_blocks` for the blocks, `num_blocks` + 1 for norm and head.

    `name` is that of the parameter in a `SequenceClassifier`; the stacks of both directions have the same depth.
    """
    if name.startswith("stem."):
        return 0
    if name.startswith("backbone."):
        return int(name.partition("blocks.")[2].partition(".")[0]) + 1
    return num_blocks + 1


def lowest_trained(options: ClassificationTaskOptions, num_blocks: int, epoch: int) -> int:
    """Return the lowest layer that is trained in `epoch`, which is counted from 0."""
    head = num_blocks + 1
    if options.unfreeze == "head":
        return head
    lowest = options.frozen_blocks + 1 if options.frozen_blocks else 0
    if options.unfreeze == "gradual":
        return max(lowest, head - epoch // options.unfreeze_every)
    return lowest


def freeze(model: nn.Module, num_blocks: int, lowest: int) -> None:
    """Train the layers from `lowest` on; freeze the others: no gradients, and evaluation mode (no dropout)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depth_of(name, num_blocks) >= lowest)
    for name, module in model.named_modules():
        if name == "stem" or name.partition("blocks.")[2].isdigit():
            module.train(depth_of(f"{name}.", num_blocks) >= lowest)


def learning_rate_scale(name: str, options: ClassificationTaskOptions, num_blocks: int) -> float:
    """Return the learning-rate factor of a parameter: `layer_decay` to the power of the layers below the head."""
    scale: float = options.layer_decay ** (num_blocks + 1 - depth_of(name, num_blocks))
    return scale
