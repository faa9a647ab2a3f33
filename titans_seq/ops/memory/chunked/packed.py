"""Masked tokens and packed sequences: lay every sequence out on chunks of its own, then run the chunked memory.

Chunks count the tokens of their sequence, so a masked token takes no place and a new sequence begins a new chunk. Each
batch element's tokens are moved to slots: live slots one after another, from the place in the open chunk where the
state left off, and on to the next chunk's first slot at each sequence start. Slots in between are dead and leave W and
S as they are. Padding and packing thereby give what each sequence gives alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.masking import one_or_each, take_tokens
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.op import join_stats, run_chunks, stack_state
from titans_seq.ops.memory.state import MemoryState, MemoryStats


class _PackedRow(NamedTuple):
    """One batch element's layout."""

    slots: Tensor  # (T,): the slot of each token, -1 where it is masked
    resets: list[int]  # chunks that begin with the initial memory
    open_chunk: int  # the chunk that is not full at the end, -1 where the last one is
    position: int  # tokens in it
    chunks: int


class _PackedLayout(NamedTuple):
    slots: Tensor  # (B, T)
    source: Tensor  # (B, slots): the token in each slot, 0 in dead ones
    live: Tensor  # (B, slots), bool
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
    """As `chunked_memory`; tokens are skipped where `mask` (B, T) is False, sequences begin where `reset` is True."""
    batch, _, heads, _ = tokens.q.shape
    layout = _lay_out(tokens, state, options, mask, reset)
    packed = Tokens(*(_gather(x, layout.source, layout.live) for x in tokens))
    live_BSH = layout.live.unsqueeze(-1).expand_as(packed.lr)
    start = [w.expand(batch, *w.shape).flatten(0, 1) for w in initial]
    anchor = start if options.forget_to == "initial" else []
    weights, surprise, reference = ([w.flatten(0, 1) for w in group] for group in state[:3])
    began = _of_heads([_position(state, b) > 0 for b in range(batch)], heads, weights[0])
    chunk_start = reference
    reference = [torch.where(began, r, w) for r, w in zip(reference, weights, strict=True)]

    outputs: list[Tensor] = []
    collected: list[list[MemoryStats]] | None = [] if options.return_stats else None
    cuts = sorted({0, layout.chunks, *(c for row in layout.rows for c in (*row.resets, row.open_chunk) if c >= 0)})
    for first, last in zip(cuts, [*cuts[1:], layout.chunks], strict=True):
        resets = _of_heads([first in row.resets for row in layout.rows], heads, weights[0])
        weights = [torch.where(resets, w0, w) for w0, w in zip(start, weights, strict=True)]
        surprise = [s.masked_fill(resets, 0) for s in surprise]
        at = [torch.where(resets, w, r) for w, r in zip(weights, reference, strict=True)] if first == 0 else weights
        opens = _of_heads([row.open_chunk == first for row in layout.rows], heads, weights[0])
        chunk_start = [torch.where(opens, w, c) for w, c in zip(at, chunk_start, strict=True)]
        if first == last:
            continue
        part = slice(first * options.chunk_size, last * options.chunk_size)
        piece, own = Tokens(*(x[:, part] for x in packed)), None if options.gradient == "online" else at
        both = stack_state(weights, surprise)
        y, both = run_chunks(piece, both, own, anchor, options, options.chunk_size, live_BSH[:, part], collected)
        outputs.append(y)
        weights, surprise = ([m.chunk(2, dim=-2)[half] for m in both] for half in range(2))

    # Online gradients know no chunks.
    positions = [0 if options.gradient == "online" else row.position for row in layout.rows]
    full = _of_heads([position == 0 for position in positions], heads, weights[0])
    chunk_start = [torch.where(full, w, c) for w, c in zip(weights, chunk_start, strict=True)]
    weights, surprise, chunk_start = (
        [torch.unflatten(w, 0, (batch, heads)) for w in group] for group in (weights, surprise, chunk_start)
    )
    y = _gather_back(torch.cat(outputs, dim=1) if outputs else packed.v, layout)
    stats = None
    if collected is not None:
        stats = MemoryStats(*(_gather_back(x, layout) for x in join_stats(collected, packed.lr)))
    return y, MemoryState(weights, surprise, chunk_start, one_or_each(torch.tensor(positions))), stats


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
    live = torch.zeros(source.shape, dtype=torch.bool)
    for b, row in enumerate(rows):
        (tokens_kept,) = (row.slots >= 0).nonzero(as_tuple=True)
        source[b, row.slots[tokens_kept]] = tokens_kept
        live[b, row.slots[tokens_kept]] = True
    slots = torch.stack([row.slots for row in rows]) if rows else torch.zeros(0, length, dtype=torch.int64)
    device = tokens.lr.device
    return _PackedLayout(slots.to(device), source.to(device), live.to(device), rows, chunks)


def _lay_out_row(mask: Tensor, reset: Tensor, position: int, chunk_size: int) -> _PackedRow:
    (kept,) = mask.nonzero(as_tuple=True)
    sequence = reset[kept].cumsum(0)  # 0 goes on with the state, others begin anew
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
        open_chunk=first_chunk[-1] + full if left_over else -1,
        position=left_over,
        chunks=int(chunks.sum()),
    )


def _position(state: MemoryState, b: int) -> int:
    return state.position if isinstance(state.position, int) else int(state.position[b])


def _of_heads(flags: list[bool], heads: int, like_GIO: Tensor) -> Tensor:
    """One flag per batch element to (G, 1, 1)."""
    return torch.tensor(flags, dtype=torch.bool, device=like_GIO.device).repeat_interleave(heads)[:, None, None]


def _gather(x: Tensor, source: Tensor, live: Tensor) -> Tensor:
    """(B, T, H, ...) to (B, slots, H, ...), zeros in dead slots."""
    shape = (*source.shape, *[1] * (x.ndim - 2))
    if x.shape[1] == 0:  # nothing to take: there are slots without tokens, or only masked tokens
        return x.new_zeros(*source.shape, *x.shape[2:])
    # Masked tokens may hold anything, NaN too.
    return take_tokens(x, source).masked_fill(~live.view(shape), 0)


def _gather_back(x: Tensor, layout: _PackedLayout) -> Tensor:
    """(B, slots, H, ...) to (B, T, H, ...), zeros for masked tokens."""
    return _gather(x, layout.slots.clamp_min(0), layout.slots >= 0)
