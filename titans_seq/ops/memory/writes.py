"""The sequential half of a segment: walk over its chunks, write, and hand the state on.

How a chunk's writes come about is the business of a `WriteRule`: `chunk_rule` takes their gradients at the chunk's
start, `online` at every token's own weights. Here is what both share.

Shape suffixes: N chunks of the segment, G = batch x heads, C tokens of a chunk, I and O a layer's input and output
features. W and S of a layer stand side by side in one matrix, so that one product serves both: M (I, 2 O) = [W | S].
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

State = list[Tensor]  # per layer M_GIO2: W and S side by side


class UpdateShares(NamedTuple):
    """How a chunk's end depends on its start and on its writes; the last rows of the decay tables."""

    weights_N1: Tensor  # of the start's W in the end's W, (N, G, 1, 1), as the next two
    surprise_N1: Tensor  # of the start's S in the end's W
    momentum_N1: Tensor  # of the start's S in the end's S
    writes_NGC2: Tensor  # of each write, times its lr, in the end's W and S, (N, G, C, 2)


class ReadShares(NamedTuple):
    """What a token's weights are made of; the rows of the decay table of W."""

    start_NGC2: Tensor  # a and b: of the start's W and S
    writes_NGCC: Tensor  # C[t, j] lr_j: of write j


class Writes(NamedTuple):
    """What every chunk wrote, and onto what; lists by layer. Token j's write is -lr_j inputs_j (outer) errors_j."""

    inputs_NGCI: list[Tensor]  # the layers' inputs for the keys
    errors_NGCO: list[Tensor]  # the errors that reach the layers' outputs
    starts_NGIO2: list[Tensor]  # M at each chunk's start


class RuleGradient(NamedTuple):
    """Gradients of what a `WriteRule` was made of."""

    k_NGCI: Tensor
    v_NGCO: Tensor
    reference: list[Tensor] | None = None
    past: ReadShares | None = None
    anchor: list[Tensor] | None = None


class WriteRule(Protocol):
    """How a chunk's writes follow from its keys, values and the state at its start."""

    writes: Writes  # the rule fills in `inputs` and `errors`, the walk `starts`

    def write(self, n: int, start: State) -> None:
        """Fill in the writes of chunk n, which starts with `start`."""

    def write_backward(self, n: int, d_writes: Writes, d_start: State) -> None:
        """Turn the gradient of chunk n's writes, by now complete, into that of its start, added to `d_start`.

        What does not have to wait for the next chunk may be left to `finish_backward`.
        """

    def finish_backward(self, d_writes: Writes) -> RuleGradient:
        """The rest, after all chunks."""


def walk(
    rule: WriteRule, shares: UpdateShares, state: State, states: list[Tensor], anchor: list[Tensor] | None
) -> State:
    """Let `rule` write chunk after chunk; returns the state after the last one.

    `states` (N + 1, G, I, 2 O) by layer is room for every chunk's start and the last one's end; all but its last are
    the rule's `starts`.
    """
    writes = rule.writes
    anchors: Sequence[Tensor | None] = anchor or [None] * len(state)
    for room, m in zip(states, state, strict=True):
        room[0] = m
    for n in range(len(writes.inputs_NGCI[0])):
        rule.write(n, [room[n] for room in states])
        for room, x, delta, to in zip(states, writes.inputs_NGCI, writes.errors_NGCO, anchors, strict=True):
            _update(room[n], x[n], delta[n], shares, n, to, out=room[n + 1])
    return [room[-1].clone() for room in states]  # a view would keep all the others alive


def _update(
    start_GIO2: Tensor,
    x_GCI: Tensor,
    delta_GCO: Tensor,
    shares: UpdateShares,
    n: int,
    anchor_GIO: Tensor | None,
    out: Tensor,
) -> None:
    size = delta_GCO.shape[-1]
    weights, surprise = start_GIO2[..., :size], start_GIO2[..., size:]
    torch.mul(weights, shares.weights_N1[n], out=out[..., :size])
    out[..., :size].addcmul_(surprise, shares.surprise_N1[n])
    torch.mul(surprise, shares.momentum_N1[n], out=out[..., size:])
    if anchor_GIO is not None:
        out[..., :size].addcmul_(1 - shares.weights_N1[n], anchor_GIO)
    out.baddbmm_(x_GCI.mT, spread(delta_GCO, shares.writes_NGC2[n]), alpha=-1)


def spread(delta: Tensor, writes: Tensor) -> Tensor:
    """Rows (..., C, O) times two shares each (..., C, 2), side by side: (..., C, 2 O)."""
    return (writes.unsqueeze(-1) * delta.unsqueeze(-2)).flatten(-2)


class WalkGradient(NamedTuple):
    """Gradients of what `walk` took."""

    rule: RuleGradient
    shares: UpdateShares
    state: State
    anchor: list[Tensor] | None


def walk_backward(
    rule: WriteRule, shares: UpdateShares, d_state: State, d_writes: Writes, anchor: list[Tensor] | None
) -> WalkGradient:
    """Walk back over the chunks.

    Takes the gradients of the end state and, from the reads, those of the writes and the chunks' starts, which are
    used up.
    """
    writes = rule.writes
    d_ends = [torch.empty_like(start) for start in writes.starts_NGIO2]
    pulls = [delta.new_empty(*delta.shape[:-1], 2 * delta.shape[-1]) for delta in writes.errors_NGCO]  # x [dW | dS]
    for n in reversed(range(len(writes.inputs_NGCI[0]))):
        for layer, d_end in enumerate(d_state):
            x, delta = writes.inputs_NGCI[layer][n], writes.errors_NGCO[layer][n]
            d_ends[layer][n] = d_end
            pull = torch.bmm(x, d_end, out=pulls[layer][n])
            for half, share in zip(pull.chunk(2, dim=-1), shares.writes_NGC2[n].unsqueeze(-2).unbind(-1), strict=True):
                d_writes.errors_NGCO[layer][n].addcmul_(half, share, value=-1)
            d_writes.inputs_NGCI[layer][n].baddbmm_(spread(delta, shares.writes_NGC2[n]), d_end.mT, alpha=-1)
        d_state = [
            _update_backward(d_start[n], d_end[n], shares, n)
            for d_start, d_end in zip(d_writes.starts_NGIO2, d_ends, strict=True)
        ]
        rule.write_backward(n, d_writes, d_state)
    d_anchor = None
    if anchor is not None:
        forgotten = 1 - shares.weights_N1
        d_anchor = [(forgotten * d.chunk(2, dim=-1)[0]).sum(0) for d in d_ends]
    return WalkGradient(
        rule.finish_backward(d_writes), _shares_backward(writes, d_ends, pulls, anchor), d_state, d_anchor
    )


def _update_backward(d_start_GIO2: Tensor, d_end_GIO2: Tensor, shares: UpdateShares, n: int) -> Tensor:
    size = d_end_GIO2.shape[-1] // 2
    d_end_weights = d_end_GIO2[..., :size]
    d_start_GIO2[..., :size].addcmul_(shares.weights_N1[n], d_end_weights)
    d_start_GIO2[..., size:].addcmul_(shares.surprise_N1[n], d_end_weights)
    d_start_GIO2[..., size:].addcmul_(shares.momentum_N1[n], d_end_GIO2[..., size:])
    return d_start_GIO2


def _shares_backward(
    writes: Writes, d_ends: list[Tensor], pulls: list[Tensor], anchor: list[Tensor] | None
) -> UpdateShares:
    """All chunks at once: no share depends on another chunk's."""
    weights, surprise, momentum, pairs = [], [], [], []
    for layer, (start, d_end, pull, delta) in enumerate(
        zip(writes.starts_NGIO2, d_ends, pulls, writes.errors_NGCO, strict=True)
    ):
        size = delta.shape[-1]
        d_end_weights, d_end_surprise = d_end[..., :size], d_end[..., size:]
        old = start[..., :size] if anchor is None else start[..., :size] - anchor[layer]
        weights.append((old * d_end_weights).sum((-2, -1), keepdim=True))
        surprise.append((start[..., size:] * d_end_weights).sum((-2, -1), keepdim=True))
        momentum.append((start[..., size:] * d_end_surprise).sum((-2, -1), keepdim=True))
        pairs.append((pull.unflatten(-1, (2, size)) * delta.unsqueeze(-2)).sum(-1).neg_())
    return UpdateShares(*(torch.stack(parts).sum(0) for parts in (weights, surprise, momentum, pairs)))
