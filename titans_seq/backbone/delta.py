"""The gated delta rule (Yang et al., ICLR 2025), LMM's nearest relative: a matrix memory, online, without momentum."""

from dataclasses import replace

from titans_seq.backbone.lmm import LMMBlock
from titans_seq.schema import BackboneOptions


def delta_block(options: BackboneOptions) -> LMMBlock:
    """LMM's block with the memory's rule reduced to the gated delta rule; its other options stay.

    lr is half the rule's beta, for the loss has no 1/2, and 1 - forget is its alpha. As in eq 13, what a key recalls is
    taken from the memory before it forgets, not after.
    """
    memory = replace(options.memory, depth=1, residual=False, gradient="online", momentum=False)
    return LMMBlock(replace(options, memory=memory))
