"""The neural memory as a layer: projections, gates, the op, and the way out."""

from collections.abc import Mapping
from itertools import pairwise
from math import log, sqrt
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.conv import CausalConv
from titans_seq.nn.norm import RMSNorm, unit_norm
from titans_seq.ops import MemoryState, MemoryStats
from titans_seq.ops.masking import check_flags
from titans_seq.ops.memory.arguments import (
    ForgetTo,
    Gradient,
    Options,
    OuterGradient,
    Tokens,
    check_choice,
    check_options,
)
from titans_seq.ops.memory.backends import Backend
from titans_seq.ops.memory.network import Activation, read_memory
from titans_seq.ops.memory.op import run_memory

Initial = Literal["learned", "zero"]

# Gates of a fresh layer before it has seen data, chosen by benchmarks/recall.py (figures and tables: its entry in
# benchmarks/LOG.md). Half of a write is left after 350 tokens; less forgetting recalled no more, more recalled less.
_FRESH_MOMENTUM, _FRESH_FORGET = 0.5, 0.002
# All gradients of a chunk are taken at its start, so alike tokens (a flat signal, a run of N) act as one whose lr is
# chunk_size times as large. A matrix grows without bound on them once lr * chunk_size exceeds 1 - momentum; a deeper
# memory does from a third to a quarter of that on, all the faster. A fresh layer takes half of it, halved by each
# further layer and by the residual's norm. Recall would be learned faster from 0.05 at chunks of 16, but there a
# constant sequence ends in NaN.
_FRESH_LR, _FRESH_CHUNK_LR = 0.05, 0.25
# Spread of the gates' logits over tokens of unit size, at every width.
_FRESH_SPREAD = 0.1

# torch.compile would unroll the walk over chunks: minutes of compiling for a slower step (benchmarks/LOG.md).
_uncompiled_memory = torch.compiler.disable(run_memory)


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
    """What a `NeuralMemory` did at every token, outside the graph: (B, T, H), zero where tokens are masked."""

    surprise: Tensor  # these three as in `MemoryStats`
    update: Tensor
    memory: Tensor
    lr: Tensor  # the gates
    momentum: Tensor
    forget: Tensor  # (B, T, H, I) with a gate for each channel
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
            `titans_seq.ops.titans_memory`. forget_to="initial" keeps a deeper memory alive over very long sequences; in
            training it diverged more often than "zero" (benchmarks/LOG.md).
        conv_width: tokens that the convolution sees; 1 is none.
        momentum, forgetting: False holds the gate at 0; without momentum, online gradients are the gated delta rule.
        channel_forget: one forget gate per input channel of every layer of the memory, instead of one per head.
        bound_lr: the learning rate is the gate's share of (1 - momentum) / chunk_size (with online gradients of 1 -
            momentum) instead of 1: what tokens that are all alike can bear. For a plain matrix memory only.
        num_persistent: learned tokens that every sequence begins with (eq 19): written before its first token.
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
        momentum: bool = True,
        forgetting: bool = True,
        channel_forget: bool = False,
        bound_lr: bool = False,
        num_persistent: int = 0,
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
        if num_persistent < 0:
            raise ValueError(f"num_persistent must be at least 0; got {num_persistent}")
        self.options = Options(
            chunk_size=chunk_size,
            gradient=gradient,
            activation=activation,
            forget_to=forget_to,
            residual=residual,
            outer_gradient=outer_gradient,
            checkpoint_every=checkpoint_every,
        )
        check_options(self.options, depth)
        check_choice("initial", initial, get_args(Initial))
        if initial == "zero" and (depth > 1 or residual):
            # At zero every layer of a deeper memory has the others' zeros for factors in its gradient, and LayerNorm's
            # slope is some 300: the first write is huge, and no later one matters.
            raise ValueError(
                'initial="zero" is for a plain matrix memory: a deeper one gets no gradient at zero, a residual one '
                f"far too large a one; got {depth=}, {residual=}"
            )
        if bound_lr and (depth > 1 or residual):
            raise ValueError(f"bound_lr is for a plain matrix memory, whose bound is known; got {depth=}, {residual=}")
        self.num_heads = num_heads
        self.backend: Backend = backend
        # Tokens whose writes add up before the next gradient is taken: what the largest lr is divided by.
        self.bounded_by = (1 if gradient == "online" else chunk_size) if bound_lr else None

        head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = CausalConv(3 * dim, conv_width)
        self.persistent = nn.Parameter(torch.randn(num_persistent, dim)) if num_persistent else None
        widths = [head_dim, *[head_dim * expansion] * (depth - 1), head_dim]
        shapes = [(num_heads, d_in, d_out) for d_in, d_out in pairwise(widths)]
        # Values per head of lr, momentum and forget; 0 is a gate that stays closed.
        self.gate_sizes = (1, int(momentum), forgetting * (sum(widths[:-1]) if channel_forget else 1))
        self.gates = nn.Linear(dim, sum(self.gate_sizes) * num_heads)
        learned = shapes if initial == "learned" else []
        self.initial = nn.ParameterList(nn.Parameter(torch.randn(shape) / sqrt(shape[1])) for shape in learned)
        self.register_buffer("zero", None if learned else torch.zeros(shapes[0]), persistent=False)
        self.norm = RMSNorm(head_dim)
        self.out_gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self._initialise_gates()

    def _initialise_gates(self) -> None:
        nn.init.normal_(self.gates.weight, std=_FRESH_SPREAD / sqrt(self.gates.in_features))
        options = self.options
        chunk_lr = _FRESH_CHUNK_LR / 2 ** (len(self.start_weights()) - 1 + options.residual)
        lr = _FRESH_LR if options.gradient == "online" else min(_FRESH_LR, chunk_lr / options.chunk_size)
        if self.bounded_by is not None:
            lr *= self.bounded_by / (1 - _FRESH_MOMENTUM * bool(self.gate_sizes[1]))
        fresh = torch.tensor([log(p / (1 - p)) for p in (lr, _FRESH_MOMENTUM, _FRESH_FORGET)])
        with torch.no_grad():
            self.gates.bias.copy_(fresh.repeat_interleave(torch.tensor(self.gate_sizes) * self.num_heads))

    def _gate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Learning rate, momentum and forgetting of tokens (B, T, dim), (B, T, H); by channel (B, T, H, I)."""
        shares = [size * self.num_heads for size in self.gate_sizes]
        gates = [
            torch.unflatten(gate, -1, (self.num_heads, size)) if size else x.new_zeros(*x.shape[:2], self.num_heads, 1)
            for gate, size in zip(torch.sigmoid(self.gates(x)).split(shares, dim=-1), self.gate_sizes, strict=True)
        ]
        lr, momentum, forget = (gate.squeeze(-1) if gate.shape[-1] == 1 else gate for gate in gates)
        return lr if self.bounded_by is None else lr * (1 - momentum) / self.bounded_by, momentum, forget

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
            return_stats: return a third value, for those who want to look inside. Triton's kernels keep no stats: with
                backend="triton" such a call is chunked.

        Raises ValueError when the flags or the state do not fit.
        """
        check_flags(mask, reset, x.shape[:2])
        if self.persistent is not None and reset is not None:
            raise ValueError("reset does not go with persistent tokens, which only a call's first sequence gets")
        first = 0
        if self.persistent is not None and state is None:
            first = len(self.persistent)
            x = torch.cat([self.persistent.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
            mask = None if mask is None else F.pad(mask, (first, 0), value=True)
        if mask is not None:  # what padding holds, be it NaN, must not reach the gradients' sums
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        qkv, conv_state = self.conv(F.silu(self.qkv(x)), None if state is None else state.conv, mask, reset)
        q, k, v = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).unbind(2)
        gates = self._gate(x)
        y, memory_state, stats = _uncompiled_memory(
            Tokens(unit_norm(q), unit_norm(k), v, *gates),
            self.start_weights(),
            None if state is None else state.memory,
            self.options._replace(return_stats=True) if return_stats else self.options,
            mask,
            reset,
            "chunked" if return_stats and self.backend == "triton" else self.backend,
        )
        after = NeuralMemoryState(memory_state, conv_state)
        y = self._way_out(y[:, first:], x[:, first:])
        return (y, after) if stats is None else (y, after, _layer_stats(stats, gates, mask, first))

    def read(self, x: Tensor, weights: list[Tensor] | None = None) -> Tensor:
        """What the memory holds for tokens x (B, T, dim), without writing: y = M(q), (B, T, dim).

        `weights` (B, H, d_in, d_out) are those of a state, None the initial ones. Every token reads for itself, without
        the convolution.
        """
        queries, _, _ = self.qkv.weight.chunk(3)
        q = unit_norm(torch.unflatten(F.silu(F.linear(x, queries)), -1, (self.num_heads, -1)))
        at = self.start_weights() if weights is None else weights
        dtype = torch.promote_types(q.dtype, torch.float32)  # as the op reads
        with torch.autocast(x.device.type, enabled=False):
            q_BHTD = q.transpose(1, 2).to(dtype)
            y = read_memory([w.to(dtype) for w in at], q_BHTD, self.options.activation, self.options.residual)
        return self._way_out(y.transpose(1, 2).to(q.dtype), x)

    def start_weights(self) -> list[Tensor]:
        """The memory at a sequence's start, by layer (H, d_in, d_out)."""
        return list(self.initial) if self.zero is None else [self.zero]

    def _way_out(self, y: Tensor, x: Tensor) -> Tensor:
        """Reads (B, T, H, D), normalised per head, gated by their tokens x and projected: (B, T, dim)."""
        out: Tensor = self.out(self.norm(y).flatten(2) * F.silu(self.out_gate(x)))
        return out


def _layer_stats(stats: MemoryStats, gates: tuple[Tensor, ...], mask: Tensor | None, first: int) -> LayerStats:
    """Of the tokens from `first` on; those before it are persistent."""
    live = None if mask is None else mask[:, first:]
    of_gates = [g.detach()[:, first:] for g in gates]
    if live is not None:
        of_gates = [g.masked_fill(~live.view(*live.shape, *[1] * (g.ndim - 2)), 0) for g in of_gates]
    lr, momentum, forget = of_gates
    surprise, update, memory = (x[:, first:] for x in stats)
    return LayerStats(surprise, update, memory, lr, momentum, forget, live)
