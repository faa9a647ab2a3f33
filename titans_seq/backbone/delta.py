"""Gated delta rule (Yang et al., ICLR 2025): LMM with a matrix memory, online gradients and no momentum."""

from dataclasses import replace

from titans_seq.backbone.lmm import LMMBlock
from titans_seq.schema import BackboneOptions


def delta_block(options: BackboneOptions) -> LMMBlock:
    """Build an LMM block whose memory update is the gated delta rule; all other options are kept.

    lr is half of the rule's beta, because the loss has no factor 1/2, and 1 - forget is its alpha. As in eq 13, the
    prediction for a key is read from the memory before forgetting, not after.
    """
    memory = replace(options.memory, depth=1, residual=False, gradient="online", momentum=False)
    return LMMBlock(replace(options, memory=memory))
