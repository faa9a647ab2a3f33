"""Autograd function over many chunks, with activation checkpointing by segments of several chunks.

Plain autograd would keep every small tensor of every chunk and launch its backward separately. Instead the state at
each segment's start is kept; the backward pass recomputes a segment and differentiates it with hand-written formulas,
group by group of its chunks (`groups`). A sequence whose states are small is a single segment, and nothing is
recomputed.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
"""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.differentiation import first_derivative_only
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.decay import decay_tables, decay_tables_backward
from titans_seq.ops.memory.chunked.groups import DecayTables, Group, backward_group, forward_group, stats_of_group
from titans_seq.ops.memory.chunked.recurrent import StackedState
from titans_seq.ops.memory.chunked.stacking import halves
from titans_seq.ops.memory.state import MemoryStats

# Up to this size the states of all chunks are kept, and nothing is recomputed.
_KEEP_ALL_BYTES = 128 * 2**20
# Size of a group's widest tensor per CPU thread: a few such tensors fit into a cache of one or two MiB.
_GROUP_BYTES = 2**20


class SegmentPlan(NamedTuple):
    """Non-tensor arguments of `Chunks`, and how to split its tensor arguments."""

    options: Options
    layers: int
    at_chunk_start: bool  # the first chunk's gradients are taken at that chunk's own start
    has_decay_target: bool  # forgetting decays the weights to a target instead of zero
    valid: Tensor | None  # (N, G, C), False at padding tokens, which leave W and S unchanged
    stats: list[list[MemoryStats]] | None  # receives the groups' stats in the forward pass, if requested

    def group(self, tensors: tuple[Tensor, ...]) -> tuple[StackedState, list[Tensor] | None, list[Tensor] | None]:
        """Split `Chunks`' last arguments into state, reference and decay target."""
        parts = [list(tensors[i : i + self.layers]) for i in range(0, len(tensors), self.layers)]
        state = parts.pop(0)
        reference = None if self.at_chunk_start else parts.pop(0)
        return state, reference, parts.pop(0) if self.has_decay_target else None


class _Segment(NamedTuple):
    """Consecutive chunks, with the values that their backward pass needs."""

    tokens: Tokens
    valid: Tensor | None
    tables: DecayTables
    side_by_side: list[bool]  # how M joins W and S, by layer
    groups: list[tuple[slice, Group]]


class Chunks(torch.autograd.Function):
    """Map chunks (N, G, C, ...) and a start state to outputs (N, G, C, O) and the end state."""

    @staticmethod
    def forward(ctx: Any, plan: SegmentPlan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Run the segments in order; `arguments` are the tokens, then the tensors that `SegmentPlan.group` splits."""
        tokens, (state, reference, decay_target) = Tokens(*arguments[:6]), plan.group(arguments[6:])
        parts = list(_parts(len(tokens.q), _chunks_per_segment(len(tokens.q), state, plan.options)))
        y, starts, segment = torch.empty_like(tokens.v), [], None
        for part in parts:
            starts.append(state)
            at = reference if part is parts[0] else None
            segment, state = _forward_segment(plan, tokens, part, state, at, decay_target, y[part])
        ctx.plan, ctx.parts, ctx.starts, ctx.kept = plan, parts, starts, segment if len(parts) == 1 else None
        ctx.save_for_backward(*arguments)
        return y, *state

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_y: Tensor, *d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Run the segments in reverse order, recomputing each unless it is the only one."""
        with torch.autocast(d_y.device.type, enabled=False):
            return _run_backward(ctx, ctx.plan, ctx.saved_tensors, d_y, list(d_end))


def _run_backward(
    ctx: Any, plan: SegmentPlan, arguments: tuple[Tensor, ...], d_y: Tensor, d_state: StackedState
) -> tuple[Tensor | None, ...]:
    tokens, (_, reference, decay_target) = Tokens(*arguments[:6]), plan.group(arguments[6:])
    plan = plan._replace(stats=None)
    d_tokens = Tokens(*(torch.empty_like(x) for x in tokens))
    d_decay_target = [torch.zeros_like(w) for w in decay_target] if decay_target is not None else []
    d_reference = None
    for part, start in zip(reversed(ctx.parts), reversed(ctx.starts), strict=True):
        # Freed here, since a loss kept for logging keeps the graph alive; a second backward pass recomputes it.
        segment, ctx.kept = ctx.kept, None
        if segment is None:
            at = reference if part is ctx.parts[0] else None
            segment, _ = _forward_segment(plan, tokens, part, start, at, decay_target, torch.empty_like(tokens.v[part]))
        out = Tokens(*(x[part] for x in d_tokens))
        d_state, d_reference = _backward_segment(
            segment, d_y[part], d_state, decay_target, plan.options, out, d_decay_target
        )
    return None, *d_tokens, *d_state, *(d_reference or []), *d_decay_target


def _parts(count: int, size: int) -> Iterator[slice]:
    """Yield slices of `size` from 0 to `count`; the last one may be shorter."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _chunks_per_segment(chunks: int, state: StackedState, options: Options) -> int:
    """Return the chunks per segment: all while their states are small, otherwise about the square root of their number.

    With the square root, the kept states and those inside a segment take equal memory, which grows with the root of the
    sequence's length.
    """
    if options.checkpoint_every is not None:
        return options.checkpoint_every
    if torch.compiler.is_exporting():
        return chunks
    state_bytes = sum(m.numel() * m.element_size() for m in state)
    return max(1, chunks if chunks * state_bytes <= _KEEP_ALL_BYTES else ceil(sqrt(chunks)))


def _chunks_per_group(tokens: Tokens, state: StackedState) -> int:
    """Return the chunks per group: as many as fit the CPU's caches; on a GPU all, where launches dominate the cost."""
    count, heads, size, width = tokens.q.shape
    if (
        tokens.q.device.type != "cpu" or torch.compiler.is_exporting()
    ):  # an exported program must not depend on the batch size
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
    decay_target: list[Tensor] | None,
    y: Tensor,
) -> tuple[_Segment, StackedState]:
    """Write and read the chunks `part`; the outputs are stored in `y` (N, G, C, O)."""
    tokens, valid = Tokens(*(x[part] for x in tokens)), None if plan.valid is None else plan.valid[part]
    tables = DecayTables(*decay_tables(tokens.momentum, tokens.forget, valid))
    side_by_side = _side_by_side(state, plan.options)
    states = [_new_buffer(len(y) + 1, m, w) for m, w in zip(state, side_by_side, strict=True)]
    _copy_joint(state, [buffer[0] for buffer in states], side_by_side)
    groups, stats = [], []
    for chunks in _parts(len(y), _chunks_per_group(tokens, state)):
        buffers = [buffer[chunks.start : chunks.stop + 1] for buffer in states]
        at = reference if chunks.start == 0 else None
        of_chunks = Tokens(*(x[chunks] for x in tokens))
        group, y[chunks] = forward_group(
            of_chunks, tables.part(chunks), buffers, side_by_side, at, decay_target, plan.options
        )
        groups.append((chunks, group))
        if plan.stats is not None:
            stats.append(stats_of_group(group, of_chunks.lr, decay_target))
    if plan.stats is not None:
        plan.stats.append(stats)
    end = [torch.empty_like(m) for m in state]  # a view of the last state would keep the whole buffer alive
    _copy_joint(end, [buffer[-1] for buffer in states], side_by_side, back=True)
    return _Segment(tokens, valid, tables, side_by_side, groups), end


def _side_by_side(state: StackedState, options: Options) -> list[bool]:
    """Return for each layer whether W and S are concatenated along columns; online gradients require rows."""
    return [options.gradient == "chunk" and m.shape[-2] > 2 * m.shape[-1] for m in state]


def _new_buffer(count: int, m: Tensor, side_by_side: bool) -> Tensor:
    """Allocate a buffer for `count` matrices M, given one m (G, 2 I, O) in row layout."""
    heads, rows, columns = m.shape
    return (
        m.new_empty(count, heads, rows // 2, 2 * columns) if side_by_side else m.new_empty(count, heads, rows, columns)
    )


def _copy_joint(state: StackedState, joint: list[Tensor], side_by_side: list[bool], back: bool = False) -> None:
    """Copy W and S from row layout into M in the layout of `side_by_side`, or back."""
    for m, target, w in zip(state, joint, side_by_side, strict=True):
        for one, other in zip(halves(m, side_by_side=False), halves(target, w), strict=True):
            one.copy_(other) if back else other.copy_(one)


def _backward_segment(
    segment: _Segment,
    d_y: Tensor,
    d_state: StackedState,
    decay_target: list[Tensor] | None,
    options: Options,
    d_tokens: Tokens,
    d_decay_target: list[Tensor],
) -> tuple[StackedState, list[Tensor] | None]:
    """Gradients of the start state and of the reference; those of tokens and decay target go to the arguments."""
    tokens = segment.tokens
    longest = max(chunks.stop - chunks.start for chunks, _ in segment.groups)
    d_states = [_new_buffer(longest + 1, d, w) for d, w in zip(d_state, segment.side_by_side, strict=True)]
    d_end = [_new_buffer(1, d, w)[0] for d, w in zip(d_state, segment.side_by_side, strict=True)]
    _copy_joint(d_state, d_end, segment.side_by_side)
    d_table = torch.empty_like(segment.tables.weights)
    d_last_surprise = torch.empty_like(d_table[0])
    d_reference = None
    for chunks, group in reversed(segment.groups):
        buffers = [buffer[: chunks.stop - chunks.start + 1] for buffer in d_states]
        for buffer, d in zip(buffers, d_end, strict=True):
            buffer[-1] = d
        of_chunks = Tokens(*(x[chunks] for x in tokens))
        d_rows = d_table[:, chunks].movedim(0, -2)
        gradient = backward_group(group, of_chunks, d_y[chunks], buffers, d_rows, decay_target, options)
        d_end, d_reference = [buffer[0] for buffer in buffers], gradient.reference
        for out, piece in zip(d_tokens[:4], gradient.tokens[:4], strict=True):
            out[chunks] = piece
        d_last_surprise[chunks] = gradient.last_surprise
        for total, piece in zip(d_decay_target, gradient.decay_target, strict=True):
            total.add_(piece)
    d_tokens.momentum[:], d_tokens.forget[:] = decay_tables_backward(
        tokens.momentum, tokens.forget, segment.valid, segment.tables, d_table, d_last_surprise
    )
    d_start = [torch.empty_like(d) for d in d_state]
    _copy_joint(d_start, d_end, segment.side_by_side, back=True)
    return d_start, d_reference
