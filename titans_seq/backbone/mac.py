"""MAC, memory as a context: attention over a segment and its memory reads (Titans, arXiv 2501.00663, section 4.1).

Dimensions: B batch, T tokens, C tokens of a full segment.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from titans_seq.backbone.parts import build_ffn, build_memory
from titans_seq.backbone.states import add_prefixes, split_prefixes
from titans_seq.nn import NeuralMemoryState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.gate import NormalisedGate
from titans_seq.nn.norm import RMSNorm
from titans_seq.nn.segment_attention import SegmentAttention, SegmentCache
from titans_seq.ops.masking import one_or_each, take_tokens
from titans_seq.schema import BackboneOptions


class MACState(NamedTuple):
    """State of a MAC block, constant in size for any sequence length."""

    memory: NeuralMemoryState
    reading: list[Tensor]  # the memory's weights at the partial segment's start, from which its tokens read
    cache: SegmentCache  # of the partial segment
    position: int | Tensor  # tokens in it, below C; (B,) where batch elements differ

    def detach(self) -> "MACState":
        """Return the state detached from the autograd graph."""
        cache = SegmentCache(*(x.detach() for x in self.cache))
        return MACState(self.memory.detach(), [w.detach() for w in self.reading], cache, self.position)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, ready for `safetensors.torch.save_file`."""
        own = {f"reading.{i}": w for i, w in enumerate(self.reading)}
        own |= {"keys": self.cache.keys, "values": self.cache.values, "position": torch.as_tensor(self.position)}
        copies = {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in own.items()}
        return add_prefixes({"memory": self.memory.named_tensors(), "segment": copies})

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MACState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        parts = split_prefixes(named, ("memory", "segment"))
        memory, own = NeuralMemoryState.from_named_tensors(parts["memory"]), parts["segment"]
        reading = [f"reading.{i}" for i in range(len(memory.memory.weights))]
        if set(own) != {*reading, "keys", "values", "position"}:
            expected, found = ", ".join([*reading, "keys", "values", "position"]), ", ".join(sorted(own)) or "none"
            raise ValueError(f"a MACState's segment must have the tensors {expected}; got {found}")
        position = own["position"]
        cache = SegmentCache(own["keys"], own["values"])
        return cls(memory, [own[name] for name in reading], cache, position if position.ndim else int(position))


class _Slots(NamedTuple):
    """Token layout on segment slots, for batch elements at different positions in their segments.

    S slots: from the first to the last that a token of the batch may occupy.
    """

    first: int  # position of the first of the S slots in its segment
    source: Tensor  # (B, S): index of the token in each slot; arbitrary in empty slots
    valid: Tensor  # (B, S) bool
    slot: Tensor  # (B, T): slot of each token; arbitrary for padding
    last: Tensor  # (B,): index of the segment in which each element ends
    position: Tensor  # (B,): tokens in that segment


class MACBlock(nn.Module):
    """MAC block: for each segment of C tokens, read the memory, attend, write the attention's outputs, read again.

        h = M_start(q)           every token reads the memory of its segment's start (eq 21)
        y = Attn([p | h | s])    causal attention, see `SegmentAttention` (eqs 22 and 23)
        M_t = M_{t-1}(y_t)       the memory is written with the attention's outputs (eq 24)
        o = y (x) M_t(y)         and read with them (eq 25), see `NormalisedGate`

    The paper writes a whole segment and then reads; here token t reads the memory written up to t, so that no output
    depends on a later token. Eq 21's queries are the memory's own, without convolution. Persistent tokens belong to
    the attention.
    """

    State = MACState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.norm = RMSNorm(options.dim)
        self.memory = build_memory(options, num_persistent=0)
        self.attention = SegmentAttention(
            options.dim,
            options.attention.num_heads,
            segment_length=options.segment_length,
            num_persistent=options.num_persistent,
            rotary_share=options.attention.rotary_share,
        )
        self.gate = NormalisedGate(options.dim)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor, state: MACState | None, mask: Tensor | None) -> tuple[Tensor, MACState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        tokens = self.norm(x)
        if state is None:
            state = self._initial_state(tokens)
        self._check(state, x)
        if mask is None and isinstance(state.position, int):
            y, state = self._run_aligned(tokens, state, state.position)
        else:
            valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            y, state = self._run_ragged(tokens, state, valid)
        x = x + self.dropout(y)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), state

    def _check(self, state: MACState, x: Tensor) -> None:
        size, found = self.attention.segment_length, tuple(state.cache.keys.shape)
        expected = (len(x), 2, size, self.attention.num_heads, x.shape[2] // self.attention.num_heads)
        if found != expected or state.cache.values.shape != expected:
            raise ValueError(f"the state must hold a segment's keys and values of shape {expected}; got {found}")
        places = [state.position] if isinstance(state.position, int) else state.position.tolist()
        if len(places) not in (1, len(x)) or not all(0 <= place < size for place in places):
            raise ValueError(f"the state's position must be in a segment of {size} tokens; got {state.position}")

    def _initial_state(self, x: Tensor) -> MACState:
        _, memory = self.memory(x[:, :0])
        return MACState(memory, memory.memory.weights, self.attention.empty_cache(x), 0)

    def _run_aligned(self, x: Tensor, state: MACState, position: int) -> tuple[Tensor, MACState]:
        """Run a batch whose elements have the same position in their segments, in pieces that end with a segment."""
        size = self.attention.segment_length
        pieces = _piece_lengths(position, x.shape[1], size)
        outputs = []
        for piece in x.split(pieces, dim=1) if pieces else ():
            y, state = self._run_piece(piece, state, position, None)
            outputs.append(y)
            position = (position + piece.shape[1]) % size
            if position == 0:
                state = state._replace(reading=state.memory.memory.weights, cache=self.attention.empty_cache(piece))
        return torch.cat(outputs, dim=1) if outputs else x, state._replace(position=position)

    def _run_piece(self, x: Tensor, state: MACState, first: int, valid: Tensor | None) -> tuple[Tensor, MACState]:
        """Run tokens of one segment, from slot `first` on."""
        read = self.memory.read(x, state.reading)
        attention_out, cache = self.attention(x, read, state.cache, first, valid)
        memory_out, memory = self.memory(attention_out, state.memory, mask=valid)
        return self.gate(attention_out, memory_out), state._replace(memory=memory, cache=cache)

    def _run_ragged(self, x: Tensor, state: MACState, mask: Tensor) -> tuple[Tensor, MACState]:
        """Run a batch whose elements differ in length or in position in their segments."""
        size = self.attention.segment_length
        start = torch.as_tensor(state.position, device=x.device).expand(len(x))
        slots = _lay_out(mask, start, size)
        if slots.valid.shape[1] == 0:  # only padding
            return torch.zeros_like(x), state
        laid_out = take_tokens(x, slots.source).masked_fill(~slots.valid.unsqueeze(-1), 0)
        outputs, first = [], slots.first
        pieces = _piece_lengths(first, laid_out.shape[1], size)
        for index, (piece, valid) in enumerate(
            zip(laid_out.split(pieces, 1), slots.valid.split(pieces, 1), strict=True)
        ):
            y, state = self._run_piece(piece, state, first, valid)
            outputs.append(y)
            state = _start_segments(state, slots.last > index)
            first = 0
        y = take_tokens(torch.cat(outputs, dim=1), slots.slot).masked_fill(~mask.unsqueeze(-1), 0)
        return y, state._replace(position=one_or_each(slots.position.cpu()))


def _piece_lengths(first: int, length: int, size: int) -> list[int]:
    """Return how many of `length` tokens fall in each segment, the first of them in slot `first`."""
    head = min(size - first, length)
    whole, rest = divmod(length - head, size)
    return [n for n in (head, *[size] * whole, rest) if n]


def _start_segments(state: MACState, full: Tensor) -> MACState:
    """Start a new segment, which reads the current memory, for the batch elements whose segment is `full` (B,)."""
    now = zip(state.memory.memory.weights, state.reading, strict=True)
    reading = [torch.where(full.view(-1, 1, 1, 1), weights, old) for weights, old in now]
    cache = SegmentCache(*(x.masked_fill(full.view(-1, 1, 1, 1, 1), 0) for x in state.cache))
    return state._replace(reading=reading, cache=cache)


def _lay_out(mask: Tensor, start: Tensor, size: int) -> _Slots:
    """Lay out the valid tokens of each batch element consecutively, from slot `start` (B,) of the first segment on."""
    count, length = mask.sum(1), mask.shape[1]
    end = start + count
    first, last = (int(start.min()), int(end.max())) if mask.numel() else (0, 0)
    rank = torch.arange(first, last, device=mask.device) - start.unsqueeze(1)  # of the token in each slot
    order = torch.argsort(~mask, dim=1, stable=True)
    source = order.gather(1, rank.clamp(0, max(0, length - 1)))
    slot = (mask.cumsum(1) - 1).clamp_min(0) + (start - first).unsqueeze(1)
    valid = (rank >= 0) & (rank < count.unsqueeze(1))
    return _Slots(first, source, valid, slot.clamp_max(max(0, last - first - 1)), end // size, end % size)
