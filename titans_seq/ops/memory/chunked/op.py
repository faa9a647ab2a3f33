"""Chunked memory in its dual form: exact, matmuls only, no per-token weights, and a hand-written backward pass.

Here a sequence is split into pieces of equal chunks; `autograd` runs a piece, forward and backward. The derivation is
in README.md of `ops/memory`.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features, T tokens.
"""

import torch
from torch import Tensor

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.autograd import Chunks, SegmentPlan
from titans_seq.ops.memory.chunked.channelwise.autograd import ChannelChunks
from titans_seq.ops.memory.chunked.recurrent import StackedState
from titans_seq.ops.memory.state import MemoryState, MemoryStats


def chunked_memory(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    options: Options,
) -> tuple[Tensor, MemoryState, MemoryStats | None]:
    """Same result as `reference_memory` up to rounding; time and memory are linear in T."""
    batch, length, heads, _ = tokens.q.shape
    decay_target = [w.expand(batch, *w.shape).flatten(0, 1) for w in initial] if options.forget_to == "initial" else []
    weights, surprise, reference = ([w.flatten(0, 1) for w in group] for group in state[:3])
    both = stack_state(weights, surprise)

    # The rest of a partial chunk, the whole chunks, and the remainder.
    chunk_size, online = options.chunk_size, options.gradient == "online"
    assert isinstance(state.position, int), "one position per batch element requires packed_memory"
    position = 0 if online else state.position  # online gradients do not depend on the chunks: any split is valid
    head = min((chunk_size - position) % chunk_size, length)
    body = (length - head) // chunk_size * chunk_size
    outputs = []
    collected: list[list[MemoryStats]] | None = [] if options.return_stats else None
    pieces = [size for size in (head, body, length - head - body) if size]
    for piece in zip(*(_split(x, pieces) for x in tokens), strict=True):
        size = piece[0].shape[1]
        if position == 0:  # gradients are taken at the chunk's own start
            reference = [m.chunk(2, dim=-2)[0] for m in both]
        separate = reference if position else None
        y_BTHV, both = run_chunks(
            Tokens(*piece), both, separate, decay_target, options, min(size, chunk_size), None, collected
        )
        outputs.append(y_BTHV)
        position = 0 if online else (position + size) % chunk_size

    weights, surprise = ([m.chunk(2, dim=-2)[half] for m in both] for half in range(2))
    if len(outputs) != 1:
        outputs = [torch.cat([tokens.v[:, :0], *outputs], dim=1)]
    weights, surprise, chunk_start = (
        [torch.unflatten(w, 0, (batch, heads)) for w in group]
        for group in (weights, surprise, weights if position == 0 else reference)
    )
    stats = None if collected is None else join_stats(collected, tokens.lr)
    return outputs[0], MemoryState(weights, surprise, chunk_start, position), stats


def _split(x: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Split x (B, T, ...); a single piece is returned as it is, since the backward pass of a split is a copy."""
    return (x,) if len(sizes) == 1 else x.split(sizes, dim=1)


def stack_state(weights: list[Tensor], surprise: list[Tensor]) -> StackedState:
    """Concatenate W and S of every layer along rows."""
    return [torch.cat(pair, dim=-2) for pair in zip(weights, surprise, strict=True)]


def run_chunks(
    tokens: Tokens,
    state: StackedState,
    reference: list[Tensor] | None,
    decay_target: list[Tensor],
    options: Options,
    chunk_size: int,
    valid_BTH: Tensor | None,
    collected: list[list[MemoryStats]] | None,
) -> tuple[Tensor, StackedState]:
    """Map whole chunks of tokens (B, T, H, ...) to outputs (B, T, H, V) and the state after them, (G, 2 I, O).

    `reference`: the weights at which the first chunk's gradients are taken, None for its own start. Where `valid_BTH`
    is False (padding), W and S are unchanged. Stats are appended to `collected`.
    """
    valid = None if valid_BTH is None else _in_chunks(valid_BTH, chunk_size)
    plan = SegmentPlan(options, len(state), reference is None, bool(decay_target), valid, collected)
    in_chunks = [_in_chunks(x, chunk_size) for x in tokens]
    tensors = (*state, *(reference or []), *decay_target)
    run = ChannelChunks if tokens.forget.ndim == 4 else Chunks
    y_NGCO, *state = run.apply(plan, *in_chunks, *tensors)  # type: ignore[no-untyped-call]
    return _in_sequence(y_NGCO, heads=tokens.q.shape[2]), state


def _in_chunks(x: Tensor, chunk_size: int) -> Tensor:
    """Rearrange (B, T, H, ...) to contiguous (N, G, C, ...), in one copy."""
    x = torch.unflatten(x, 1, (-1, chunk_size))  # (B, N, C, H, ...)
    return x.permute(1, 0, 3, 2, *range(4, x.ndim)).contiguous().flatten(1, 2)


def _in_sequence(x: Tensor, heads: int) -> Tensor:
    """Rearrange (N, G, C, ...) back to (B, T, H, ...)."""
    x = torch.unflatten(x, 1, (-1, heads))  # (N, B, H, C, ...)
    return x.permute(1, 0, 3, 2, *range(4, x.ndim)).flatten(1, 2)


def join_stats(pieces: list[list[MemoryStats]], like_BTH: Tensor) -> MemoryStats:
    """Concatenate the stats (N, G, C) of all segments of all pieces to (B, T, H)."""
    segments = [segment for piece in pieces for segment in piece]
    if not segments:
        return MemoryStats(*(like_BTH.new_zeros(like_BTH.shape) for _ in range(3)))
    heads = like_BTH.shape[2]
    parts = zip(*segments, strict=True)
    return MemoryStats(*(torch.cat([_in_sequence(x, heads) for x in part], dim=1) for part in parts))
