"""Chunks as one differentiable function, a segment of several at a time.

Autograd would keep every small tensor of every chunk and launch its backward one by one. Instead the state at each
segment's start is kept, and the backward pass computes a segment again and differentiates it by hand, group after group
of its chunks (`groups`). A sequence whose states are small is one segment, of which everything is kept.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
"""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.decay import decay_tables, decay_tables_backward
from titans_seq.ops.memory.chunked.groups import DecayTables, Group, backward_group, forward_group, stats_of_group
from titans_seq.ops.memory.chunked.recurrent import StackedState
from titans_seq.ops.memory.chunked.stacking import halves
from titans_seq.ops.memory.state import MemoryStats

# Up to this size the states of all chunks are kept, and nothing is computed twice.
_KEEP_ALL_BYTES = 128 * 2**20
# Of a group's widest tensor, for each CPU thread: a few of them share a cache of one or two MiB.
_GROUP_BYTES = 2**20


class SegmentPlan(NamedTuple):
    """The arguments of `Chunks` that are no tensors, and how to tell its tensors apart."""

    options: Options
    layers: int
    own_reference: bool  # the first chunk's gradient too is taken at its own start
    anchored: bool  # forgetting leads to an anchor, not to zero
    live: Tensor | None  # (N, G, C), False where a token leaves W and S alone
    stats: list[list[MemoryStats]] | None  # where the forward pass leaves its groups' stats, if they are wanted

    def group(self, tensors: tuple[Tensor, ...]) -> tuple[StackedState, list[Tensor] | None, list[Tensor] | None]:
        """StackedState, reference and anchor out of `Chunks`' last arguments."""
        parts = [list(tensors[i : i + self.layers]) for i in range(0, len(tensors), self.layers)]
        state = parts.pop(0)
        reference = None if self.own_reference else parts.pop(0)
        return state, reference, parts.pop(0) if self.anchored else None


class _Segment(NamedTuple):
    """Some chunks in a row, and what the forward pass leaves for their backward pass."""

    tokens: Tokens
    live: Tensor | None
    tables: DecayTables
    side_by_side: list[bool]  # how M joins W and S, by layer
    groups: list[tuple[slice, Group]]


class Chunks(torch.autograd.Function):
    """Chunks (N, G, C, ...) and a start state to outputs (N, G, C, O) and the end state."""

    @staticmethod
    def forward(ctx: Any, plan: SegmentPlan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Segment after segment; `arguments` are the tokens, then what `SegmentPlan.group` tells apart."""
        tokens, (state, reference, anchor) = Tokens(*arguments[:6]), plan.group(arguments[6:])
        parts = list(_parts(len(tokens.q), _chunks_per_segment(len(tokens.q), state, plan.options)))
        y, starts, segment = torch.empty_like(tokens.v), [], None
        for part in parts:
            starts.append(state)
            at = reference if part is parts[0] else None
            segment, state = _forward_segment(plan, tokens, part, state, at, anchor, y[part])
        ctx.plan, ctx.parts, ctx.starts, ctx.kept = plan, parts, starts, segment if len(parts) == 1 else None
        ctx.save_for_backward(*arguments)
        return y, *state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, *d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Segment before segment, each computed again unless it is the only one."""
        with torch.autocast(d_y.device.type, enabled=False):
            return _run_backward(ctx, ctx.plan, ctx.saved_tensors, d_y, list(d_end))


def _run_backward(
    ctx: Any, plan: SegmentPlan, arguments: tuple[Tensor, ...], d_y: Tensor, d_state: StackedState
) -> tuple[Tensor | None, ...]:
    tokens, (_, reference, anchor) = Tokens(*arguments[:6]), plan.group(arguments[6:])
    plan = plan._replace(stats=None)
    d_tokens = Tokens(*(torch.empty_like(x) for x in tokens))
    d_anchor = [torch.zeros_like(w) for w in anchor] if anchor is not None else []
    d_reference = None
    for part, start in zip(reversed(ctx.parts), reversed(ctx.starts), strict=True):
        segment, ctx.kept = (
            ctx.kept,
            None,
        )  # the graph may live on, for a log of losses; a second pass computes it again
        if segment is None:
            at = reference if part is ctx.parts[0] else None
            segment, _ = _forward_segment(plan, tokens, part, start, at, anchor, torch.empty_like(tokens.v[part]))
        out = Tokens(*(x[part] for x in d_tokens))
        d_state, d_reference = _backward_segment(segment, d_y[part], d_state, anchor, plan.options, out, d_anchor)
    return None, *d_tokens, *d_state, *(d_reference or []), *d_anchor


def _parts(count: int, size: int) -> Iterator[slice]:
    """0 to `count` in slices of `size`, the last one maybe shorter."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _chunks_per_segment(chunks: int, state: StackedState, options: Options) -> int:
    """All chunks while their states are small, else near their square root.

    There the kept states and those inside a segment take about the same room, which grows with the length's root.
    """
    if options.checkpoint_every is not None:
        return options.checkpoint_every
    if torch.compiler.is_exporting():
        return chunks
    state_bytes = sum(m.numel() * m.element_size() for m in state)
    return max(1, chunks if chunks * state_bytes <= _KEEP_ALL_BYTES else ceil(sqrt(chunks)))


def _chunks_per_group(tokens: Tokens, state: StackedState) -> int:
    """What the threads' caches hold on a CPU; elsewhere all chunks, for a launch costs more than a pass."""
    count, heads, size, width = tokens.q.shape
    if tokens.q.device.type != "cpu" or torch.compiler.is_exporting():  # a program must not depend on the batch's size
        return count
    widest = max(size, width, *(m.shape[-1] for m in state))
    chunk_bytes = heads * size * widest * tokens.q.element_size()
    return max(1, torch.get_num_threads() * _GROUP_BYTES // max(1, chunk_bytes))


def _forward_segment(
    plan: SegmentPlan,
    tokens: Tokens,
    part: slice,
    state: StackedState,
    reference: list[Tensor] | None,
    anchor: list[Tensor] | None,
    y: Tensor,
) -> tuple[_Segment, StackedState]:
    """The chunks `part` of all, written and read; the outputs go to `y` (N, G, C, O)."""
    tokens, live = Tokens(*(x[part] for x in tokens)), None if plan.live is None else plan.live[part]
    tables = DecayTables(*decay_tables(tokens.momentum, tokens.forget, live))
    side_by_side = _side_by_side(state, plan.options)
    states = [_room(len(y) + 1, m, w) for m, w in zip(state, side_by_side, strict=True)]
    _copy_joint(state, [room[0] for room in states], side_by_side)
    groups, stats = [], []
    for chunks in _parts(len(y), _chunks_per_group(tokens, state)):
        rooms = [room[chunks.start : chunks.stop + 1] for room in states]
        at = reference if chunks.start == 0 else None
        of_chunks = Tokens(*(x[chunks] for x in tokens))
        group, y[chunks] = forward_group(of_chunks, tables.part(chunks), rooms, side_by_side, at, anchor, plan.options)
        groups.append((chunks, group))
        if plan.stats is not None:
            stats.append(stats_of_group(group, of_chunks.lr, anchor))
    if plan.stats is not None:
        plan.stats.append(stats)
    end = [torch.empty_like(m) for m in state]  # a view of the last state would keep all the others alive
    _copy_joint(end, [room[-1] for room in states], side_by_side, back=True)
    return _Segment(tokens, live, tables, side_by_side, groups), end


def _side_by_side(state: StackedState, options: Options) -> list[bool]:
    """Layer by layer; online gradients need W on top of S."""
    return [options.gradient == "chunk" and m.shape[-2] > 2 * m.shape[-1] for m in state]


def _room(count: int, m: Tensor, side_by_side: bool) -> Tensor:
    """For `count` of M; m (G, 2 I, O)."""
    heads, rows, columns = m.shape
    return (
        m.new_empty(count, heads, rows // 2, 2 * columns) if side_by_side else m.new_empty(count, heads, rows, columns)
    )


def _copy_joint(state: StackedState, joint: list[Tensor], side_by_side: list[bool], back: bool = False) -> None:
    """W on top of S into M as `side_by_side` has it, or back."""
    for m, as_wide, w in zip(state, joint, side_by_side, strict=True):
        for one, other in zip(halves(m, side_by_side=False), halves(as_wide, w), strict=True):
            one.copy_(other) if back else other.copy_(one)


def _backward_segment(
    segment: _Segment,
    d_y: Tensor,
    d_state: StackedState,
    anchor: list[Tensor] | None,
    options: Options,
    d_tokens: Tokens,
    d_anchor: list[Tensor],
) -> tuple[StackedState, list[Tensor] | None]:
    """The gradients of the start state and of the reference; `d_tokens` takes the tokens', `d_anchor` the anchor's."""
    tokens = segment.tokens
    longest = max(chunks.stop - chunks.start for chunks, _ in segment.groups)
    d_states = [_room(longest + 1, d, w) for d, w in zip(d_state, segment.side_by_side, strict=True)]
    d_end = [_room(1, d, w)[0] for d, w in zip(d_state, segment.side_by_side, strict=True)]
    _copy_joint(d_state, d_end, segment.side_by_side)
    d_table = torch.empty_like(segment.tables.weights)
    d_last_surprise = torch.empty_like(d_table[0])
    d_reference = None
    for chunks, group in reversed(segment.groups):
        rooms = [room[: chunks.stop - chunks.start + 1] for room in d_states]
        for room, d in zip(rooms, d_end, strict=True):
            room[-1] = d
        of_chunks = Tokens(*(x[chunks] for x in tokens))
        d_rows = d_table[:, chunks].movedim(0, -2)
        gradient = backward_group(group, of_chunks, d_y[chunks], rooms, d_rows, anchor, options)
        d_end, d_reference = [room[0] for room in rooms], gradient.reference
        for out, piece in zip(d_tokens[:4], gradient.tokens[:4], strict=True):
            out[chunks] = piece
        d_last_surprise[chunks] = gradient.last_surprise
        for total, piece in zip(d_anchor, gradient.anchor, strict=True):
            total.add_(piece)
    d_tokens.momentum[:], d_tokens.forget[:] = decay_tables_backward(
        tokens.momentum, tokens.forget, segment.live, segment.tables, d_table, d_last_surprise
    )
    d_start = [torch.empty_like(d) for d in d_state]
    _copy_joint(d_start, d_end, segment.side_by_side, back=True)
    return d_start, d_reference
