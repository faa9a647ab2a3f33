"""Both directions of a sequence, for tasks that may look at all of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from titans_seq.backbone.stack import Stack
from titans_seq.backbone.states import BlockState


class Bidirectional(nn.Module):
    """The mean of a stack over the sequence and of one over its reverse.

    Args:
        ahead: the stack that reads from the first token on.
        back: the stack that reads from the last token on; None reads with `ahead`'s weights.
    """

    def __init__(self, ahead: Stack, back: Stack | None = None) -> None:
        super().__init__()
        self.ahead = ahead
        self.back = back

    def forward(
        self, x: Tensor, state: Sequence[BlockState] | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """x (B, T, dim) to (B, T, dim), zero where `mask` (B, T) is False, and no state.

        Raises ValueError when a state is passed on: what comes later has been seen already.
        """
        if state:
            raise ValueError("a bidirectional backbone takes no state: its outputs depend on tokens to come")
        ahead, _ = self.ahead(x, mask=mask)
        mirrored = None if mask is None else mask.flip(1)
        back, _ = (self.back or self.ahead)(x.flip(1), mask=mirrored)
        return torch.lerp(ahead, back.flip(1), 0.5), []
