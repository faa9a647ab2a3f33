"""Mamba-2 (Dao & Gu, ICML 2024, arXiv 2405.21060): the layer around the state space dual."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.mixers.parts import ShortConv, fill_masked, full_precision, initial_step_bias, split_heads
from titans_seq.nn.mixers.states import ConvMixerState
from titans_seq.nn.norm import RMSNorm
from titans_seq.ops.recurrences import state_space_dual


class Mamba2(nn.Module):
    """Mamba-2 layer, with one group: all heads share B and C.

    x, B and C are SiLU(convolution(projection)). A token with the step size d = softplus(...) decays the state by
    exp(d A) and adds d B x^T; the output C S + D x is gated by SiLU(z) and then normalised over all heads.

    Args:
        dim: features of a token.
        num_heads: heads; must divide value_width.
        value_width: features of all heads' x together (the paper: 2 dim).
        state_size: features of B and C.
        conv_width: kernel size of the convolution, in tokens.
        chunk_size: tokens that are computed together.
    """

    State = ConvMixerState

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        value_width: int,
        state_size: int = 64,
        conv_width: int = 4,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        self.num_heads, self.chunk_size = num_heads, chunk_size
        self.widths = [value_width, state_size, state_size]
        self.projection = nn.Linear(dim, value_width + sum(self.widths) + num_heads, bias=False)  # z, x, B, C, step
        self.short = ShortConv(sum(self.widths), conv_width, bias=True)
        self.step_bias = nn.Parameter(initial_step_bias(num_heads))
        self.log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())  # log(-A)
        self.skip = nn.Parameter(torch.ones(num_heads, 1))  # D
        self.norm = RMSNorm(value_width, eps=1e-5)
        self.out = nn.Linear(value_width, dim, bias=False)

    def forward(
        self, x: Tensor, state: ConvMixerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, ConvMixerState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        z, inputs, step = self.projection(x).split([self.widths[0], sum(self.widths), self.num_heads], dim=-1)
        inputs, conv = self.short(inputs, state and state.conv, mask)
        values, k, q = inputs.split(self.widths, dim=-1)
        values = split_heads(values, self.num_heads)
        step = fill_masked(F.softplus(full_precision(step) + self.step_bias), mask)
        q, k = (part.unsqueeze(2).expand(-1, -1, self.num_heads, -1) for part in (q, k))
        y, memory = state_space_dual(
            q,
            k,
            step.unsqueeze(-1) * values,
            -full_precision(self.log_rate).exp() * step,
            state and state.memory,
            chunk_size=self.chunk_size,
        )
        y = (y + self.skip * values).flatten(2)
        return self.out(self.norm(y.to(z.dtype) * F.silu(z))), ConvMixerState(memory, conv)
