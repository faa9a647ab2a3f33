"""Gated DeltaProduct (Siems et al., NeurIPS 2025, arXiv 2502.10297): several delta-rule steps per token."""

import torch
from torch import Tensor, nn

from titans_seq.nn.mixers.parts import GatedOutput, HeadDecay, ShortConv, fill_masked, split_heads
from titans_seq.nn.mixers.states import ConvMixerState
from titans_seq.nn.norm import unit_norm
from titans_seq.ops.recurrences import delta_product


class DeltaProduct(nn.Module):
    """Gated DeltaProduct layer: `GatedDeltaNet` with a key, a value and a beta for every step.

    Args:
        dim: features of a token.
        num_heads: heads; must divide key_width and value_width.
        key_width, value_width: features of all heads' keys and values of one step together.
        steps: delta-rule steps per token.
        conv_width: kernel size of the convolution, in tokens.
        beta_max: largest beta; the paper's is 2, so that a step can be a reflection.
        chunk_size: steps that are computed together.
    """

    State = ConvMixerState

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        key_width: int,
        value_width: int,
        steps: int = 2,
        conv_width: int = 4,
        beta_max: float = 2.0,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        self.num_heads, self.steps, self.beta_max, self.chunk_size = num_heads, steps, beta_max, chunk_size
        self.widths = [key_width, steps * key_width, steps * value_width]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.short = ShortConv(sum(self.widths), conv_width)
        self.decay = HeadDecay(dim, num_heads)
        self.beta = nn.Linear(dim, steps * num_heads, bias=False)
        self.output = GatedOutput(dim, value_width, num_heads)

    def forward(
        self, x: Tensor, state: ConvMixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, ConvMixerState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        qkv, conv = self.short(self.qkv(x), state and state.conv, mask)
        q, k, v = qkv.split(self.widths, dim=-1)
        q = split_heads(q, self.num_heads)
        k, v = (torch.unflatten(part, -1, (self.steps, self.num_heads, -1)) for part in (k, v))
        beta = torch.unflatten(self.beta_max * self.beta(x).sigmoid(), -1, (self.steps, self.num_heads))
        y, memory = delta_product(
            unit_norm(q) * q.shape[-1] ** -0.5,
            unit_norm(k),
            v,
            fill_masked(self.decay(x), mask),
            fill_masked(beta, mask),
            state and state.memory,
            chunk_size=self.chunk_size,
        )
        return self.output(y, x), ConvMixerState(memory, conv)
