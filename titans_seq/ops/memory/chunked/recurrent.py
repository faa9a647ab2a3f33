"""The sequential half of a segment: scan_chunks over its chunks, write, and hand the state on.

How a chunk's writes come about is the business of a `WriteRule`: `chunk_rule` takes their gradients at the chunk's
start, `online` at every token's own weights. Here is what both share.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's input and output features. W and S
of a layer are joined in one matrix M (`joint`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.stacking import gather, halves, spread, weigh

StackedState = list[Tensor]  # per layer W on top of S, (G, 2 I, O), whatever the layer's sizes


class UpdateCoefficients(NamedTuple):
    """How a chunk's end depends on its start and on its writes; the last rows of the decay tables."""

    start_3NG: Tensor  # a and b: of the start's W and S in the end's W; e: of the start's S in the end's S
    writes_NGC2: Tensor  # of each write, times its lr, in the end's W and S


class ReadCoefficients(NamedTuple):
    """What a token's weights are made of; the rows of the decay table of W."""

    start_NGC2: Tensor  # a and b: of the start's W and S
    writes_NGCC: Tensor  # C[t, j] lr_j: of write j


class Writes(NamedTuple):
    """What every chunk wrote, and onto what; lists by layer. Token j's write is -lr_j inputs_j (outer) errors_j."""

    inputs_NGCI: list[Tensor]  # the layers' inputs for the keys
    errors_NGCO: list[Tensor]  # the errors that reach the layers' outputs
    starts: list[Tensor]  # M at each chunk's start, (N, G, 2 I, O) or (N, G, I, 2 O)
    side_by_side: list[bool]  # whether W and S lie side by side, and the shares meet the layer's outputs


class RuleGradient(NamedTuple):
    """Gradients of what a `WriteRule` was made of."""

    k_NGCI: Tensor
    v_NGCO: Tensor
    reference: list[Tensor] | None = None
    past: ReadCoefficients | None = None
    anchor: list[Tensor] | None = None


class WriteRule(Protocol):
    """How a chunk's writes follow from its keys, values and the state at its start."""

    writes: Writes  # the rule fills in `inputs` and `errors`, the scan_chunks `starts`

    def write(self, n: int, start: StackedState) -> None:
        """Fill in the writes of chunk n, which starts with `start`."""

    def write_backward(self, n: int, d_writes: Writes, d_start: StackedState) -> None:
        """Turn the gradient of chunk n's writes, by now complete, into that of its start, added to `d_start`.

        What does not have to wait for the next chunk may be left to `finish_backward`.
        """

    def finish_backward(self, d_writes: Writes) -> RuleGradient:
        """The rest, after all chunks."""


def scan_chunks(rule: WriteRule, shares: UpdateCoefficients, states: list[Tensor], anchor: list[Tensor] | None) -> None:
    """Let `rule` write chunk after chunk.

    `states` (N + 1, G, ...) by layer holds M at the first chunk's start, and takes M at every chunk's end, which is the
    next one's start; all but its last are the rule's `starts`.
    """
    writes = rule.writes
    anchors: Sequence[Tensor | None] = anchor or [None] * len(states)
    of_keys = spread(writes.inputs_NGCI[0], shares.writes_NGC2) if not writes.side_by_side[0] else None
    for n in range(len(shares.writes_NGC2)):
        rule.write(n, [room[n] for room in states])
        a, b, e = shares.start_3NG[:, n, :, None, None]
        for layer, (room, to) in enumerate(zip(states, anchors, strict=True)):
            side_by_side = writes.side_by_side[layer]
            (weights, surprise), (end_weights, end_surprise) = (halves(m, side_by_side) for m in room[n : n + 2])
            torch.mul(surprise, e, out=end_surprise)
            torch.mul(weights, a, out=end_weights).addcmul_(surprise, b)
            if to is not None:
                end_weights.addcmul_(to, 1 - a)
            x, delta = writes.inputs_NGCI[layer][n], writes.errors_NGCO[layer][n]
            if side_by_side:
                delta = spread(delta, shares.writes_NGC2[n])
            else:
                x = of_keys[n] if layer == 0 and of_keys is not None else spread(x, shares.writes_NGC2[n])
            room[n + 1].baddbmm_(x.mT, delta, alpha=-1)


class ScanGradient(NamedTuple):
    """Gradients of what `scan_chunks` took, but for the states, which are left in the room they came in."""

    rule: RuleGradient
    shares: UpdateCoefficients
    anchor: list[Tensor] | None


def scan_chunks_backward(
    rule: WriteRule, shares: UpdateCoefficients, d_states: list[Tensor], d_writes: Writes, anchor: list[Tensor] | None
) -> ScanGradient:
    """Walk back over the chunks.

    `d_states` (N + 1, G, ...) by layer holds the gradient of the end's M in its last place, and before that what the
    reads gave to the chunks' starts (`d_writes.starts` are the same memory); the rest is added here. The other
    gradients of the writes, from the reads, are used up.
    """
    writes = rule.writes
    d_write_shares = torch.zeros_like(shares.writes_NGC2)
    for n in reversed(range(len(d_write_shares))):
        a, b, e = shares.start_3NG[:, n, :, None, None]
        for layer, room in enumerate(d_states):
            side_by_side = writes.side_by_side[layer]
            (d_weights, d_surprise), (d_end_weights, d_end_surprise) = (
                halves(m, side_by_side) for m in room[n : n + 2]
            )
            d_weights.addcmul_(d_end_weights, a)
            d_surprise.addcmul_(d_end_weights, b).addcmul_(d_end_surprise, e)
            x, delta, d_x, d_delta = (
                part[layer][n]
                for part in (writes.inputs_NGCI, writes.errors_NGCO, d_writes.inputs_NGCI, d_writes.errors_NGCO)
            )
            if side_by_side:
                pairs = torch.bmm(x, room[n + 1])
                d_delta.sub_(gather(pairs, shares.writes_NGC2[n]))
                d_write_shares[n].sub_(weigh(pairs, delta))
                d_x.baddbmm_(spread(delta, shares.writes_NGC2[n]), room[n + 1].mT, alpha=-1)
            else:
                d_delta.baddbmm_(spread(x, shares.writes_NGC2[n]), room[n + 1], alpha=-1)
                if layer > 0:  # the keys' gradient can wait
                    pairs = torch.bmm(delta, room[n + 1].mT)
                    d_x.sub_(gather(pairs, shares.writes_NGC2[n]))
                    d_write_shares[n].sub_(weigh(pairs, x))
        rule.write_backward(n, d_writes, [room[n] for room in d_states])
    d_ends = [room[1:] for room in d_states]
    if not writes.side_by_side[0]:
        pairs = writes.errors_NGCO[0] @ d_ends[0].mT
        d_writes.inputs_NGCI[0].sub_(gather(pairs, shares.writes_NGC2))
        d_write_shares.sub_(weigh(pairs, writes.inputs_NGCI[0]))
    d_start_shares = torch.zeros_like(shares.start_3NG)
    d_anchor: list[Tensor] | None = [] if anchor is not None else None
    for layer, (start, d_end) in enumerate(zip(writes.starts, d_ends, strict=True)):
        (weights, surprise), (d_weights, d_surprise) = (halves(m, writes.side_by_side[layer]) for m in (start, d_end))
        for share, (x, d) in enumerate(((weights, d_weights), (surprise, d_weights), (surprise, d_surprise))):
            d_start_shares[share] += (x * d).sum((-2, -1))
        if anchor is not None and d_anchor is not None:
            d_anchor.append(((1 - shares.start_3NG[0, ..., None, None]) * d_weights).sum(0))
            d_start_shares[0] -= (anchor[layer] * d_weights).sum((-2, -1))
    return ScanGradient(rule.finish_backward(d_writes), UpdateCoefficients(d_start_shares, d_write_shares), d_anchor)
