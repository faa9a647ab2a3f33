"""Bidirectional backbone, for tasks in which every output may depend on the whole sequence."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from titans_seq.backbone.stack import Stack
from titans_seq.backbone.states import BlockState
from titans_seq.ops.masking import check_flags, take_tokens


class Bidirectional(nn.Module):
    """Mean of a forward stack over the sequence and a backward stack over the reversed sequence.

    No state is returned, so the stacks need not skip padding, which would double their cost. Instead the valid tokens
    are compacted to the front, and the columns after them, which no valid token sees, repeat the sequence. (With zeros
    there, a memory would be written with the same token many times, on which the exact rule can overflow.)

    Args:
        ahead: forward stack, which reads from the first token on.
        back: backward stack, which reads from the last token on; None uses `ahead` for both directions.
    """

    def __init__(self, ahead: Stack, back: Stack | None = None) -> None:
        super().__init__()
        self.ahead = ahead
        self.back = back

    def forward(
        self, x: Tensor, state: Sequence[BlockState] | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """Map x (B, T, dim) to (B, T, dim), zero where `mask` (B, T) is False, and an empty state.

        Raises ValueError when a state is passed: outputs depend on later tokens, so a sequence cannot be continued.
        """
        if state:
            raise ValueError("a bidirectional backbone takes no state: its outputs depend on later tokens")
        if mask is None:
            ahead, back = self._read(x, x.flip(1))
            return torch.lerp(ahead, back.flip(1), 0.5), []
        check_flags(mask, None, x.shape[:2])
        x = x.masked_fill(~mask.unsqueeze(-1), 0)
        order = torch.argsort(~mask, dim=1, stable=True)  # the valid tokens first
        count, column = mask.sum(1, keepdim=True), torch.arange(x.shape[1], device=x.device)
        indices = (order.gather(1, at % count.clamp_min(1)) for at in (column, count - 1 - column))
        ahead, back = self._read(*(take_tokens(x, index) for index in indices))
        rank = (mask.cumsum(1) - 1).clamp_min(0)
        y = torch.lerp(take_tokens(ahead, rank), take_tokens(back, (count - 1 - rank).clamp_min(0)), 0.5)
        return y.masked_fill(~mask.unsqueeze(-1), 0), []

    def _read(self, x: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
        ahead, _ = self.ahead(x)
        back, _ = (self.back or self.ahead)(reverse)
        return ahead, back
