"""Both directions of a sequence, for tasks that may look at all of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from titans_seq.backbone.stack import Stack
from titans_seq.backbone.states import BlockState
from titans_seq.ops.masking import check_flags, take_tokens


class Bidirectional(nn.Module):
    """The mean of a stack over the sequence and of one over its reverse.

    Nothing is carried on from here, so no stack need skip padding, which would cost it as much again as its work: live
    tokens close ranks, and the columns after them, which no live token sees, are filled with the sequence once more.
    (With zeros, a memory would be written the same token a thousand times, which is how the exact rule can overflow.)

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
        if mask is None:
            ahead, back = self._read(x, x.flip(1))
            return torch.lerp(ahead, back.flip(1), 0.5), []
        check_flags(mask, None, x.shape[:2])
        x = x.masked_fill(~mask.unsqueeze(-1), 0)
        order = torch.argsort(~mask, dim=1, stable=True)  # the live tokens first
        count, place = mask.sum(1, keepdim=True), torch.arange(x.shape[1], device=x.device)
        laps = (order.gather(1, at % count.clamp_min(1)) for at in (place, count - 1 - place))
        ahead, back = self._read(*(take_tokens(x, lap) for lap in laps))
        rank = (mask.cumsum(1) - 1).clamp_min(0)
        y = torch.lerp(take_tokens(ahead, rank), take_tokens(back, (count - 1 - rank).clamp_min(0)), 0.5)
        return y.masked_fill(~mask.unsqueeze(-1), 0), []

    def _read(self, x: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        ahead, _ = self.ahead(x)
        back, _ = (self.back or self.ahead)(mirrored)
        return ahead, back
