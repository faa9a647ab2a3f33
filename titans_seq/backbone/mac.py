"""MAC, memory as a context: attention over a segment and what the memory says to it (Titans, arXiv 2501.00663, 4.1).

Dimensions: B batch, T tokens, C slots of a segment.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from titans_seq.backbone.parts import build_ffn, build_memory
from titans_seq.backbone.states import join, part
from titans_seq.nn import NeuralMemoryState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.gate import NormalisedGate
from titans_seq.nn.norm import RMSNorm
from titans_seq.nn.segment_attention import SegmentAttention, SegmentCache
from titans_seq.ops.masking import one_or_each, take_tokens
from titans_seq.schema import BackboneOptions


class MACState(NamedTuple):
    """What a MAC block carries on: constant in size, whatever the length of the sequence so far."""

    memory: NeuralMemoryState
    reading: list[Tensor]  # the memory's weights at the open segment's start, which its tokens read
    cache: SegmentCache  # of the open segment
    position: int | Tensor  # tokens in it, below C; (B,) where batch elements differ

    def detach(self) -> "MACState":
        """The same state, cut from the graph that made it."""
        cache = SegmentCache(*(x.detach() for x in self.cache))
        return MACState(self.memory.detach(), [w.detach() for w in self.reading], cache, self.position)

    def named_tensors(self) -> dict[str, Tensor]:
        """Contiguous copies under flat names, as `safetensors.torch.save_file` takes them."""
        own = {f"reading.{i}": w for i, w in enumerate(self.reading)}
        own |= {"keys": self.cache.keys, "values": self.cache.values, "position": torch.as_tensor(self.position)}
        copies = {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in own.items()}
        return join({"memory": self.memory.named_tensors(), "segment": copies})

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MACState":
        """The state that `named_tensors` wrote down; raises ValueError when a name is missing or unknown."""
        parts = part(named, ("memory", "segment"))
        memory, own = NeuralMemoryState.from_named_tensors(parts["memory"]), parts["segment"]
        reading = [f"reading.{i}" for i in range(len(memory.memory.weights))]
        if set(own) != {*reading, "keys", "values", "position"}:
            raise ValueError(f"these are not a segment's tensors: {', '.join(sorted(own)) or 'none'}")
        position = own["position"]
        cache = SegmentCache(own["keys"], own["values"])
        return cls(memory, [own[name] for name in reading], cache, position if position.ndim else int(position))


class _Slots(NamedTuple):
    """Tokens laid out on the slots of segments, where batch elements stand at different places in theirs.

    S slots: from the first that a token of the batch may take to the last.
    """

    first: int  # of the S slots, in the first segment
    source: Tensor  # (B, S): the token in each slot, any in dead ones
    live: Tensor  # (B, S) bool
    slot: Tensor  # (B, T): of each token, any for padding
    last: Tensor  # (B,): the segment in which each element ends
    position: Tensor  # (B,): tokens in it


class MACBlock(nn.Module):
    """Segments of C tokens, one after another: read the memory, attend, write what was attended to, read again.

        h = M_start(q)           every token reads the memory as it was at its segment's start (eq 21)
        y = Attn([p | h | s])    causally, see `SegmentAttention` (eqs 22 and 23)
        M_t = M_{t-1}(y_t)       the memory is written with the attention's outputs (eq 24)
        o = y (x) M_t(y)         and read with them (eq 25), see `NormalisedGate`

    The paper updates with a whole segment and then reads; here token t reads what was written up to t, so that no
    output depends on a later token. Eq 21's queries are the memory's own, without convolution. Persistent tokens
    belong to the attention.
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
        """x (B, T, dim) to (B, T, dim) and the state."""
        tokens = self.norm(x)
        if state is None:
            state = self._fresh_state(tokens)
        self._check(state, x)
        if mask is None and isinstance(state.position, int):
            y, state = self._run_aligned(tokens, state, state.position)
        else:
            live = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            y, state = self._run_ragged(tokens, state, live)
        x = x + self.dropout(y)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), state

    def _check(self, state: MACState, x: Tensor) -> None:
        size, found = self.attention.segment_length, tuple(state.cache.keys.shape)
        expected = (len(x), 2, size, self.attention.num_heads, x.shape[2] // self.attention.num_heads)
        if found != expected or state.cache.values.shape != expected:
            raise ValueError(f"the state must hold a segment's keys and values {expected}; got {found}")
        places = [state.position] if isinstance(state.position, int) else state.position.tolist()
        if len(places) not in (1, len(x)) or not all(0 <= place < size for place in places):
            raise ValueError(f"the state's position must lie in a segment of {size} tokens; got {state.position}")

    def _fresh_state(self, x: Tensor) -> MACState:
        _, memory = self.memory(x[:, :0])
        return MACState(memory, memory.memory.weights, self.attention.empty_cache(x), 0)

    def _run_aligned(self, x: Tensor, state: MACState, position: int) -> tuple[Tensor, MACState]:
        """All batch elements stand at the same place in their segment: pieces up to the segments' ends."""
        size = self.attention.segment_length
        pieces = _up_to_segments_ends(position, x.shape[1], size)
        outputs = []
        for piece in x.split(pieces, dim=1) if pieces else ():
            y, state = self._run_piece(piece, state, position, None)
            outputs.append(y)
            position = (position + piece.shape[1]) % size
            if position == 0:
                state = state._replace(reading=state.memory.memory.weights, cache=self.attention.empty_cache(piece))
        return torch.cat(outputs, dim=1) if outputs else x, state._replace(position=position)

    def _run_piece(self, x: Tensor, state: MACState, first: int, live: Tensor | None) -> tuple[Tensor, MACState]:
        """Tokens of one segment, from slot `first` on."""
        read = self.memory.read(x, state.reading)
        attended, cache = self.attention(x, read, state.cache, first, live)
        remembered, memory = self.memory(attended, state.memory, mask=live)
        return self.gate(attended, remembered), state._replace(memory=memory, cache=cache)

    def _run_ragged(self, x: Tensor, state: MACState, mask: Tensor) -> tuple[Tensor, MACState]:
        """Batch elements of different lengths or at different places in their segments."""
        size = self.attention.segment_length
        start = torch.as_tensor(state.position, device=x.device).expand(len(x))
        slots = _lay_out(mask, start, size)
        if slots.live.shape[1] == 0:  # nothing but padding
            return torch.zeros_like(x), state
        laid = take_tokens(x, slots.source).masked_fill(~slots.live.unsqueeze(-1), 0)
        outputs, first = [], slots.first
        pieces = _up_to_segments_ends(first, laid.shape[1], size)
        for index, (piece, live) in enumerate(zip(laid.split(pieces, 1), slots.live.split(pieces, 1), strict=True)):
            y, state = self._run_piece(piece, state, first, live)
            outputs.append(y)
            state = _close_segments(state, slots.last > index)
            first = 0
        y = take_tokens(torch.cat(outputs, dim=1), slots.slot).masked_fill(~mask.unsqueeze(-1), 0)
        return y, state._replace(position=one_or_each(slots.position.cpu()))


def _up_to_segments_ends(first: int, length: int, size: int) -> list[int]:
    """Tokens of each segment, of `length` from slot `first` of a segment on."""
    head = min(size - first, length)
    whole, rest = divmod(length - head, size)
    return [n for n in (head, *[size] * whole, rest) if n]


def _close_segments(state: MACState, full: Tensor) -> MACState:
    """Of those batch elements (B,) a new segment begins: it reads the memory as it is now."""
    now = zip(state.memory.memory.weights, state.reading, strict=True)
    reading = [torch.where(full.view(-1, 1, 1, 1), weights, old) for weights, old in now]
    cache = SegmentCache(*(x.masked_fill(full.view(-1, 1, 1, 1, 1), 0) for x in state.cache))
    return state._replace(reading=reading, cache=cache)


def _lay_out(mask: Tensor, start: Tensor, size: int) -> _Slots:
    """Live tokens of each batch element one after another, from slot `start` (B,) of the first segment on."""
    count, length = mask.sum(1), mask.shape[1]
    end = start + count
    first, last = (int(start.min()), int(end.max())) if mask.numel() else (0, 0)
    rank = torch.arange(first, last, device=mask.device) - start.unsqueeze(1)  # of the token in each slot
    order = torch.argsort(~mask, dim=1, stable=True)
    source = order.gather(1, rank.clamp(0, max(0, length - 1)))
    slot = (mask.cumsum(1) - 1).clamp_min(0) + (start - first).unsqueeze(1)
    live = (rank >= 0) & (rank < count.unsqueeze(1))
    return _Slots(first, source, live, slot.clamp_max(max(0, last - first - 1)), end // size, end % size)
