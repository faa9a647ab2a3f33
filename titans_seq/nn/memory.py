"""Neural memory as a layer: projections, gates, the memory op, and the output projection."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log, sqrt
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from titans_seq.nn.conv import CausalConv
from titans_seq.nn.norm import RMSNorm, unit_norm
from titans_seq.ops import MemoryState, MemoryStats
from titans_seq.ops.differentiation import check_not_reentrant
from titans_seq.ops.masking import check_flags
from titans_seq.ops.memory.arguments import (
    ForgetTo,
    Gradient,
    Options,
    OuterGradient,
    Tokens,
    check_choice,
    check_integer,
    check_options,
)
from titans_seq.ops.memory.backends import Backend
from titans_seq.ops.memory.dispatch import without_autocast
from titans_seq.ops.memory.network import Activation, read_memory
from titans_seq.ops.memory.op import run_memory

Initial = Literal["learned", "zero"]
Gates = Literal["sigmoid", "closing"]

# Gate values at initialisation, chosen with benchmarks/recall.py (figures and tables: its entry in benchmarks/LOG.md).
# Half of a write remains after 350 tokens; less forgetting did not improve recall, more forgetting reduced it.
_INITIAL_MOMENTUM, _INITIAL_FORGET = 0.5, 0.002
# All gradients of a chunk are taken at its start, so identical tokens (a flat signal, a run of N) act as one token with
# chunk_size times the lr. A matrix diverges on them once lr * chunk_size exceeds 1 - momentum; a deeper memory diverges
# from a third to a quarter of that, and faster. The initial lr is half of the matrix bound, halved again for each
# further layer and for the residual's norm. Training learns recall faster from 0.05 at chunks of 16, but there a
# constant sequence ends in NaN.
_INITIAL_LR, _INITIAL_CHUNK_LR = 0.05, 0.25
# How far below 0 the sigmoids of closing gates for lr and forgetting are stretched, before they are cut off at 0: with
# these, a matrix memory that was trained at 1,024 tokens answered at two million (docs/needle.md).
_STRETCH_LR, _STRETCH_FORGET = 0.01, 0.001
# Standard deviation of the gates' logits over tokens of unit variance, at every width.
_INITIAL_SPREAD = 0.1


class NeuralMemoryState(NamedTuple):
    """State of a `NeuralMemory` between calls; its size does not depend on the length of the sequence."""

    memory: MemoryState
    conv: Tensor  # (B, conv_width - 1, 3 dim): the convolution's last inputs

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, as expected by `safetensors.torch.save_file`."""
        named = {f"memory.{name}": x for name, x in self.memory.named_tensors().items()}
        return {"conv": self.conv.detach().clone(memory_format=torch.contiguous_format), **named}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "NeuralMemoryState":
        """Restore a state from its `named_tensors`; raises ValueError for missing or unknown names."""
        memory = {name.removeprefix("memory."): x for name, x in named.items() if name.startswith("memory.")}
        if set(named) != {"conv", *(f"memory.{name}" for name in memory)}:
            raise ValueError(f"expected the tensors of a NeuralMemoryState; got {', '.join(sorted(named)) or 'none'}")
        return cls(MemoryState.from_named_tensors(memory), named["conv"])

    def detach(self) -> "NeuralMemoryState":
        """Return the state detached from the autograd graph, for truncated backpropagation through time."""
        return NeuralMemoryState(self.memory.detach(), self.conv.detach())

    def to(
        self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> "NeuralMemoryState":
        """Return the state on another device, in another floating type, or both."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        return NeuralMemoryState(self.memory.to(device, dtype), self.conv.to(device=device, dtype=dtype))

    def select(self, index: int) -> "NeuralMemoryState":
        """Return the state of one batch element, as a batch of one."""
        return self.index_select([index])

    def index_select(self, index: Sequence[int] | Tensor) -> "NeuralMemoryState":
        """Return the states of the batch elements `index` (N,), in this order and with repetitions, as a batch of N."""
        rows = torch.as_tensor(index, device=self.conv.device)
        return NeuralMemoryState(self.memory.index_select(rows), self.conv.index_select(0, rows))

    def expand(self, batch: int) -> "NeuralMemoryState":
        """Repeat the state of a batch of one for a batch of `batch` elements, without copying it."""
        return NeuralMemoryState(self.memory.expand(batch), self.conv.expand(batch, -1, -1))

    @classmethod
    def cat(cls, states: Sequence["NeuralMemoryState"]) -> "NeuralMemoryState":
        """Join the batches of several states of one layer; raises ValueError if their chunk sizes differ."""
        return cls(MemoryState.cat([state.memory for state in states]), torch.cat([state.conv for state in states]))


# Needed to save an exported program that takes or returns a state.
pytree._register_namedtuple(NeuralMemoryState, serialized_type_name="titans_seq.nn.NeuralMemoryState")


class LayerStats(NamedTuple):
    """Per-token statistics of a `NeuralMemory`, outside the autograd graph: (B, T, H), zero at masked tokens."""

    surprise: Tensor  # these three as in `MemoryStats`
    update: Tensor
    memory: Tensor
    lr: Tensor  # the gates
    momentum: Tensor
    forget: Tensor  # (B, T, H, I) with one gate per channel
    mask: Tensor | None  # (B, T) bool, True at valid tokens; None: all are valid

    def means(self) -> dict[str, float]:
        """Return the means over valid tokens and heads, for logging; NaN if no token is valid."""
        named = self._asdict()
        valid = named.pop("mask")
        return {name: float((x if valid is None else x[valid]).mean()) for name, x in named.items()}


class _GateProjection(nn.Linear):
    """Projection to the gates' logits; `initial` are their sigmoids at initialisation."""

    initial: Sequence[float] = ()

    def reset_parameters(self) -> None:
        """Draw small weights and set the bias to the logits of `initial`; without it, as `nn.Linear`."""
        if self.initial:
            nn.init.normal_(self.weight, std=_INITIAL_SPREAD / sqrt(self.in_features))
            with torch.no_grad():
                self.bias.copy_(torch.tensor([log(p / (1 - p)) for p in self.initial]))
        else:
            super().reset_parameters()


class NeuralMemory(nn.Module):
    """Long-term memory that is updated at test time (Titans, arXiv 2501.00663, section 3.1, eqs 11 to 16).

    Queries, keys and values are linear projections through SiLU and a short causal convolution; queries and keys have
    unit norm. Learning rate, momentum and forgetting depend on the token, one of each per head. The output is
    normalised per head and gated before the output projection.

    Args:
        dim: features of a token; must be a multiple of num_heads.
        num_heads: independent memories, each on dim / num_heads features.
        depth, expansion, activation: the memory's MLP; depth 1 is a matrix, expansion is hidden width / head dim.
        chunk_size, gradient, forget_to, residual, outer_gradient, checkpoint_every, backend: see
            `titans_seq.ops.titans_memory`. forget_to="initial" prevents a deeper memory from decaying to zero over very
            long sequences; in training it diverged more often than "zero" (benchmarks/LOG.md).
        conv_width: width of the causal convolution in tokens; 1 disables it.
        gates: "closing": lr and forgetting can be exactly 0, so that a token may leave the memory as it is; a sigmoid
            never is, and over thousands of tokens what it lets through adds up. They are sigmoids stretched to slightly
            below 0 and cut off there, max(0, 1.01 s - .01) and max(0, 1.001 s - .001), as in hard concrete gates
            (Louizos et al., ICLR 2018, arXiv 1712.01312).
        momentum, forgetting: False fixes the gate at 0. Online gradients without both are the delta rule; those without
            momentum alone are not the gated delta rule, which takes the error after the decay, not before it.
        channel_forget: one forget gate per input channel of every layer of the memory, instead of one per head.
        bound_lr: scale the learning rate gate to at most (1 - momentum) / chunk_size (with online gradients
            1 - momentum) instead of 1: the largest rate stable on identical tokens. For a plain matrix memory only.
        num_persistent: learned tokens (eq 19) that are prepended to every sequence. Chunks count them: a sequence's
            first chunk has chunk_size - num_persistent tokens of x (modulo chunk_size), unless num_persistent is a
            multiple of chunk_size.
        initial: the memory at a sequence's start: learned, or zero and not trained (for a plain matrix memory only).

    Raises:
        ValueError: sizes or options are invalid or cannot be combined.
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
        gates: Gates = "sigmoid",
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
        sizes = {"dim": dim, "num_heads": num_heads, "depth": depth, "expansion": expansion, "conv_width": conv_width}
        for name, value in sizes.items():
            check_integer(name, value, least=1)
        check_integer("num_persistent", num_persistent, least=0)
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim; got {num_heads} and {dim}")
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
        check_choice("gates", gates, get_args(Gates))
        if initial == "zero" and (depth > 1 or residual):
            # At zero, every layer's gradient in a deeper memory has the other layers' zeros as factors, and LayerNorm's
            # derivative is about 300: the first write is huge and dominates all later ones.
            raise ValueError(
                'initial="zero" requires a plain matrix memory (depth=1, residual=False): at zero a deeper memory has '
                f"no gradient, and a residual one too large a gradient; got {depth=}, {residual=}"
            )
        if bound_lr and (depth > 1 or residual):
            raise ValueError(
                f"bound_lr requires a plain matrix memory (depth=1, residual=False); got {depth=}, {residual=}"
            )
        self.dim = dim
        self.num_heads = num_heads
        self.backend: Backend = backend
        # How far the sigmoids of lr, momentum and forget are stretched below 0; momentum alone writes nothing.
        self.stretch = (_STRETCH_LR, 0.0, _STRETCH_FORGET) if gates == "closing" else (0.0, 0.0, 0.0)
        # Divisor of the largest lr: the number of writes that add up before the next gradient is taken.
        self.lr_divisor = (1 if gradient == "online" else chunk_size) if bound_lr else None

        head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = CausalConv(3 * dim, conv_width)
        self.persistent = nn.Parameter(torch.randn(num_persistent, dim)) if num_persistent else None
        widths = [head_dim, *[head_dim * expansion] * (depth - 1), head_dim]
        shapes = [(num_heads, d_in, d_out) for d_in, d_out in pairwise(widths)]
        # Values per head of lr, momentum and forget; 0 for a gate fixed at zero.
        self.gate_sizes = (1, int(momentum), forgetting * (sum(widths[:-1]) if channel_forget else 1))
        self.gates = _GateProjection(dim, sum(self.gate_sizes) * num_heads)
        learned = shapes if initial == "learned" else []
        self.initial = nn.ParameterList(nn.Parameter(torch.randn(shape) / sqrt(shape[1])) for shape in learned)
        self.register_buffer("zero", None if learned else torch.zeros(shapes[0]), persistent=False)
        self.norm = RMSNorm(head_dim)
        self.out_gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        values = (self._initial_lr(), _INITIAL_MOMENTUM, _INITIAL_FORGET)
        shares = [(value + stretch) / (1 + stretch) for value, stretch in zip(values, self.stretch, strict=True)]
        counts = (size * num_heads for size in self.gate_sizes)
        self.gates.initial = [share for share, count in zip(shares, counts, strict=True) for _ in range(count)]
        self.gates.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial memory and the persistent tokens anew; the layers have their own `reset_parameters`.

        To build on the meta device, fill the parameters with `to_empty`, then call `reset_parameters` of every module
        that has one.
        """
        if self.persistent is not None:
            nn.init.normal_(self.persistent)
        for weights in self.initial:
            nn.init.normal_(weights, std=1 / sqrt(weights.shape[1]))
        if self.zero is not None:
            nn.init.zeros_(self.zero)

    def _initial_lr(self) -> float:
        options = self.options
        chunk_lr = _INITIAL_CHUNK_LR / 2 ** (len(self.start_weights()) - 1 + options.residual)
        lr = _INITIAL_LR if options.gradient == "online" else min(_INITIAL_LR, chunk_lr / options.chunk_size)
        if self.lr_divisor is not None:
            lr *= self.lr_divisor / (1 - _INITIAL_MOMENTUM * bool(self.gate_sizes[1]))
        return lr

    def _gate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return lr, momentum and forget (B, T, H), or by channel (B, T, H, I), of tokens x (B, T, dim)."""
        sizes = [size * self.num_heads for size in self.gate_sizes]
        gates = [
            torch.unflatten(_stretched(gate, stretch), -1, (self.num_heads, size))
            if size
            else x.new_zeros(*x.shape[:2], self.num_heads, 1)
            for gate, size, stretch in zip(
                torch.sigmoid(self.gates(x)).split(sizes, dim=-1), self.gate_sizes, self.stretch, strict=True
            )
        ]
        lr, momentum, forget = (gate.squeeze(-1) if gate.shape[-1] == 1 else gate for gate in gates)
        return lr if self.lr_divisor is None else lr * (1 - momentum) / self.lr_divisor, momentum, forget

    def forward(
        self,
        x: Tensor,
        state: NeuralMemoryState | None = None,
        *,
        mask: Tensor | None = None,
        reset: Tensor | None = None,
        return_stats: bool = False,
    ) -> tuple[Tensor, NeuralMemoryState] | tuple[Tensor, NeuralMemoryState, LayerStats]:
        """Map x (B, T, dim) to (B, T, dim), the state that continues the sequence and, on request, `LayerStats`.

        Args:
            x: tokens.
            state: the state returned by an earlier call; the sequence continues exactly, wherever it was split.
            mask: (B, T) bool; tokens where it is False (padding or gaps) are skipped: outputs, gradients and state are
                those of the sequence without them, and their own outputs are zero.
            reset: (B, T) bool; where it is True a new sequence starts, with the initial memory and an empty
                convolution. It is ignored at masked tokens.
            return_stats: also return `LayerStats`. The Triton kernels do not support stats: with backend="triton" such
                a call uses "chunked".

        Raises:
            ValueError: x, the flags or the state are invalid.
            RuntimeError: the layer runs with a state in reentrant activation checkpointing, which would lose the
                gradients that pass through the state.
        """
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"x must be (B, T, dim) = (B, T, {self.dim}); got {tuple(x.shape)}")
        check_flags(mask, reset, x.shape[:2])
        if state is not None:
            check_not_reentrant()
        if self.persistent is not None and reset is not None:
            raise ValueError(
                "reset is not supported with persistent tokens, which are only prepended to a call's first sequence"
            )
        first = 0
        if self.persistent is not None and state is None:
            first = len(self.persistent)
            x = torch.cat([self.persistent.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
            mask = None if mask is None else F.pad(mask, (first, 0), value=True)
        if mask is not None:  # padding may contain NaN, which must not reach the sums of the gradients
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        qkv, conv_state = self.conv(F.silu(self.qkv(x)), None if state is None else state.conv, mask, reset)
        q, k, v = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).unbind(2)
        gates = self._gate(x)
        y, memory_state, stats = run_memory(
            Tokens(unit_norm(q), unit_norm(k), v, *gates),
            self.start_weights(),
            None if state is None else state.memory,
            self.options._replace(return_stats=True) if return_stats else self.options,
            mask,
            reset,
            "chunked" if return_stats and self.backend == "triton" else self.backend,
        )
        after = NeuralMemoryState(memory_state, conv_state)
        y = self._project_out(y[:, first:], x[:, first:])
        return (y, after) if stats is None else (y, after, _layer_stats(stats, gates, mask, first))

    def read(self, x: Tensor, weights: list[Tensor] | None = None) -> Tensor:
        """Read the memory for tokens x (B, T, dim) without writing: y = M(q), (B, T, dim).

        `weights` (B, H, d_in, d_out) are those of a state; None: the initial ones. Every token is read independently,
        without the convolution.
        """
        queries, _, _ = self.qkv.weight.chunk(3)
        q = unit_norm(torch.unflatten(F.silu(F.linear(x, queries)), -1, (self.num_heads, -1)))
        at = self.start_weights() if weights is None else weights
        dtype = torch.promote_types(q.dtype, torch.float32)  # as in the op
        with without_autocast(x.device):
            q_BHTD = q.transpose(1, 2).to(dtype)
            y = read_memory([w.to(dtype) for w in at], q_BHTD, self.options.activation, self.options.residual)
        return self._project_out(y.transpose(1, 2).to(q.dtype), x)

    def start_weights(self) -> list[Tensor]:
        """Return the memory's weights at a sequence's start, by layer (H, d_in, d_out)."""
        return list(self.initial) if self.zero is None else [self.zero]

    def _project_out(self, y: Tensor, x: Tensor) -> Tensor:
        """Normalise reads (B, T, H, D) per head, gate them by their tokens x, and project them to (B, T, dim)."""
        out: Tensor = self.out(self.norm(y).flatten(2) * F.silu(self.out_gate(x)))
        return out


def _stretched(gate: Tensor, stretch: float) -> Tensor:
    """Stretch a sigmoid's range to [-stretch, 1] and cut it off at 0."""
    return F.relu((1 + stretch) * gate - stretch) if stretch else gate


def _layer_stats(stats: MemoryStats, gates: tuple[Tensor, ...], mask: Tensor | None, first: int) -> LayerStats:
    """Assemble the statistics of the tokens from `first` on; those before it are persistent."""
    valid = None if mask is None else mask[:, first:]
    of_gates = [g.detach()[:, first:] for g in gates]
    if valid is not None:
        of_gates = [g.masked_fill(~valid.view(*valid.shape, *[1] * (g.ndim - 2)), 0) for g in of_gates]
    lr, momentum, forget = of_gates
    surprise, update, memory = (x[:, first:] for x in stats)
    return LayerStats(surprise, update, memory, lr, momentum, forget, valid)
