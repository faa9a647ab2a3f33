"""Masked tokens and packed sequences: move every sequence to chunks of its own, then run the chunked memory.

Chunks count the tokens of their sequence, so masked tokens do not count and a new sequence starts a new chunk. Each
batch element's tokens are moved to slots: consecutive valid slots, from the state's position in its partial chunk on,
and from the next chunk's first slot on at each start of a sequence. Slots in between are padding and leave W and S
unchanged. Padding and packing therefore give the same results as each sequence alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.masking import take_tokens
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.op import join_stats, run_chunks, stack_state
from titans_seq.ops.memory.state import MemoryState, MemoryStats


class _PackedRow(NamedTuple):
    """Layout of one batch element."""

    slots: Tensor  # (T,): the slot of each token, -1 where it is masked
    resets: list[int]  # chunks that begin with the initial memory
    partial_chunk: int  # index of the last chunk if it is not full, otherwise -1
    position: int  # tokens in the partial chunk
    chunks: int


class _PackedLayout(NamedTuple):
    slots: Tensor  # (B, T)
    source: Tensor  # (B, slots): the token in each slot, 0 in padding slots
    valid: Tensor  # (B, slots), bool
    rows: list[_PackedRow]
    chunks: int


def packed_memory(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    options: Options,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, MemoryState, MemoryStats | None]:
    """`chunked_memory` with masks: skip tokens where `mask` (B, T) is False, start sequences where `reset` is True."""
    batch, _, heads, _ = tokens.q.shape
    layout = _lay_out(tokens, state, options, mask, reset)
    packed = Tokens(*(_gather(x, layout.source, layout.valid) for x in tokens))
    valid_BSH = layout.valid.unsqueeze(-1).expand_as(packed.lr)
    start = [w.expand(batch, *w.shape).flatten(0, 1) for w in initial]
    decay_target = start if options.forget_to == "initial" else []
    weights, surprise, reference = ([w.flatten(0, 1) for w in group] for group in state[:3])
    mid_chunk = _per_head([_position(state, b) > 0 for b in range(batch)], heads, weights[0])
    chunk_start = reference
    reference = [torch.where(mid_chunk, r, w) for r, w in zip(reference, weights, strict=True)]

    outputs: list[Tensor] = []
    collected: list[list[MemoryStats]] | None = [] if options.return_stats else None
    cuts = sorted({0, layout.chunks, *(c for row in layout.rows for c in (*row.resets, row.partial_chunk) if c >= 0)})
    for first, last in zip(cuts, [*cuts[1:], layout.chunks], strict=True):
        resets = _per_head([first in row.resets for row in layout.rows], heads, weights[0])
        weights = [torch.where(resets, w0, w) for w0, w in zip(start, weights, strict=True)]
        surprise = [s.masked_fill(resets, 0) for s in surprise]
        at = [torch.where(resets, w, r) for w, r in zip(weights, reference, strict=True)] if first == 0 else weights
        starts_partial = _per_head([row.partial_chunk == first for row in layout.rows], heads, weights[0])
        chunk_start = [torch.where(starts_partial, w, c) for w, c in zip(at, chunk_start, strict=True)]
        if first == last:
            continue
        part = slice(first * options.chunk_size, last * options.chunk_size)
        piece, piece_reference = Tokens(*(x[:, part] for x in packed)), None if options.gradient == "online" else at
        both = stack_state(weights, surprise)
        y, both = run_chunks(
            piece, both, piece_reference, decay_target, options, options.chunk_size, valid_BSH[:, part], collected
        )
        outputs.append(y)
        weights, surprise = ([m.chunk(2, dim=-2)[half] for m in both] for half in range(2))

    # Online gradients do not depend on chunks.
    positions = [0 if options.gradient == "online" else row.position for row in layout.rows]
    full = _per_head([position == 0 for position in positions], heads, weights[0])
    chunk_start = [torch.where(full, w, c) for w, c in zip(weights, chunk_start, strict=True)]
    weights, surprise, chunk_start = (
        [torch.unflatten(w, 0, (batch, heads)) for w in group] for group in (weights, surprise, chunk_start)
    )
    y = _gather_back(torch.cat(outputs, dim=1) if outputs else packed.v, layout)
    stats = None
    if collected is not None:
        stats = MemoryStats(*(_gather_back(x, layout) for x in join_stats(collected, packed.lr)))
    return y, MemoryState(weights, surprise, chunk_start, torch.tensor(positions)), stats


def _lay_out(
    tokens: Tokens, state: MemoryState, options: Options, mask: Tensor | None, reset: Tensor | None
) -> _PackedLayout:
    batch, length = tokens.lr.shape[:2]
    kept = torch.ones(batch, length, dtype=torch.bool) if mask is None else mask.cpu()
    begins = torch.zeros(batch, length, dtype=torch.bool) if reset is None else reset.cpu()
    positions = [0 if options.gradient == "online" else _position(state, b) for b in range(batch)]
    rows = [_lay_out_row(kept[b], begins[b], positions[b], options.chunk_size) for b in range(batch)]
    chunks = max((row.chunks for row in rows), default=0)
    source = torch.zeros(batch, chunks * options.chunk_size, dtype=torch.int64)
    valid = torch.zeros(source.shape, dtype=torch.bool)
    for b, row in enumerate(rows):
        (tokens_kept,) = (row.slots >= 0).nonzero(as_tuple=True)
        source[b, row.slots[tokens_kept]] = tokens_kept
        valid[b, row.slots[tokens_kept]] = True
    slots = torch.stack([row.slots for row in rows]) if rows else torch.zeros(0, length, dtype=torch.int64)
    device = tokens.lr.device
    return _PackedLayout(slots.to(device), source.to(device), valid.to(device), rows, chunks)


def _lay_out_row(mask: Tensor, reset: Tensor, position: int, chunk_size: int) -> _PackedRow:
    (kept,) = mask.nonzero(as_tuple=True)
    sequence = reset[kept].cumsum(0)  # sequence 0 continues the state, the others start from the initial memory
    lengths = torch.bincount(sequence, minlength=1)
    ends = lengths.clone()  # slots from the sequence's first chunk on
    ends[0] += position
    chunks = -(-ends // chunk_size)
    first_chunk = (chunks.cumsum(0) - chunks).tolist()
    rank = torch.arange(len(kept)) - (lengths.cumsum(0) - lengths)[sequence] + position * (sequence == 0)
    slots = torch.full_like(mask, -1, dtype=torch.int64)
    slots[kept] = torch.tensor(first_chunk)[sequence] * chunk_size + rank
    full, left_over = divmod(int(ends[-1]), chunk_size)
    return _PackedRow(
        slots=slots,
        resets=first_chunk[1:],
        partial_chunk=first_chunk[-1] + full if left_over else -1,
        position=left_over,
        chunks=int(chunks.sum()),
    )


def _position(state: MemoryState, b: int) -> int:
    return state.position if isinstance(state.position, int) else int(state.position[b])


def _per_head(flags: list[bool], heads: int, like_GIO: Tensor) -> Tensor:
    """Repeat one flag per batch element for its heads, (G, 1, 1)."""
    return torch.tensor(flags, dtype=torch.bool, device=like_GIO.device).repeat_interleave(heads)[:, None, None]


def _gather(x: Tensor, source: Tensor, valid: Tensor) -> Tensor:
    """Move tokens (B, T, H, ...) to slots (B, slots, H, ...), with zeros in padding slots."""
    shape = (*source.shape, *[1] * (x.ndim - 2))
    if x.shape[1] == 0:  # no tokens to gather: every slot is padding
        return x.new_zeros(*source.shape, *x.shape[2:])
    # Masked tokens may contain anything, including NaN.
    return take_tokens(x, source).masked_fill(~valid.view(shape), 0)


def _gather_back(x: Tensor, layout: _PackedLayout) -> Tensor:
    """Move slots (B, slots, H, ...) back to tokens (B, T, H, ...), with zeros for masked tokens."""
    return _gather(x, layout.slots.clamp_min(0), layout.slots >= 0)
