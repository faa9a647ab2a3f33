"""The memory of depth 2 on a GPU: launches of the kernels in `kernels_mlp`, and the autograd function around them.

Shape suffixes: T tokens, G = batch x heads, N tiles of a segment, C tokens of a tile, D and V a key's and a value's
features, E hidden units, M = E (D + V) the weights of a head. W1 and W2 go packed, one behind the other, and S the same
behind them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.configs import MlpTiles
from titans_seq.ops.memory.triton.mlp.launch import MlpLaunches
from titans_seq.ops.memory.triton.plan import LaunchPlan, split_at_chunks


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
    plan = LaunchPlan(options, options.chunk_size, split_at_chunks(length, options.chunk_size, state.position), tiles)
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
    def forward(ctx: Any, plan: LaunchPlan, anchor: Tensor | None, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Segment after segment; the states between them are kept for the backward pass."""
        *inputs, state, reference = (x.contiguous() for x in arguments)
        launch = MlpLaunches(plan, Tokens(*inputs), reference, anchor)
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
        launch = MlpLaunches(ctx.plan, Tokens(*inputs), ctx.starts[0][1], anchor)
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
                launch.scan_backward(
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
