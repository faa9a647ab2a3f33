"""The memory of depth 2 on a GPU: launches of the kernels in `kernels_mlp`, and the autograd function around them.

Shape suffixes: T tokens, G = batch x heads, N tiles of a segment, C tokens of a tile, D and V a key's and a value's
features, E hidden units, M = E (D + V) the weights of a head. W1 and W2 go packed, one behind the other, and S the same
behind them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.kernels_mlp import (
    QUANTITIES,
    mlp_finish_backward,
    mlp_read,
    mlp_reads_backward,
    mlp_walk,
    mlp_walk_backward,
)
from titans_seq.ops.memory.options import Options
from titans_seq.ops.memory.pieces import Piece, Plan, cut_pieces
from titans_seq.ops.memory.scratch import Gradients, Scratch, Tables
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.tiles import CHUNK, MlpTiles
from titans_seq.ops.memory.tokens import Tokens


def mlp_memory(
    tokens: Tokens, initial: list[Tensor], state: MemoryState, options: Options
) -> tuple[Tensor, MemoryState]:
    """As `chunked_memory`, for what `backends.why_not_triton` has nothing against; tokens may be half precision."""
    assert isinstance(state.position, int), "elements at different places in their chunks are ragged"
    batch, length, heads, _ = tokens.q.shape
    if length == 0:
        return torch.zeros_like(tokens.v), state
    weights, surprise, reference = (_pack(group) for group in state[:3])
    tiles = MlpTiles.of(tokens.q.dtype, tokens.q.shape[-1], tokens.v.shape[-1], initial[0].shape[-1])
    plan = Plan(options, options.chunk_size, cut_pieces(length, options.chunk_size, state.position), tiles)
    anchor = None
    if options.forget_to == "initial":
        # W - W_initial forgets to zero; the kernels add W_initial where they read.
        anchor = _pack([w.expand(batch, *w.shape) for w in initial])
        weights, reference = weights - anchor, reference - anchor
    y, end, *opened = MlpMemory.apply(  # type: ignore[no-untyped-call]
        plan, anchor, *tokens, torch.cat([weights, surprise], dim=-1), reference
    )
    weights, surprise = end.chunk(2, dim=-1)
    if anchor is not None:
        weights, reference = weights + anchor, reference + anchor
    position = (state.position + length) % options.chunk_size
    if position == 0:
        reference = weights
    elif opened:
        (reference,) = opened
    shapes = [(batch, heads, *w.shape[1:]) for w in initial]
    return y, MemoryState(_unpack(weights, shapes), _unpack(surprise, shapes), _unpack(reference, shapes), position)


def _pack(layers: list[Tensor]) -> Tensor:
    """W1 and W2, (B, H, ...) each, one behind the other, (G, M)."""
    return torch.cat([w.flatten(0, 1).flatten(1) for w in layers], dim=-1)


def _unpack(packed: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """The opposite."""
    sizes = [shape[-2] * shape[-1] for shape in shapes]
    return [x.reshape(shape) for x, shape in zip(packed.split(sizes, dim=-1), shapes, strict=True)]


class MlpMemory(torch.autograd.Function):
    """Anchor (G, M), tokens, state (G, 2 M), reference (G, M) to outputs, the state, the weights that open a chunk.

    State and reference are without the anchor, if there is one; the last are with it.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, anchor: Tensor | None, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Segment after segment; the states between them are kept for the backward pass."""
        *inputs, state, reference = (x.contiguous() for x in arguments)
        launch = _Launches(plan, Tokens(*inputs), reference, anchor)
        y = torch.empty_like(launch.tokens.v)
        starts = []
        with torch.cuda.device_of(y):  # where Triton launches
            for segment in launch.segments:
                reference = reference if segment.begun else state[:, : launch.size].contiguous()
                starts.append((state, reference))
                scratch = launch.tables.prepare(segment)
                trace = launch.walk(segment, state, reference, scratch)
                launch.read(segment, trace, reference, scratch, y)
                state = trace.states[-1].clone()
        ctx.plan, ctx.starts = plan, starts
        ctx.save_for_backward(*inputs, anchor)
        if not plan.opens_chunk():
            return y, state
        return y, state, reference.clone() if anchor is None else reference + anchor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_state: Tensor, *d_opened: Tensor) -> tuple[Any, ...]:
        """Segment before segment, each walked forwards again for the states inside it."""
        *inputs, anchor = ctx.saved_tensors
        launch = _Launches(ctx.plan, Tokens(*inputs), ctx.starts[0][1], anchor)
        d_tokens = Tokens(*(torch.empty_like(x) for x in inputs))
        d_y = d_y.contiguous()
        d_reference = torch.zeros_like(launch.like)
        if d_opened:
            d_reference += d_opened[0]
        d_anchor = None if anchor is None else torch.zeros_like(anchor)
        with torch.cuda.device_of(d_y):
            for segment, (start, reference) in zip(reversed(launch.segments), reversed(ctx.starts), strict=True):
                scratch = launch.tables.prepare(segment)
                trace = launch.walk(segment, start, reference, scratch)
                partial = launch.reads_backward(segment, trace, reference, scratch, d_y, d_tokens.q)
                d_states = torch.empty_like(trace.states)
                d_states[-1] = d_state
                launch.walk_backward(
                    segment, trace, reference, scratch, d_y, partial, d_states, d_reference, d_anchor, d_tokens.v
                )
                launch.finish_backward(segment, trace, reference, scratch, partial, d_states, d_tokens)
                d_state = d_states[0].clone()
                if not segment.begun:  # what its first chunk has coming from segments after it
                    d_state[:, : launch.size] += d_reference
                    if d_anchor is not None:
                        d_anchor += d_reference
                    d_reference.zero_()
        if d_anchor is not None:  # which is in the weights of the chunk that came begun, too
            d_anchor += d_reference
        return None, d_anchor, *d_tokens, d_state, d_reference


class _Trace(NamedTuple):
    """What `mlp_walk` leaves for the backward pass of a segment."""

    states: Tensor  # at every tile's start, and at the end, (N + 1, G, 2 M)
    errors: Tensor  # (N, G, C, V)


class _Partial(NamedTuple):
    """Gradients that `mlp_reads_backward` begins with."""

    gradients: Gradients
    units: Tensor  # (N, G, QUANTITIES, C, E)
    d_keys: Tensor  # (N, G, C, D)
    d_errors: Tensor  # (N, G, C, V)


class _Launches:
    """The kernels on one call's tokens, a segment at a time; `like` is a W (G, M)."""

    def __init__(self, plan: Plan, tokens: Tokens, like: Tensor, anchor: Tensor | None) -> None:
        self.plan = plan
        self.tokens = tokens
        self.like = like
        self.anchor = anchor
        self.size = like.shape[-1]
        self.segments = plan.segments(like)
        assert isinstance(plan.cut, MlpTiles)
        self.tiles = plan.cut
        self.tables = Tables(plan, tokens, len(like), self.tiles)

    def walk(self, segment: Piece, start: Tensor, reference: Tensor, scratch: Scratch) -> _Trace:
        """The states of a segment, and its errors."""
        _, k, v, *_ = self.tokens
        count, states = scratch.writes.shape[:2]
        trace = _Trace(start.new_empty(count + 1, *start.shape), start.new_empty(count, states, CHUNK, v.shape[-1]))
        trace.states[0] = start
        mlp_walk[(states,)](
            k,
            v,
            scratch.shares,
            trace.states,
            reference,
            self.like if self.anchor is None else self.anchor,
            trace.errors,
            *self._place(segment),
            **self._settings("mlp_walk", segment),
        )
        return trace

    def read(self, segment: Piece, trace: _Trace, reference: Tensor, scratch: Scratch, y: Tensor) -> None:
        """The outputs, to `y`."""
        q, k, *_ = self.tokens
        mlp_read[scratch.writes.shape[:2]](
            q,
            k,
            scratch.shares,
            scratch.scores,
            scratch.writes,
            trace.states,
            reference,
            self.like if self.anchor is None else self.anchor,
            trace.errors,
            self.like.new_empty(*scratch.writes.shape[:2], CHUNK, self.tiles.hidden),
            y,
            *self.tables.place(segment),
            self.tiles.blocks("mlp_read"),
            **self._settings("mlp_read", segment),
        )

    def reads_backward(
        self, segment: Piece, trace: _Trace, reference: Tensor, scratch: Scratch, d_y: Tensor, d_q: Tensor
    ) -> _Partial:
        """The queries' gradients, to `d_q`, and others as far as they come through the reads."""
        q, k, v, *_ = self.tokens
        gradients = self.tables.gradients(segment)
        tiles = gradients.writes.shape[:2]
        widths = (q.shape[-1], v.shape[-1])
        d_keys, d_errors = (self.like.new_empty(*tiles, CHUNK, width) for width in widths)
        units = self.like.new_empty(*tiles, QUANTITIES.value, CHUNK, self.tiles.hidden)
        mlp_reads_backward[tiles](
            q,
            k,
            scratch.shares,
            scratch.scores,
            scratch.writes,
            trace.states,
            reference,
            self.like if self.anchor is None else self.anchor,
            trace.errors,
            d_y,
            units,
            d_q,
            d_keys,
            d_errors,
            gradients.shares,
            gradients.writes,
            *self.tables.place(segment),
            self.tiles.blocks("mlp_reads_backward"),
            **self._settings("mlp_reads_backward", segment),
        )
        return _Partial(gradients, units, d_keys, d_errors)

    def walk_backward(
        self,
        segment: Piece,
        trace: _Trace,
        reference: Tensor,
        scratch: Scratch,
        d_y: Tensor,
        partial: _Partial,
        d_states: Tensor,
        d_reference: Tensor,
        d_anchor: Tensor | None,
        d_v: Tensor,
    ) -> None:
        """The values' gradients, to `d_v`; those of reference and anchor change in place."""
        q, k, *_ = self.tokens
        mlp_walk_backward[(len(self.like),)](
            q,
            k,
            scratch.shares,
            trace.states,
            reference,
            self.like if self.anchor is None else self.anchor,
            trace.errors,
            d_y,
            partial.units,
            partial.d_errors,
            d_states,
            d_reference,
            d_reference if d_anchor is None else d_anchor,
            d_v,
            *self._place(segment),
            **self._settings("mlp_walk_backward", segment),
            FIRST_ORDER=self.plan.options.outer_gradient == "first_order",
        )

    def finish_backward(
        self,
        segment: Piece,
        trace: _Trace,
        reference: Tensor,
        scratch: Scratch,
        partial: _Partial,
        d_states: Tensor,
        d_tokens: Tokens,
    ) -> None:
        """The gradients of keys and gates, to `d_tokens`."""
        mlp_finish_backward[scratch.writes.shape[:2]](
            self.tokens.k,
            scratch.shares,
            trace.states,
            reference,
            self.like if self.anchor is None else self.anchor,
            trace.errors,
            partial.units,
            partial.d_keys,
            d_states,
            d_tokens.k,
            partial.gradients.shares,
            *self.tables.place(segment),
            self.tiles.blocks("mlp_finish_backward"),
            **self._settings("mlp_finish_backward", segment),
        )
        self.tables.gates_backward(segment, scratch, partial.gradients, d_tokens[3:])

    def _place(self, segment: Piece) -> tuple[int, ...]:
        """The kernels' arguments heads, sequence, first, stop, size, parts, count, blocks."""
        return *self.tables.place(segment), self.plan.count(segment), self.tiles.blocks("mlp_walk")

    def _settings(self, kernel: str, segment: Piece) -> dict[str, Any]:
        return {
            **self.tiles.settings(kernel),
            "ACT": self.plan.options.activation,
            "AT": self.plan.at(segment),
            "ANCHOR": self.anchor is not None,
        }
