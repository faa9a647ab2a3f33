"""Multi-scale retention of RetNet (Sun et al., 2023, arXiv 2307.08621): the layer."""

import torch
from torch import Tensor, nn

from titans_seq.nn.mixers.parts import GatedOutput, fill_masked, split_heads
from titans_seq.nn.mixers.states import MixerState
from titans_seq.nn.rotary import apply_rotary
from titans_seq.ops.recurrences import state_space_dual

_BASE = 10_000.0  # of the rotary angles


class MultiScaleRetention(nn.Module):
    """Retention layer: linear attention with rotary positions and a constant decay 1 - 2^(-5-h) for head h.

    Decay and rotation are one complex factor per token (eq 3 of the paper). So the state is kept as it looks from the
    last token: positions count from the start of a call, and none is carried over.

    Args:
        dim: features of a token.
        num_heads: heads; must divide key_width and value_width, and a head's keys must have an even width.
        key_width, value_width: features of all heads' keys and values together (the paper: dim and 2 dim).
        chunk_size: tokens that are computed together.

    Raises ValueError when the width of a head's keys is odd.
    """

    State = MixerState

    def __init__(self, dim: int, num_heads: int, *, key_width: int, value_width: int, chunk_size: int = 64) -> None:
        super().__init__()
        if key_width // num_heads % 2:
            raise ValueError(f"the width of a head's keys must be even; got {key_width // num_heads}")
        self.num_heads, self.chunk_size = num_heads, chunk_size
        self.widths = [key_width, key_width, value_width]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.output = GatedOutput(dim, value_width, num_heads)

    def forward(
        self, x: Tensor, state: MixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, MixerState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).split(self.widths, dim=-1))
        seen = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        position = seen.cumsum(1).unsqueeze(-1)  # (B, T, 1), from 1
        y, memory = state_space_dual(
            self._rotate(q, position),
            fill_masked(self._rotate(k, position), mask) * k.shape[-1] ** -0.5,
            v,
            seen.unsqueeze(-1) * self._log_decays(x),
            state and state.memory,
            chunk_size=self.chunk_size,
        )
        back = -seen.sum(1).view(-1, 1, 1)  # to the last token's point of view
        return self.output(y, x), MixerState(self._rotate(memory.mT, back).mT)

    def _log_decays(self, like: Tensor) -> Tensor:
        """Return the logarithm of every head's decay, (H,)."""
        head = torch.arange(self.num_heads, dtype=torch.float64, device=like.device)
        return torch.log1p(-(2 ** (-5 - head))).to(torch.promote_types(like.dtype, torch.float32))

    @staticmethod
    def _rotate(x: Tensor, position: Tensor) -> Tensor:
        """Rotate x (B, T, H, D) by the angles of position (B, T, 1), or x (B, H, V, D) by those of (B, 1, 1)."""
        pair = torch.arange(0, x.shape[-1], 2, dtype=torch.float64, device=x.device)
        angle = (position * _BASE ** (-pair / x.shape[-1])).unsqueeze(2)
        dtype = torch.promote_types(x.dtype, torch.float32)
        return apply_rotary(x, angle.cos().to(dtype), angle.sin().to(dtype))
