"""Gated DeltaNet (Yang, Kautz & Hatamizadeh, ICLR 2025, arXiv 2412.06464): the layer around the gated delta rule."""

from torch import Tensor, nn

from titans_seq.nn.mixers.parts import GatedOutput, HeadDecay, ShortConv, fill_masked, split_heads
from titans_seq.nn.mixers.states import ConvMixerState
from titans_seq.nn.norm import unit_norm
from titans_seq.ops.recurrences import gated_delta_rule


class GatedDeltaNet(nn.Module):
    """Gated DeltaNet layer.

    Queries, keys and values are SiLU(convolution(projection)); queries and keys then have unit norm. The decay is
    Mamba's, beta a sigmoid of the token. The output is normalised per head and gated.

    Args:
        dim: features of a token.
        num_heads: heads; must divide key_width and value_width.
        key_width, value_width: features of all heads' keys and values together (the paper: .75 dim and 1.5 dim).
        conv_width: kernel size of the convolution, in tokens.
        beta_max: largest beta; above 1 a step may flip the sign of what is stored (Grazzi et al., arXiv 2411.12537).
        chunk_size: tokens that are computed together.
    """

    State = ConvMixerState

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        key_width: int,
        value_width: int,
        conv_width: int = 4,
        beta_max: float = 1.0,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        self.num_heads, self.beta_max, self.chunk_size = num_heads, beta_max, chunk_size
        self.widths = [key_width, key_width, value_width]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.short = ShortConv(sum(self.widths), conv_width)
        self.decay = HeadDecay(dim, num_heads)
        self.beta = nn.Linear(dim, num_heads, bias=False)
        self.output = GatedOutput(dim, value_width, num_heads)

    def forward(
        self, x: Tensor, state: ConvMixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, ConvMixerState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        qkv, conv = self.short(self.qkv(x), state and state.conv, mask)
        q, k, v = (split_heads(part, self.num_heads) for part in qkv.split(self.widths, dim=-1))
        y, memory = gated_delta_rule(
            unit_norm(q) * q.shape[-1] ** -0.5,
            unit_norm(k),
            v,
            fill_masked(self.decay(x), mask),
            fill_masked(self.beta_max * self.beta(x).sigmoid(), mask),
            state and state.memory,
            chunk_size=self.chunk_size,
        )
        return self.output(y, x), ConvMixerState(memory, conv)
