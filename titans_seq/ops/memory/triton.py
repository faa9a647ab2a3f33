"""The matrix memory on a GPU: launches of the kernels in `kernels`, and the autograd function around them.

Importing this file imports Triton, so the op does it when the kernels are first wanted. Shape suffixes: T tokens, G =
batch x heads, N tiles of a segment, C tokens of a tile, D and V a key's and a value's features.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.kernels import matrix_finish_backward, matrix_walk, matrix_walk_backward
from titans_seq.ops.memory.options import Options
from titans_seq.ops.memory.pieces import Piece, Plan, cut_pieces
from titans_seq.ops.memory.scratch import Scratch, Tables
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.tiles import CHUNK, Tiles
from titans_seq.ops.memory.tokens import Tokens
from titans_seq.ops.memory.triton_mlp import mlp_memory

State = tuple[Tensor, Tensor]  # W and S (G, D, V), float32


def triton_memory(
    tokens: Tokens, initial: list[Tensor], state: MemoryState, options: Options
) -> tuple[Tensor, MemoryState]:
    """As `chunked_memory`, for what `backends.why_not_triton` has nothing against; tokens may be half precision."""
    if len(initial) > 1:
        return mlp_memory(tokens, initial, state, options)
    assert isinstance(state.position, int), "elements at different places in their chunks are ragged"
    batch, length, heads, _ = tokens.q.shape
    if length == 0:
        return torch.zeros_like(tokens.v), state
    online = options.gradient == "online"  # knows no chunks: any cut will do
    chunk_size = min(options.chunk_size, CHUNK) if online else options.chunk_size
    position = 0 if online else state.position
    weights, surprise, reference = (group[0] for group in state[:3])
    anchor = initial[0] if options.forget_to == "initial" else None
    if anchor is not None:
        # W - W_initial forgets to zero, if W_initial's part is taken from the values and added to the outputs.
        tokens = tokens._replace(v=tokens.v.float() - _read(anchor, tokens.k))
        weights, reference = weights - anchor, reference - anchor

    plan = Plan(options, chunk_size, cut_pieces(length, chunk_size, position))
    flat = (w.flatten(0, 1) for w in (weights, surprise, reference))
    y, *ends = MatrixMemory.apply(plan, *tokens, *flat)  # type: ignore[no-untyped-call]
    weights, surprise, *opened = (w.unflatten(0, (batch, heads)) for w in ends)

    position = 0 if online else (position + length) % chunk_size
    if anchor is not None:
        y = y + _read(anchor, tokens.q)
        weights, reference, opened = weights + anchor, reference + anchor, [w + anchor for w in opened]
    if position == 0:
        reference = weights
    elif opened:
        (reference,) = opened
    return y, MemoryState([weights], [surprise], [reference], position)


def _read(weights_HIO: Tensor, x_BTHI: Tensor) -> Tensor:
    return torch.einsum("bthi,hio->btho", x_BTHI.float(), weights_HIO)


class MatrixMemory(torch.autograd.Function):
    """Tokens and W, S, reference (G, D, V) to outputs (B, T, H, V), W and S at the end, and an open chunk's start."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Segment after segment; the states between them are kept for the backward pass."""
        *inputs, weights, surprise, reference = (x.contiguous() for x in arguments)
        state = (weights, surprise)
        launch = _Launches(plan, Tokens(*inputs), reference)
        y = torch.empty_like(launch.tokens.v)
        starts = []
        with torch.cuda.device_of(y):  # where Triton launches
            for segment in launch.segments:
                reference = reference if segment.begun else state[0]
                starts.append((state, reference))
                state = launch.walk(segment, state, reference, launch.tables.prepare(segment), y=y)
        ctx.plan, ctx.starts = plan, starts
        ctx.save_for_backward(*inputs)
        return (y, *state, reference.clone()) if plan.opens_chunk() else (y, *state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_weights: Tensor, d_surprise: Tensor, *d_opened: Tensor) -> tuple[Any, ...]:
        """Segment before segment, each walked forwards again for the states inside it."""
        inputs = ctx.saved_tensors
        launch = _Launches(ctx.plan, Tokens(*inputs), d_weights)
        d_tokens = Tokens(*(torch.empty_like(x) for x in inputs))
        d_reference = torch.zeros_like(d_weights) if not d_opened else d_opened[0].clone()
        d_reference = d_reference.contiguous()
        d_y, d_state = d_y.contiguous(), (d_weights.contiguous(), d_surprise.contiguous())
        with torch.cuda.device_of(d_y):
            for segment, (start, reference) in zip(reversed(launch.segments), reversed(ctx.starts), strict=True):
                scratch, trace = launch.tables.prepare(segment), launch.trace(segment)
                launch.walk(segment, start, reference, scratch, trace=trace)
                d_ends = torch.empty_like(trace.states)
                d_state = launch.walk_backward(segment, scratch, d_y, d_state, d_tokens.v, d_ends, d_reference)
                launch.finish_backward(segment, scratch, trace, reference, d_y, d_ends, d_tokens)
                if not segment.begun:  # what its first chunk has coming from segments after it
                    d_state = (d_state[0] + d_reference, d_state[1])
                    d_reference.zero_()
        return None, *d_tokens, *d_state, d_reference


class _Trace(NamedTuple):
    """What `matrix_walk` leaves for the backward pass of a segment."""

    states: Tensor  # W and S at every tile's start, (N, 2, G, D, V)
    errors: Tensor  # (N, G, C, V)


class _Launches:
    """The kernels on one call's tokens, a segment at a time; `like` is a W (G, D, V)."""

    def __init__(self, plan: Plan, tokens: Tokens, like: Tensor) -> None:
        self.plan = plan
        self.tokens = tokens
        self.like = like
        self.segments = plan.segments(like)
        _, head_dim, value_dim = like.shape
        online = plan.options.gradient == "online"
        self.tiles = Tiles.of(tokens.q.dtype, head_dim, value_dim, online)
        self.tables = Tables(plan, tokens, len(like), self.tiles)
        self.first_order = plan.options.outer_gradient == "first_order"

    def trace(self, segment: Piece) -> _Trace:
        """Room for one."""
        tiles, (heads, head_dim, value_dim) = self.plan.count(segment), self.like.shape
        states = self.like.new_empty(tiles, 2, heads, head_dim, value_dim)
        return _Trace(states, self.like.new_empty(tiles, heads, CHUNK, value_dim))

    def walk(
        self,
        segment: Piece,
        start: State,
        reference: Tensor,
        scratch: Scratch,
        y: Tensor | None = None,
        trace: _Trace | None = None,
    ) -> State:
        """The state after a segment; outputs go to `y`, and what the backward pass needs to `trace`, if wanted."""
        q, k, v, *_ = self.tokens
        end = (torch.empty_like(start[0]), torch.empty_like(start[1]))
        matrix_walk[len(self.like), self.tiles.blocks](
            q,
            k,
            v,
            scratch.shares,
            scratch.scores,
            scratch.inverse,
            *start,
            reference,
            v if y is None else y,
            *(start if trace is None else trace),
            *end,
            *self.tables.place(segment),
            self.plan.count(segment),
            **self.tiles.settings("matrix_walk"),
            AT=self.plan.at(segment),
            READ=y is not None,
            KEEP=trace is not None,
        )
        return end

    def walk_backward(
        self,
        segment: Piece,
        scratch: Scratch,
        d_y: Tensor,
        d_end: State,
        d_v: Tensor,
        d_ends: Tensor,
        d_reference: Tensor,
    ) -> State:
        """The gradient of the state before a segment; `d_v`, `d_ends` and `d_reference` take what their names say."""
        d_start = (torch.empty_like(d_end[0]), torch.empty_like(d_end[1]))
        matrix_walk_backward[len(self.like), self.tiles.blocks](
            self.tokens.q,
            self.tokens.k,
            scratch.shares,
            scratch.scores,
            scratch.inverse,
            d_y,
            *d_end,
            d_v,
            d_ends,
            *d_start,
            d_reference,
            *self.tables.place(segment),
            self.plan.count(segment),
            **self.tiles.settings("matrix_walk_backward"),
            AT=self.plan.at(segment),
            FIRST_ORDER=self.first_order,
        )
        return d_start

    def finish_backward(
        self,
        segment: Piece,
        scratch: Scratch,
        trace: _Trace,
        reference: Tensor,
        d_y: Tensor,
        d_ends: Tensor,
        d_tokens: Tokens,
    ) -> None:
        """The other gradients of a segment's tokens, to `d_tokens`, whose values' gradients are there already."""
        q, k, *_ = self.tokens
        d_q, d_k, d_v, *d_gates = d_tokens
        settings = self.tiles.settings("matrix_finish_backward")
        gradients = self.tables.gradients(segment)
        matrix_finish_backward[self.plan.count(segment), len(self.like)](
            q,
            k,
            scratch.shares,
            scratch.writes,
            scratch.past,
            *trace,
            reference,
            d_y,
            d_v,
            d_ends,
            d_q,
            d_k,
            *gradients,
            *self.tables.place(segment),
            settings["D_V"] // settings["V"],
            **settings,
            AT=self.plan.at(segment),
            FIRST_ORDER=self.first_order,
        )
        self.tables.gates_backward(segment, scratch, gradients, d_gates)
