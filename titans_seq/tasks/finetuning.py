"""Which parameters of a classifier are trained, from when on, and how fast."""

from torch import nn

from titans_seq.schema import ClassificationTaskOptions


def depth_of(name: str, num_blocks: int) -> int:
    """How deep a parameter lies: 0 for the stem, 1 to `num_blocks` for the blocks, `num_blocks` + 1 for norm and head.

    `name` is the parameter's in a `SequenceClassifier`; both directions' stacks are of one depth.
    """
    if name.startswith("stem."):
        return 0
    if name.startswith("backbone."):
        return int(name.partition("blocks.")[2].partition(".")[0]) + 1
    return num_blocks + 1


def lowest_trained(options: ClassificationTaskOptions, num_blocks: int, epoch: int) -> int:
    """The depth from which on parameters are trained in an epoch, counted from 0."""
    head = num_blocks + 1
    if options.unfreeze == "head":
        return head
    lowest = options.frozen_blocks + 1 if options.frozen_blocks else 0
    if options.unfreeze == "gradual":
        return max(lowest, head - epoch // options.unfreeze_every)
    return lowest


def freeze(model: nn.Module, num_blocks: int, lowest: int) -> None:
    """Train what lies at depth `lowest` or above; the rest keeps its weights, and drops nothing out."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depth_of(name, num_blocks) >= lowest)
    for name, module in model.named_modules():
        if name == "stem" or name.partition("blocks.")[2].isdigit():
            module.train(depth_of(f"{name}.", num_blocks) >= lowest)


def learning_rate_scale(name: str, options: ClassificationTaskOptions, num_blocks: int) -> float:
    """What a parameter's learning rate is multiplied by: `layer_decay` for every step down from the head."""
    scale: float = options.layer_decay ** (num_blocks + 1 - depth_of(name, num_blocks))
    return scale
