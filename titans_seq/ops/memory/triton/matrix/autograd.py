"""Matrix memory on a GPU: the autograd function around the kernels in `kernels`.

Importing this file imports Triton, so the op imports it only when the kernels are first used.

Shape suffixes: T tokens, G = batch x heads, N tiles of a segment, C tokens of a tile, D and V a key's and a value's
features.
"""

from typing import Any

import torch
from torch import Tensor

from titans_seq.ops.differentiation import first_derivative_only
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.autotune import fastest
from titans_seq.ops.memory.triton.configs import CHUNK, Tiles
from titans_seq.ops.memory.triton.matrix.launch import scan_backward, scan_forward
from titans_seq.ops.memory.triton.matrix.parallel_scan import ParallelMatrixMemory, cut_for_parallel_scan
from titans_seq.ops.memory.triton.plan import LaunchPlan, TokenRange, split_at_chunks


def matrix_memory(
    tokens: Tokens, initial: list[Tensor], state: MemoryState, options: Options
) -> tuple[Tensor, MemoryState]:
    """`chunked_memory` for calls that `backends.why_not_triton` supports; tokens may be half precision."""
    assert isinstance(state.position, int), "one position per batch element requires packed_memory"
    batch, length, heads, _ = tokens.q.shape
    if length == 0:
        return torch.zeros_like(tokens.v), state
    online = options.gradient == "online"  # does not depend on the chunks: any split is valid
    chunk_size = min(options.chunk_size, CHUNK) if online else options.chunk_size
    position = 0 if online else state.position
    weights, surprise, reference = (group[0] for group in state[:3])
    decay_target = initial[0] if options.forget_to == "initial" else None
    if decay_target is not None:
        # W - W_initial decays to zero if K W_initial is subtracted from values and Q W_initial added to outputs.
        tokens = tokens._replace(v=tokens.v.float() - _read(decay_target, tokens.k))
        weights, reference = weights - decay_target, reference - decay_target

    flat = [w.flatten(0, 1) for w in (weights, surprise, reference)]
    outputs, partial_start = [], []
    tiles = choose_tiles(tokens, online)
    cuts = cut_for_parallel_scan(tokens, options, tiles, chunk_size, position)
    for cut in cuts:
        part = Tokens(*(x[:, cut.first : cut.stop] for x in tokens)) if len(cuts) > 1 else tokens
        size = cut.stop - cut.first
        if cut.splits > 1:
            plan = LaunchPlan(options, chunk_size, [TokenRange(0, size // cut.splits, continues_chunk=False)], tiles)
            results = ParallelMatrixMemory.apply(plan, cut.splits, *part, *flat[:2])  # type: ignore[no-untyped-call]
        else:
            plan = LaunchPlan(options, chunk_size, split_at_chunks(size, chunk_size, position), tiles)
            results = MatrixMemory.apply(plan, *part, *flat)  # type: ignore[no-untyped-call]
        outputs.append(results[0])
        flat, partial_start = [*results[1:3], flat[2]], results[3:]
        position = 0 if online else (position + size) % chunk_size
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    weights, surprise, *partial_start = (w.unflatten(0, (batch, heads)) for w in (*flat[:2], *partial_start))

    if decay_target is not None:
        y = y + _read(decay_target, tokens.q)
        weights, reference, partial_start = (
            weights + decay_target,
            reference + decay_target,
            [w + decay_target for w in partial_start],
        )
    if position == 0:
        reference = weights
    elif partial_start:
        (reference,) = partial_start
    return y, MemoryState([weights], [surprise], [reference], position)


def choose_tiles(tokens: Tokens, online: bool) -> Tiles:
    """Return the fastest configuration for the tokens on their device."""
    sizes = tokens.q.dtype, tokens.q.shape[-1], tokens.v.shape[-1], online
    return fastest(tuple(Tiles.candidates(*sizes)) or (Tiles.of(*sizes),), tokens.q.device, attempt)


def attempt(tiles: Tiles, device: torch.device) -> None:
    """Run the kernels forward and backward on enough tokens to fill a GPU."""
    heads, length = 128, 32 * CHUNK
    dtype = torch.bfloat16 if tiles.precision == "bf16" else torch.float32

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(1, length, heads, *shape, dtype=dtype, device=device)

    keys, values = zeros(tiles.head_dim), zeros(tiles.value_dim)
    tokens = Tokens(keys, keys, values, zeros(), zeros(), zeros())
    options = Options(chunk_size=CHUNK, gradient="online" if tiles.online else "chunk")
    plan = LaunchPlan(options, CHUNK, [TokenRange(0, length, continues_chunk=False)], tiles)
    weights = torch.zeros(heads, tiles.head_dim, tiles.value_dim, device=device)
    y, state, starts = scan_forward(plan, tokens, (weights, weights), weights)
    scan_backward(plan, tokens, starts, y, state, torch.zeros_like(weights))


def _read(weights_HIO: Tensor, x_BTHI: Tensor) -> Tensor:
    return torch.einsum("bthi,hio->btho", x_BTHI.float(), weights_HIO)


class MatrixMemory(torch.autograd.Function):
    """Map tokens and W, S, reference (G, D, V) to outputs (B, T, H, V), W and S at the end, a partial chunk's start."""

    @staticmethod
    def forward(ctx: Any, plan: LaunchPlan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Run the segments in order; the states between them are kept for the backward pass."""
        *inputs, weights, surprise, reference = (x.contiguous() for x in arguments)
        y, state, starts = scan_forward(plan, Tokens(*inputs), (weights, surprise), reference)
        ctx.plan, ctx.starts = plan, starts
        ctx.save_for_backward(*inputs)
        return (y, *state, starts[-1].reference.clone()) if plan.ends_in_partial_chunk() else (y, *state)

    @staticmethod
    @first_derivative_only
    def backward(
        ctx: Any, d_y: Tensor, d_weights: Tensor, d_surprise: Tensor, *d_partial_start: Tensor
    ) -> tuple[Any, ...]:
        """Run the segments in reverse order."""
        d_state = (d_weights.contiguous(), d_surprise.contiguous())
        d_reference = torch.zeros_like(d_state[0])
        if d_partial_start:
            d_reference += d_partial_start[0]
        tokens = Tokens(*ctx.saved_tensors)
        d_tokens, d_state = scan_backward(ctx.plan, tokens, ctx.starts, d_y.contiguous(), d_state, d_reference)
        return None, *d_tokens, *d_state, d_reference
