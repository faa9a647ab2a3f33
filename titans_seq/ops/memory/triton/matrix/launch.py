"""Launches of the kernels of the matrix memory, a segment at a time. Shape suffixes as in `autograd`."""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.arguments import Tokens
from titans_seq.ops.memory.triton.configs import CHUNK, Tiles
from titans_seq.ops.memory.triton.gates import GateKernels, Scratch
from titans_seq.ops.memory.triton.matrix.kernels import matrix_finish_backward, matrix_walk, matrix_walk_backward
from titans_seq.ops.memory.triton.plan import LaunchPlan, TokenRange

MatrixState = tuple[Tensor, Tensor]  # W and S (G, D, V), float32


class SegmentStart(NamedTuple):
    """Start of a segment, kept for the backward pass."""

    state: MatrixState
    reference: Tensor  # W at the start of the segment's first chunk


def scan_forward(
    plan: LaunchPlan, tokens: Tokens, state: MatrixState, reference: Tensor
) -> tuple[Tensor, MatrixState, list[SegmentStart]]:
    """Return outputs, the state at the end, and the segments' starts.

    `reference`: the weights at the start of a chunk that continues from an earlier call.
    """
    launch = MatrixLaunches(plan, tokens, reference)
    y = torch.empty_like(tokens.v)
    starts = []
    with torch.cuda.device_of(y):  # Triton launches on the current device
        for segment in launch.segments:
            reference = reference if segment.continues_chunk else state[0]
            starts.append(SegmentStart(state, reference))
            state = launch.scan(segment, state, reference, launch.tables.prepare(segment), y=y)
    return y, state, starts


def scan_backward(
    plan: LaunchPlan, tokens: Tokens, starts: list[SegmentStart], d_y: Tensor, d_state: MatrixState, d_reference: Tensor
) -> tuple[Tokens, MatrixState]:
    """Gradients of tokens and of the state, segment by segment in reverse order, each scanned forward again first.

    `d_reference` holds the gradient of a partial chunk's start at the end, and receives that of a chunk that continues
    from an earlier call.
    """
    launch = MatrixLaunches(plan, tokens, d_reference)
    d_tokens = Tokens(*(torch.empty_like(x) for x in tokens))
    with torch.cuda.device_of(d_y):
        for segment, (start, reference) in zip(reversed(launch.segments), reversed(starts), strict=True):
            scratch, trace = launch.tables.prepare(segment), launch.trace(segment)
            launch.scan(segment, start, reference, scratch, trace=trace)
            d_ends = torch.empty_like(trace.states)
            d_state = launch.scan_backward(segment, scratch, d_y, d_state, d_tokens.v, d_ends, d_reference)
            launch.finish_backward(segment, scratch, trace, reference, d_y, d_ends, d_tokens)
            if not segment.continues_chunk:  # add the gradients of its first chunk's start from later segments
                d_state = (d_state[0] + d_reference, d_state[1])
                d_reference.zero_()
    return d_tokens, d_state


def states_backward(plan: LaunchPlan, tokens: Tokens, d_y: Tensor, d_state: MatrixState) -> MatrixState:
    """Gradients of the state only, for whole chunks."""
    launch = MatrixLaunches(plan, tokens, d_state[0])
    d_v, d_reference = torch.empty_like(tokens.v), torch.zeros_like(d_state[0])
    with torch.cuda.device_of(d_y):
        for segment in reversed(launch.segments):
            d_ends = launch.trace(segment).states
            scratch = launch.tables.prepare(segment)
            d_state = launch.scan_backward(segment, scratch, d_y, d_state, d_v, d_ends, d_reference)
            if not segment.continues_chunk:
                d_state = (d_state[0] + d_reference, d_state[1])
                d_reference.zero_()
    return d_state


class Trace(NamedTuple):
    """Outputs of `matrix_walk` for the backward pass of a segment."""

    states: Tensor  # W and S at every tile's start, (N, 2, G, D, V)
    errors: Tensor  # (N, G, C, V)


class MatrixLaunches:
    """Kernel launches on one call's tokens, a segment at a time; `like` is a W (G, D, V)."""

    def __init__(self, plan: LaunchPlan, tokens: Tokens, like: Tensor) -> None:
        self.plan = plan
        self.tokens = tokens
        self.like = like
        self.segments = plan.segments(like)
        assert isinstance(plan.tiles, Tiles)
        self.tiles = plan.tiles
        self.tables = GateKernels(plan, tokens, len(like), self.tiles)
        self.first_order = plan.options.outer_gradient == "first_order"

    def trace(self, segment: TokenRange) -> Trace:
        """Allocate the trace of a segment."""
        tiles, (heads, head_dim, value_dim) = self.plan.count(segment), self.like.shape
        states = self.like.new_empty(tiles, 2, heads, head_dim, value_dim)
        return Trace(states, self.like.new_empty(tiles, heads, CHUNK, value_dim))

    def scan(
        self,
        segment: TokenRange,
        start: MatrixState,
        reference: Tensor,
        scratch: Scratch,
        y: Tensor | None = None,
        trace: Trace | None = None,
    ) -> MatrixState:
        """Return the state after a segment; outputs are written to `y`, values for the backward pass to `trace`."""
        q, k, v, *_ = self.tokens
        end = (torch.empty_like(start[0]), torch.empty_like(start[1]))
        matrix_walk[len(self.like), self.tiles.blocks](
            q,
            k,
            v,
            scratch.coefficients,
            scratch.scores,
            scratch.inverse,
            *start,
            reference,
            v if y is None else y,
            *(start if trace is None else trace),
            *end,
            *self.tables.kernel_arguments(segment),
            self.plan.count(segment),
            **self.tiles.settings("matrix_walk"),
            AT=self.plan.at(segment),
            READ=y is not None,
            KEEP=trace is not None,
        )
        return end

    def scan_backward(
        self,
        segment: TokenRange,
        scratch: Scratch,
        d_y: Tensor,
        d_end: MatrixState,
        d_v: Tensor,
        d_ends: Tensor,
        d_reference: Tensor,
    ) -> MatrixState:
        """Return the gradient of the state before a segment; write those of v, tile ends and reference in place."""
        d_start = (torch.empty_like(d_end[0]), torch.empty_like(d_end[1]))
        matrix_walk_backward[len(self.like), self.tiles.blocks](
            self.tokens.q,
            self.tokens.k,
            scratch.coefficients,
            scratch.scores,
            scratch.inverse,
            d_y,
            *d_end,
            d_v,
            d_ends,
            *d_start,
            d_reference,
            *self.tables.kernel_arguments(segment),
            self.plan.count(segment),
            **self.tiles.settings("matrix_walk_backward"),
            AT=self.plan.at(segment),
            FIRST_ORDER=self.first_order,
        )
        return d_start

    def finish_backward(
        self,
        segment: TokenRange,
        scratch: Scratch,
        trace: Trace,
        reference: Tensor,
        d_y: Tensor,
        d_ends: Tensor,
        d_tokens: Tokens,
    ) -> None:
        """Write the remaining gradients of a segment to `d_tokens`, which already contains those of v."""
        q, k, *_ = self.tokens
        d_q, d_k, d_v, *d_gates = d_tokens
        settings = self.tiles.settings("matrix_finish_backward")
        gradients = self.tables.gradients(segment)
        matrix_finish_backward[self.plan.count(segment), len(self.like)](
            q,
            k,
            scratch.coefficients,
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
            *self.tables.kernel_arguments(segment),
            settings["D_V"] // settings["V"],
            **settings,
            AT=self.plan.at(segment),
            FIRST_ORDER=self.first_order,
        )
        self.tables.gates_backward(segment, scratch, gradients, d_gates)
