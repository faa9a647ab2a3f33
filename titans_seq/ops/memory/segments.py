"""Chunks as one differentiable function, a segment of several at a time.

Autograd would keep every small tensor of every chunk and launch its backward one by one. Instead the state at each
segment's start is kept, and the backward pass computes a segment again and differentiates it by hand. Inside a segment
only the writes are sequential (`writes`); the reads of all its chunks run together (`reads`).

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
"""

from math import ceil, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.chunk_rule import ChunkRule
from titans_seq.ops.memory.decay import decay_tables, decay_tables_backward
from titans_seq.ops.memory.mlp import ACTIVATIONS
from titans_seq.ops.memory.online import OnlineRule
from titans_seq.ops.memory.options import Options
from titans_seq.ops.memory.reads import read_segment, read_segment_backward
from titans_seq.ops.memory.residual_norm import Normalised, normalise, pull
from titans_seq.ops.memory.stats import MemoryStats, segment_stats
from titans_seq.ops.memory.tokens import Tokens
from titans_seq.ops.memory.writes import ReadShares, State, UpdateShares, WriteRule, walk, walk_backward

# Up to this size the states of all chunks are kept, and nothing is computed twice.
_KEEP_ALL_BYTES = 128 * 2**20


class Plan(NamedTuple):
    """The arguments of `Chunks` that are no tensors, and how to tell its tensors apart."""

    options: Options
    layers: int
    own_reference: bool  # the first chunk's gradient too is taken at its own start
    anchored: bool  # forgetting leads to an anchor, not to zero
    live: Tensor | None  # (N, G, C), False where a token leaves W and S alone
    stats: list[list[MemoryStats]] | None  # where the forward pass leaves its segments' stats, if they are wanted

    def group(self, tensors: tuple[Tensor, ...]) -> tuple[State, list[Tensor] | None, list[Tensor] | None]:
        """State, reference and anchor out of `Chunks`' last arguments."""
        parts = [list(tensors[i : i + self.layers]) for i in range(0, len(tensors), self.layers)]
        state = parts.pop(0)
        reference = None if self.own_reference else parts.pop(0)
        return state, reference, parts.pop(0) if self.anchored else None


class _Segment(NamedTuple):
    """What the forward pass over a segment leaves for its backward pass."""

    tables: tuple[Tensor, Tensor]
    update_shares: UpdateShares
    read_shares: ReadShares
    rule: WriteRule
    reads: list[Tensor]  # what the layers but the last read; the outputs would keep themselves alive through the graph
    normalised: Normalised | None  # the residual memory's last read


class Chunks(torch.autograd.Function):
    """Chunks (N, G, C, ...) and a start state to outputs (N, G, C, O) and the end state."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Segment after segment; `arguments` are the tokens, then what `Plan.group` tells apart."""
        tokens, (state, reference, anchor) = Tokens(*arguments[:6]), plan.group(arguments[6:])
        chunks = len(tokens.q)
        per_segment = _chunks_per_segment(chunks, state, plan.options)
        outputs, starts, kept, stats = [], [], None, []
        for first in range(0, chunks, per_segment):
            part = slice(first, first + per_segment)
            starts.append(state)
            at = reference if first == 0 else None
            live = None if plan.live is None else plan.live[part]
            segment, y, state = _forward_segment(
                Tokens(*(x[part] for x in tokens)), live, state, at, anchor, plan.options
            )
            outputs.append(y)
            kept = segment if per_segment == chunks else None
            if plan.stats is not None:
                of_surprise = _read_shares(segment.tables[1].movedim(0, -2), tokens.lr[part])
                stats.append(segment_stats(segment.rule.writes, segment.read_shares, of_surprise, anchor))
        if plan.stats is not None:
            plan.stats.append(stats)
        ctx.plan, ctx.starts, ctx.kept, ctx.per_segment = plan, starts, kept, per_segment
        ctx.save_for_backward(*arguments)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0], *state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, *d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Segment before segment, each computed again unless it is the only one."""
        plan, arguments = ctx.plan, ctx.saved_tensors
        with torch.autocast(d_y.device.type, enabled=False):
            return Chunks._run_backward(ctx, plan, arguments, d_y, d_end)

    @staticmethod
    def _run_backward(
        ctx: Any, plan: Plan, arguments: tuple[Tensor, ...], d_y: Tensor, d_end: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        tokens, (_, reference, anchor) = Tokens(*arguments[:6]), plan.group(arguments[6:])
        d_tokens: list[Tokens] = []  # by segment, the last one first
        d_state, d_reference = list(d_end), None
        d_anchor = [torch.zeros_like(w) for w in anchor] if anchor is not None else []
        for index in reversed(range(len(ctx.starts))):
            part = slice(index * ctx.per_segment, (index + 1) * ctx.per_segment)
            tokens_part, at = Tokens(*(x[part] for x in tokens)), reference if index == 0 else None
            live = None if plan.live is None else plan.live[part]
            segment = ctx.kept
            if segment is None:
                segment, _, _ = _forward_segment(tokens_part, live, ctx.starts[index], at, anchor, plan.options)
            gradient = _backward_segment(segment, tokens_part, live, d_y[part], d_state, anchor, plan.options)
            d_tokens.append(gradient.tokens)
            d_state, d_reference = gradient.state, gradient.reference
            for total, piece in zip(d_anchor, gradient.anchor, strict=True):
                total.add_(piece)
        joined = d_tokens[0] if len(d_tokens) == 1 else map(torch.cat, zip(*reversed(d_tokens), strict=True))
        return None, *joined, *d_state, *(d_reference or []), *d_anchor


def _chunks_per_segment(chunks: int, state: State, options: Options) -> int:
    """All chunks while their states are small, else near their square root.

    There the kept states and those inside a segment take about the same room, which grows with the length's root.
    """
    if options.checkpoint_every is not None:
        return options.checkpoint_every
    state_bytes = sum(m.numel() * m.element_size() for m in state)
    return max(1, chunks if chunks * state_bytes <= _KEEP_ALL_BYTES else ceil(sqrt(chunks)))


def _forward_segment(
    tokens: Tokens,
    live: Tensor | None,
    state: State,
    reference: list[Tensor] | None,
    anchor: list[Tensor] | None,
    options: Options,
) -> tuple[_Segment, Tensor, State]:
    act = ACTIVATIONS[options.activation]
    tables = decay_tables(tokens.momentum, tokens.forget, live)
    in_weights = tables[0].movedim(0, -2).contiguous()
    last = torch.stack([table[-1] for table in tables], dim=-2)  # (N, G, 2, 2 + C)
    update_shares = UpdateShares(last[..., :2], last[..., 2:].mT * tokens.lr.unsqueeze(-1))
    read_shares = _read_shares(in_weights, tokens.lr)
    states = [m.new_empty(len(tokens.q) + 1, *m.shape) for m in state]
    starts = [room[:-1] for room in states]
    through_weights = options.outer_gradient == "exact"
    rule: WriteRule
    if options.gradient == "online":
        past = _read_shares(_one_row_down(in_weights), tokens.lr)
        rule = OnlineRule(tokens.k, tokens.v, starts, past, anchor, through_weights)
    else:
        rule = ChunkRule(tokens.k, tokens.v, starts, reference, act, options.residual, through_weights)
    state = walk(rule, update_shares, state, states, anchor)
    y, reads = read_segment(tokens.q, rule.writes, read_shares, anchor, act)
    normalised = normalise(y) if options.residual else None
    segment = _Segment(tables, update_shares, read_shares, rule, reads, normalised)
    return segment, y if normalised is None else tokens.q + normalised.value, state


def _read_shares(in_weights: Tensor, lr: Tensor) -> ReadShares:
    """Out of the decay table of W, (N, G, C, 2 + C)."""
    return ReadShares(in_weights[..., :2], in_weights[..., 2:] * lr.unsqueeze(-2))


def _one_row_down(table: Tensor) -> Tensor:
    """The shares of W_{t-1} out of those of W_t; before the first token W is the chunk's start."""
    first = torch.zeros_like(table[..., :1, :])
    first[..., 0] = 1
    return torch.cat([first, table[..., :-1, :]], dim=-2)


class _SegmentGradient(NamedTuple):
    tokens: Tokens
    state: State
    reference: list[Tensor] | None
    anchor: list[Tensor]


def _backward_segment(
    segment: _Segment,
    tokens: Tokens,
    live: Tensor | None,
    d_y: Tensor,
    d_state: State,
    anchor: list[Tensor] | None,
    options: Options,
) -> _SegmentGradient:
    rule, act = segment.rule, ACTIVATIONS[options.activation]
    d_read = d_y if segment.normalised is None else pull(d_y, segment.normalised)
    of_reads = read_segment_backward(d_read, tokens.q, segment.reads, rule.writes, segment.read_shares, anchor, act)
    of_walk = walk_backward(rule, segment.update_shares, d_state, of_reads.writes, anchor)
    of_rule = of_walk.rule
    d_lr, d_momentum, d_forget = _shares_backward(
        tokens, live, segment.tables, of_reads.shares, of_walk.shares, of_rule.past
    )
    d_anchors = [part for part in (of_reads.anchor, of_walk.anchor, of_rule.anchor) if part is not None]
    d_anchor = [torch.stack(parts).sum(0) for parts in zip(*d_anchors, strict=True)]
    d_q = of_reads.q_NGCI + d_y if options.residual else of_reads.q_NGCI
    d_tokens = Tokens(d_q, of_rule.k_NGCI, of_rule.v_NGCO, d_lr, d_momentum, d_forget)
    return _SegmentGradient(d_tokens, of_walk.state, of_rule.reference, d_anchor)


def _shares_backward(
    tokens: Tokens,
    live: Tensor | None,
    tables: tuple[Tensor, Tensor],
    d_read: ReadShares,
    d_update: UpdateShares,
    d_past: ReadShares | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of lr, momentum and forget, (N, G, C)."""
    in_weights, lr = tables[0].movedim(0, -2), tokens.lr
    last_writes = torch.stack([table[-1][..., 2:] for table in tables], dim=-1)
    d_lr = (d_read.writes_NGCC * in_weights[..., 2:]).sum(-2) + (d_update.writes_NGC2 * last_writes).sum(-1)
    d_table = torch.cat([d_read.start_NGC2, d_read.writes_NGCC * lr.unsqueeze(-2)], dim=-1)
    if d_past is not None:
        # Row t of the past is row t - 1 of the table; its first row is constant and holds no writes.
        below = torch.cat([d_past.start_NGC2, d_past.writes_NGCC * lr.unsqueeze(-2)], dim=-1)
        d_table[..., :-1, :] += below[..., 1:, :]
        d_lr += (d_past.writes_NGCC[..., 1:, :] * in_weights[..., :-1, 2:]).sum(-2)
    d_last = torch.cat([d_update.transition_NG22, (d_update.writes_NGC2 * lr.unsqueeze(-1)).mT], dim=-1)
    d_table[..., -1, :] += d_last[..., 0, :]
    d_last_surprise = d_last[..., 1, :]
    d_momentum, d_forget = decay_tables_backward(
        tokens.momentum, tokens.forget, live, tables, d_table.movedim(-2, 0).contiguous(), d_last_surprise
    )
    return d_lr, d_momentum, d_forget
