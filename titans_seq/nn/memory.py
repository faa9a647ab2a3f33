"""The neural memory as a layer: projections, gates, the op, and the way out."""

from itertools import pairwise
from math import log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.conv import CausalConv
from titans_seq.nn.norm import unit_norm
from titans_seq.ops import MemoryState, titans_memory
from titans_seq.ops.memory.mlp import Activation
from titans_seq.ops.memory.op import Backend
from titans_seq.ops.memory.options import ForgetTo, Gradient, OuterGradient

# Gates of a fresh layer before it has seen data: training starts with a long memory (half of a write is left after
# some 140 tokens) and with steps small enough that a chunk of alike keys does not overshoot.
_FRESH_LR, _FRESH_MOMENTUM, _FRESH_FORGET = 0.05, 0.5, 0.005


class NeuralMemoryState(NamedTuple):
    """What a `NeuralMemory` carries on: constant in size, whatever the length of the sequence so far."""

    memory: MemoryState
    conv: Tensor  # (B, conv_width - 1, 3 dim): the convolution's last inputs

    def detach(self) -> "NeuralMemoryState":
        """The same state, cut from the graph that made it: for truncated backpropagation through time."""
        return NeuralMemoryState(self.memory.detach(), self.conv.detach())


class NeuralMemory(nn.Module):
    """Long-term memory that is written at test time (Titans, arXiv 2501.00663, section 3.1, eqs 11 to 16).

    Queries, keys and values are linear projections through SiLU and a short causal convolution; queries and keys have
    unit norm. Learning rate, momentum and forgetting depend on the token, one of each per head. The initial memory is
    learned. The output is normalised per head and gated before its projection.

    Args:
        dim: features of a token; num_heads must divide it.
        num_heads: independent memories, each on dim / num_heads features.
        depth, expansion, activation: the memory's MLP; depth 1 is a matrix, expansion its hidden width in head dims.
        chunk_size, gradient, forget_to, residual, outer_gradient, checkpoint_every, backend: see
            `titans_seq.ops.titans_memory`.
        conv_width: tokens that the convolution sees; 1 is none.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        *,
        depth: int = 1,
        expansion: int = 4,
        chunk_size: int = 16,
        gradient: Gradient = "chunk",
        activation: Activation = "silu",
        forget_to: ForgetTo = "zero",
        residual: bool = False,
        conv_width: int = 4,
        outer_gradient: OuterGradient = "exact",
        checkpoint_every: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim; got {num_heads} and {dim}")
        if depth < 1 or expansion < 1:
            raise ValueError(f"depth and expansion must be at least 1; got {depth} and {expansion}")
        if gradient == "online" and (depth > 1 or residual):
            raise ValueError(f'gradient="online" is for a plain matrix memory; got {depth=}, {residual=}')
        self.num_heads = num_heads
        self.chunk_size = chunk_size
        self.gradient: Gradient = gradient
        self.activation: Activation = activation
        self.forget_to: ForgetTo = forget_to
        self.residual = residual
        self.outer_gradient: OuterGradient = outer_gradient
        self.checkpoint_every = checkpoint_every
        self.backend: Backend = backend

        head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = CausalConv(3 * dim, conv_width)
        self.gates = nn.Linear(dim, 3 * num_heads)
        widths = [head_dim, *[head_dim * expansion] * (depth - 1), head_dim]
        self.initial = nn.ParameterList(
            nn.Parameter(torch.randn(num_heads, d_in, d_out) / sqrt(d_in)) for d_in, d_out in pairwise(widths)
        )
        self.norm = nn.RMSNorm(head_dim, eps=1e-6)
        self.out_gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self._initialise_gates()

    def _initialise_gates(self) -> None:
        nn.init.normal_(self.gates.weight, std=0.02)
        fresh = torch.tensor([log(p / (1 - p)) for p in (_FRESH_LR, _FRESH_MOMENTUM, _FRESH_FORGET)])
        with torch.no_grad():
            self.gates.bias.copy_(fresh.repeat_interleave(self.num_heads))

    def forward(self, x: Tensor, state: NeuralMemoryState | None = None) -> tuple[Tensor, NeuralMemoryState]:
        """x (B, T, dim) to (B, T, dim) and the state that continues the sequence."""
        qkv, conv_state = self.conv(F.silu(self.qkv(x)), None if state is None else state.conv)
        q, k, v = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).unbind(2)
        lr, momentum, forget = torch.unflatten(torch.sigmoid(self.gates(x)), -1, (3, self.num_heads)).unbind(2)
        y, memory_state = titans_memory(
            unit_norm(q),
            unit_norm(k),
            v,
            lr,
            momentum,
            forget,
            list(self.initial),
            None if state is None else state.memory,
            chunk_size=self.chunk_size,
            gradient=self.gradient,
            activation=self.activation,
            forget_to=self.forget_to,
            residual=self.residual,
            outer_gradient=self.outer_gradient,
            checkpoint_every=self.checkpoint_every,
            backend=self.backend,
        )
        y = self.norm(y).flatten(2) * F.silu(self.out_gate(x))
        return self.out(y), NeuralMemoryState(memory_state, conv_state)
