"""LMM with a matrix memory, online gradients and no momentum: Titans' form of the delta rule."""

from dataclasses import replace

from titans_seq.backbone.lmm import LMMBlock
from titans_seq.schema import BackboneOptions


def delta_block(options: BackboneOptions) -> LMMBlock:
    """Build an LMM block whose memory has online gradients and no momentum; all other options are kept.

    Without forgetting this is the delta rule, with lr half of its beta, because the loss has no factor 1/2. With
    forgetting it differs from the gated delta rule (`model.variant=gated_delta_net`): as in Titans' eq 13, the
    prediction for a key is read from the memory before the decay, not after it.
    """
    memory = replace(options.memory, depth=1, residual=False, gradient="online", momentum=False)
    return LMMBlock(replace(options, memory=memory))
