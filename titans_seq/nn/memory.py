"""The neural memory as a layer: projections, gates, the op, and the way out."""

from collections.abc import Mapping
from itertools import pairwise
from math import log, sqrt
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.conv import CausalConv
from titans_seq.nn.norm import unit_norm
from titans_seq.ops import MemoryState, MemoryStats, titans_memory
from titans_seq.ops.memory.checks import check_choice, check_flags
from titans_seq.ops.memory.mlp import Activation
from titans_seq.ops.memory.op import Backend
from titans_seq.ops.memory.options import ForgetTo, Gradient, OuterGradient

Initial = Literal["learned", "zero"]

# Gates of a fresh layer before it has seen data: training starts with a long memory (half of a write is left after
# some 140 tokens) and with steps small enough that a chunk of alike keys does not overshoot.
_FRESH_LR, _FRESH_MOMENTUM, _FRESH_FORGET = 0.05, 0.5, 0.005


class NeuralMemoryState(NamedTuple):
    """What a `NeuralMemory` carries on: constant in size, whatever the length of the sequence so far."""

    memory: MemoryState
    conv: Tensor  # (B, conv_width - 1, 3 dim): the convolution's last inputs

    def named_tensors(self) -> dict[str, Tensor]:
        """Contiguous copies under flat names, as `safetensors.torch.save_file` takes them."""
        named = {f"memory.{name}": x for name, x in self.memory.named_tensors().items()}
        return {"conv": self.conv.detach().clone(memory_format=torch.contiguous_format), **named}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "NeuralMemoryState":
        """The state that `named_tensors` wrote down; raises ValueError when a name is missing or unknown."""
        memory = {name.removeprefix("memory."): x for name, x in named.items() if name.startswith("memory.")}
        if set(named) != {"conv", *(f"memory.{name}" for name in memory)}:
            raise ValueError(f"these are not a NeuralMemoryState's tensors: {', '.join(sorted(named)) or 'none'}")
        return cls(MemoryState.from_named_tensors(memory), named["conv"])

    def detach(self) -> "NeuralMemoryState":
        """The same state, cut from the graph that made it: for truncated backpropagation through time."""
        return NeuralMemoryState(self.memory.detach(), self.conv.detach())


class LayerStats(NamedTuple):
    """What a `NeuralMemory` did at every token, outside the graph: all (B, T, H), zero where tokens are masked."""

    surprise: Tensor  # these three as in `MemoryStats`
    update: Tensor
    memory: Tensor
    lr: Tensor  # the gates
    momentum: Tensor
    forget: Tensor
    mask: Tensor | None  # (B, T) bool, the tokens that are live; None: all

    def means(self) -> dict[str, float]:
        """Each averaged over live tokens and heads, for a log; NaN where no token is live."""
        named = self._asdict()
        live = named.pop("mask")
        return {name: float((x if live is None else x[live]).mean()) for name, x in named.items()}


class NeuralMemory(nn.Module):
    """Long-term memory that is written at test time (Titans, arXiv 2501.00663, section 3.1, eqs 11 to 16).

    Queries, keys and values are linear projections through SiLU and a short causal convolution; queries and keys have
    unit norm. Learning rate, momentum and forgetting depend on the token, one of each per head. The output is
    normalised per head and gated before its projection.

    Args:
        dim: features of a token; num_heads must divide it.
        num_heads: independent memories, each on dim / num_heads features.
        depth, expansion, activation: the memory's MLP; depth 1 is a matrix, expansion its hidden width in head dims.
        chunk_size, gradient, forget_to, residual, outer_gradient, checkpoint_every, backend: see
            `titans_seq.ops.titans_memory`.
        conv_width: tokens that the convolution sees; 1 is none.
        initial: the memory at a sequence's start, learned, or zero and not trained (for a plain matrix memory only).

    Raises ValueError for sizes and options that do not go together.
    """

    zero: Tensor | None

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
        initial: Initial = "learned",
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
        check_choice("initial", initial, get_args(Initial))
        if initial == "zero" and (depth > 1 or residual):
            # At zero every layer of a deeper memory has the others' zeros for factors in its gradient, and LayerNorm's
            # slope is some 300: the first write is huge, and no later one matters.
            raise ValueError(
                'initial="zero" is for a plain matrix memory: a deeper one gets no gradient at zero, a residual one '
                f"far too large a one; got {depth=}, {residual=}"
            )
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
        shapes = [(num_heads, d_in, d_out) for d_in, d_out in pairwise(widths)]
        learned = shapes if initial == "learned" else []
        self.initial = nn.ParameterList(nn.Parameter(torch.randn(shape) / sqrt(shape[1])) for shape in learned)
        self.register_buffer("zero", None if learned else torch.zeros(shapes[0]), persistent=False)
        self.norm = nn.RMSNorm(head_dim, eps=1e-6)
        self.out_gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self._initialise_gates()

    def _initialise_gates(self) -> None:
        nn.init.normal_(self.gates.weight, std=0.02)
        fresh = torch.tensor([log(p / (1 - p)) for p in (_FRESH_LR, _FRESH_MOMENTUM, _FRESH_FORGET)])
        with torch.no_grad():
            self.gates.bias.copy_(fresh.repeat_interleave(self.num_heads))

    def forward(
        self,
        x: Tensor,
        state: NeuralMemoryState | None = None,
        *,
        mask: Tensor | None = None,
        reset: Tensor | None = None,
        return_stats: bool = False,
    ) -> tuple[Tensor, NeuralMemoryState] | tuple[Tensor, NeuralMemoryState, LayerStats]:
        """x (B, T, dim) to (B, T, dim), the state that continues the sequence and, on request, `LayerStats`.

        Args:
            x: tokens.
            state: what an earlier call returned; the sequence goes on exactly, wherever it was cut.
            mask: (B, T) bool; tokens where it is False are skipped, be it padding or a gap: outputs, gradients and
                state are those of the sequence without them, and their own outputs are zero.
            reset: (B, T) bool; where it is True a new sequence begins, with the initial memory and nothing before it. A
                masked token begins nothing.
            return_stats: return a third value, for those who want to look inside.

        Raises ValueError when the flags or the state do not fit.
        """
        check_flags(mask, reset, x.shape[:2])
        if mask is not None:  # what padding holds, be it NaN, must not reach the gradients' sums
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        qkv, conv_state = self.conv(F.silu(self.qkv(x)), None if state is None else state.conv, mask, reset)
        q, k, v = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).unbind(2)
        gates = torch.unflatten(torch.sigmoid(self.gates(x)), -1, (3, self.num_heads)).unbind(2)
        y, memory_state, *stats = titans_memory(  # type: ignore[call-overload, misc]
            unit_norm(q),
            unit_norm(k),
            v,
            *gates,
            list(self.initial) if self.zero is None else [self.zero],
            None if state is None else state.memory,
            chunk_size=self.chunk_size,
            gradient=self.gradient,
            activation=self.activation,
            forget_to=self.forget_to,
            residual=self.residual,
            outer_gradient=self.outer_gradient,
            checkpoint_every=self.checkpoint_every,
            mask=mask,
            reset=reset,
            backend=self.backend,
            return_stats=return_stats,
        )
        y = self.out(self.norm(y).flatten(2) * F.silu(self.out_gate(x)))
        after = NeuralMemoryState(memory_state, conv_state)
        return (y, after, _layer_stats(stats[0], gates, mask)) if stats else (y, after)


def _layer_stats(stats: MemoryStats, gates: tuple[Tensor, ...], mask: Tensor | None) -> LayerStats:
    lr, momentum, forget = (g.detach() if mask is None else g.detach() * mask.unsqueeze(-1) for g in gates)
    return LayerStats(stats.surprise, stats.update, stats.memory, lr, momentum, forget, mask)
