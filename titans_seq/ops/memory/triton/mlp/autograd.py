"""Memory of depth 2 on a GPU: the autograd function around the kernels.

Shape suffixes: T tokens, G = batch x heads, N tiles of a segment, C tokens of a tile, D and V a key's and a value's
features, E hidden units, M = E (D + V) the weights of a head. W1 and W2 are flattened and concatenated, followed by
S in the same layout.
"""

from typing import Any

import torch
from torch import Tensor

from titans_seq.ops.differentiation import first_derivative_only
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.configs import MlpTiles
from titans_seq.ops.memory.triton.mlp.launch import MlpLaunches
from titans_seq.ops.memory.triton.plan import LaunchPlan, split_at_chunks


def mlp_memory(
    tokens: Tokens, initial: list[Tensor], state: MemoryState, options: Options
) -> tuple[Tensor, MemoryState]:
    """`chunked_memory` for calls that `backends.why_not_triton` supports; tokens may be half precision."""
    assert isinstance(state.position, int), "one position per batch element requires packed_memory"
    batch, length, heads, _ = tokens.q.shape
    if length == 0:
        return torch.zeros_like(tokens.v), state
    weights, surprise, reference = (_pack(group) for group in state[:3])
    tiles = MlpTiles.of(tokens.q.dtype, tokens.q.shape[-1], tokens.v.shape[-1], initial[0].shape[-1])
    plan = LaunchPlan(options, options.chunk_size, split_at_chunks(length, options.chunk_size, state.position), tiles)
    decay_target = None
    if options.forget_to == "initial":
        # W - W_initial decays to zero; the kernels add W_initial where they read.
        decay_target = _pack([w.expand(batch, *w.shape) for w in initial])
        weights, reference = weights - decay_target, reference - decay_target
    y, end, *partial_start = MlpMemory.apply(  # type: ignore[no-untyped-call]
        plan, decay_target, *tokens, torch.cat([weights, surprise], dim=-1), reference
    )
    weights, surprise = end.chunk(2, dim=-1)
    if decay_target is not None:
        weights, reference = weights + decay_target, reference + decay_target
    position = (state.position + length) % options.chunk_size
    if position == 0:
        reference = weights
    elif partial_start:
        (reference,) = partial_start
    shapes = [(batch, heads, *w.shape[1:]) for w in initial]
    return y, MemoryState(_unpack(weights, shapes), _unpack(surprise, shapes), _unpack(reference, shapes), position)


def _pack(layers: list[Tensor]) -> Tensor:
    """Flatten and concatenate W1 and W2, (B, H, ...) each, to (G, M)."""
    return torch.cat([w.flatten(0, 1).flatten(1) for w in layers], dim=-1)


def _unpack(packed: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Invert `_pack`."""
    sizes = [shape[-2] * shape[-1] for shape in shapes]
    return [x.reshape(shape) for x, shape in zip(packed.split(sizes, dim=-1), shapes, strict=True)]


class MlpMemory(torch.autograd.Function):
    """Map decay target (G, M), tokens, state (G, 2 M), reference (G, M) to outputs, state, a partial chunk's start.

    State and reference are relative to the decay target, if there is one; the partial chunk's start is absolute.
    """

    @staticmethod
    def forward(ctx: Any, plan: LaunchPlan, decay_target: Tensor | None, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Run the segments in order; the states between them are kept for the backward pass."""
        *inputs, state, reference = (x.contiguous() for x in arguments)
        launch = MlpLaunches(plan, Tokens(*inputs), reference, decay_target)
        y = torch.empty_like(launch.tokens.v)
        starts = []
        with torch.cuda.device_of(y):  # Triton launches on the current device
            for segment in launch.segments:
                reference = reference if segment.continues_chunk else state[:, : launch.size].contiguous()
                starts.append((state, reference))
                scratch = launch.tables.prepare(segment)
                trace = launch.scan(segment, state, reference, scratch)
                launch.read(segment, trace, reference, scratch, y)
                state = trace.states[-1].clone()
        ctx.plan, ctx.starts = plan, starts
        ctx.save_for_backward(*inputs, decay_target)
        if not plan.ends_in_partial_chunk():
            return y, state
        return y, state, reference.clone() if decay_target is None else reference + decay_target

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_y: Tensor, d_state: Tensor, *d_partial_start: Tensor) -> tuple[Any, ...]:
        """Run the segments in reverse order, scanning each forward again for the states inside it."""
        *inputs, decay_target = ctx.saved_tensors
        launch = MlpLaunches(ctx.plan, Tokens(*inputs), ctx.starts[0][1], decay_target)
        d_tokens = Tokens(*(torch.empty_like(x) for x in inputs))
        d_y = d_y.contiguous()
        d_reference = torch.zeros_like(launch.like)
        if d_partial_start:
            d_reference += d_partial_start[0]
        d_decay_target = None if decay_target is None else torch.zeros_like(decay_target)
        with torch.cuda.device_of(d_y):
            for segment, (start, reference) in zip(reversed(launch.segments), reversed(ctx.starts), strict=True):
                scratch = launch.tables.prepare(segment)
                trace = launch.scan(segment, start, reference, scratch)
                partial = launch.reads_backward(segment, trace, reference, scratch, d_y, d_tokens.q)
                d_states = torch.empty_like(trace.states)
                d_states[-1] = d_state
                launch.scan_backward(
                    segment, trace, reference, scratch, d_y, partial, d_states, d_reference, d_decay_target, d_tokens.v
                )
                launch.finish_backward(segment, trace, reference, scratch, partial, d_states, d_tokens)
                d_state = d_states[0].clone()
                if not segment.continues_chunk:  # add the gradients of its first chunk's start from later segments
                    d_state[:, : launch.size] += d_reference
                    if d_decay_target is not None:
                        d_decay_target += d_reference
                    d_reference.zero_()
        if d_decay_target is not None:  # also part of the weights of a chunk that continues from an earlier call
            d_decay_target += d_reference
        return None, d_decay_target, *d_tokens, d_state, d_reference
