"""Gated linear attention (Yang et al., ICML 2024, arXiv 2312.06635): the layer."""

from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.mixers.parts import GatedOutput, fill_masked, full_precision, split_heads
from titans_seq.nn.mixers.states import MixerState
from titans_seq.ops.recurrences import gated_linear_attention

_GATE_RANK, _GATE_TEMPERATURE = 16, 16


class GatedLinearAttention(nn.Module):
    """Gated linear attention layer: plain projections and a decay for every feature of the key.

    The decays are sigmoid(x W_1 W_2 + b)^(1/16), with W_1 of rank 16; the output is normalised per head and gated.

    Args:
        dim: features of a token.
        num_heads: heads; must divide key_width and value_width.
        key_width, value_width: features of all heads' keys and values together (the paper: dim / 2 and dim).
        chunk_size: tokens that are computed together.
    """

    State = MixerState

    def __init__(self, dim: int, num_heads: int, *, key_width: int, value_width: int, chunk_size: int = 16) -> None:
        super().__init__()
        self.num_heads, self.chunk_size = num_heads, chunk_size
        self.widths = [key_width, key_width, value_width]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.decay = nn.Sequential(nn.Linear(dim, _GATE_RANK, bias=False), nn.Linear(_GATE_RANK, key_width))
        self.output = GatedOutput(dim, value_width, num_heads)

    def forward(
        self, x: Tensor, state: MixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, MixerState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).split(self.widths, dim=-1))
        decay = F.logsigmoid(full_precision(self.decay(x))) / _GATE_TEMPERATURE
        y, memory = gated_linear_attention(
            q * q.shape[-1] ** -0.5,
            fill_masked(k, mask),
            v,
            fill_masked(split_heads(decay, self.num_heads), mask),
            state and state.memory,
            chunk_size=self.chunk_size,
        )
        return self.output(y, x), MixerState(memory)
