"""The matrix memory on a GPU: launches of the kernels in `kernels`, and the autograd function around them.

Importing this file imports Triton, so the op does it when the kernels are first wanted. Shape suffixes: T tokens, G =
batch x heads, N tiles of a segment, C tokens of a tile, D and V a key's and a value's features.
"""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.kernels import (
    SHARES,
    matrix_finish_backward,
    matrix_prepare,
    matrix_walk,
    matrix_walk_backward,
)
from titans_seq.ops.memory.options import Options
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.tiles import CHUNK, Tiles
from titans_seq.ops.memory.tokens import Tokens

# Of the states at the starts of a segment's tiles. So many fill a GPU, whatever the length.
_SEGMENT_BYTES = 128 * 2**20

State = tuple[Tensor, Tensor]  # W and S (G, D, V), float32


def triton_memory(
    tokens: Tokens, initial: list[Tensor], state: MemoryState, options: Options
) -> tuple[Tensor, MemoryState]:
    """As `chunked_memory`, for what `backends.why_not_triton` has nothing against; tokens may be half precision."""
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

    plan = Plan(options, chunk_size, _pieces(length, chunk_size, position))
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


class Piece(NamedTuple):
    """Some tokens in a row: whole chunks, or a part of one."""

    first: int  # token
    stop: int
    begun: bool  # part of a chunk that began before it, and that takes its gradients there


def _pieces(length: int, chunk_size: int, position: int) -> list[Piece]:
    """The rest of an open chunk, the whole chunks, and what is left over, which opens a chunk."""
    head = min(-position % chunk_size, length)
    whole = head + (length - head) // chunk_size * chunk_size
    cuts = [Piece(0, head, begun=True), Piece(head, whole, begun=False), Piece(whole, length, begun=False)]
    return [piece for piece in cuts if piece.stop > piece.first]


class Plan(NamedTuple):
    """The arguments of `MatrixMemory` that are no tensors."""

    options: Options
    chunk_size: int
    pieces: list[Piece]

    @property
    def parts(self) -> int:
        """Tiles of a chunk."""
        return ceil(self.chunk_size / CHUNK)

    def tiles(self, piece: Piece) -> int:
        """How many a piece has, all of whose chunks but the last are whole."""
        whole, rest = divmod(piece.stop - piece.first, self.chunk_size)
        return whole * self.parts + ceil(rest / CHUNK)

    def at(self, piece: Piece) -> str:
        """Where a piece's gradients are taken, as the kernels call it."""
        return "given" if piece.begun else "chunk" if self.parts > 1 else "tile"

    def opens_chunk(self) -> bool:
        """Whether a chunk begins in this call and does not end in it."""
        last = self.pieces[-1]
        return not last.begun and self.options.gradient == "chunk" and (last.stop - last.first) % self.chunk_size > 0

    def segments(self, weights: Tensor) -> Iterator[Piece]:
        """The pieces, cut so that the states inside a segment and those between segments take little room."""
        state_bytes = 2 * weights.numel() * weights.element_size()
        for piece in self.pieces:
            most = max(ceil(sqrt(self.tiles(piece))), _SEGMENT_BYTES // state_bytes)
            chunks = self.options.checkpoint_every or most // self.parts
            size = chunks * self.chunk_size or most * CHUNK  # long chunks are cut, too
            for first in range(piece.first, piece.stop, size):
                begun = piece.begun or (size < self.chunk_size and first > piece.first)
                yield Piece(first, min(first + size, piece.stop), begun)


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
                state = launch.walk(segment, state, reference, launch.prepare(segment), y=y)
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
                scratch, trace = launch.prepare(segment), launch.trace(segment)
                launch.walk(segment, start, reference, scratch, trace=trace)
                d_ends = torch.empty_like(trace.states)
                d_state = launch.walk_backward(segment, scratch, d_y, d_state, d_tokens.v, d_ends, d_reference)
                launch.finish_backward(segment, scratch, trace, reference, d_y, d_ends, d_tokens)
                if not segment.begun:  # what its first chunk has coming from segments after it
                    d_state = (d_state[0] + d_reference, d_state[1])
                    d_reference.zero_()
        return None, *d_tokens, *d_state, d_reference


class _Scratch(NamedTuple):
    """What `matrix_prepare` leaves for a segment."""

    shares: Tensor  # (N, G, SHARES, C)
    scores: Tensor  # (N, G, C, C)
    inverse: Tensor  # the same, for online gradients


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
        self.segments = list(plan.segments(like))
        _, head_dim, value_dim = like.shape
        online = plan.options.gradient == "online"
        self.tiles = Tiles.of(tokens.q.dtype, head_dim, value_dim, online)
        self.first_order = plan.options.outer_gradient == "first_order"

    def _place(self, segment: Piece) -> tuple[int, ...]:
        """The kernels' arguments heads, sequence, first, stop, size, parts."""
        _, sequence, heads, _ = self.tokens.q.shape
        # What is begun is all of one chunk, tile after tile.
        parts = self.plan.tiles(segment) if segment.begun else self.plan.parts
        return heads, sequence, segment.first, segment.stop, self.plan.chunk_size, parts

    def prepare(self, segment: Piece) -> _Scratch:
        """What of a segment does not depend on the memory."""
        q, k, _, *gates = self.tokens
        tiles, heads = self.plan.tiles(segment), len(self.like)
        shares = self.like.new_empty(tiles, heads, SHARES.value, CHUNK)
        scores = self.like.new_empty(tiles, heads, CHUNK, CHUNK, dtype=self.tiles.operand)
        inverse = shares.new_empty(scores.shape) if self.tiles.online else shares
        matrix_prepare[tiles, heads](
            q, k, *gates, shares, scores, inverse, *self._place(segment), **self.tiles.settings("matrix_prepare")
        )
        return _Scratch(shares, scores, inverse)

    def trace(self, segment: Piece) -> _Trace:
        """Room for one."""
        tiles, (heads, head_dim, value_dim) = self.plan.tiles(segment), self.like.shape
        states = self.like.new_empty(tiles, 2, heads, head_dim, value_dim)
        return _Trace(states, self.like.new_empty(tiles, heads, CHUNK, value_dim))

    def walk(
        self,
        segment: Piece,
        start: State,
        reference: Tensor,
        scratch: _Scratch,
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
            *scratch,
            *start,
            reference,
            v if y is None else y,
            *(start if trace is None else trace),
            *end,
            *self._place(segment),
            self.plan.tiles(segment),
            **self.tiles.settings("matrix_walk"),
            AT=self.plan.at(segment),
            READ=y is not None,
            KEEP=trace is not None,
        )
        return end

    def walk_backward(
        self,
        segment: Piece,
        scratch: _Scratch,
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
            *scratch,
            d_y,
            *d_end,
            d_v,
            d_ends,
            *d_start,
            d_reference,
            *self._place(segment),
            self.plan.tiles(segment),
            **self.tiles.settings("matrix_walk_backward"),
            AT=self.plan.at(segment),
            FIRST_ORDER=self.first_order,
        )
        return d_start

    def finish_backward(
        self,
        segment: Piece,
        scratch: _Scratch,
        trace: _Trace,
        reference: Tensor,
        d_y: Tensor,
        d_ends: Tensor,
        d_tokens: Tokens,
    ) -> None:
        """The other gradients of a segment's tokens, to `d_tokens`, whose values' gradients are there already."""
        q, k, _, *gates = self.tokens
        d_q, d_k, d_v, *d_gates = d_tokens
        settings = self.tiles.settings("matrix_finish_backward")
        matrix_finish_backward[self.plan.tiles(segment), len(self.like)](
            q,
            k,
            *gates,
            scratch.shares,
            *trace,
            reference,
            d_y,
            d_v,
            d_ends,
            d_q,
            d_k,
            *d_gates,
            *self._place(segment),
            settings["D_V"] // settings["V"],
            **settings,
            AT=self.plan.at(segment),
            FIRST_ORDER=self.first_order,
        )
