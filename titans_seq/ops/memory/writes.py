"""The sequential half of a segment: walk over its chunks, write, and hand the state on.

How a chunk's writes come about is the business of a `WriteRule`: `chunk_rule` takes their gradients at the chunk's
start, `online` at every token's own weights. Here is what both share.

Shape suffixes: N chunks of the segment, G = batch x heads, C tokens of a chunk, I and O a layer's input and output
features. W of a layer stands on top of its S in one matrix M (2 I, O), so that a row scaled by two shares, side by
side, reads or writes both in one product (`spread`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

State = list[Tensor]  # per layer M_GI2O: W on top of S


class UpdateShares(NamedTuple):
    """How a chunk's end depends on its start and on its writes; the last rows of the decay tables."""

    transition_NG22: Tensor  # rows: of the start's W and S in the end's W, then in the end's S
    writes_NGC2: Tensor  # of each write, times its lr, in the end's W and S


class ReadShares(NamedTuple):
    """What a token's weights are made of; the rows of the decay table of W."""

    start_NGC2: Tensor  # a and b: of the start's W and S
    writes_NGCC: Tensor  # C[t, j] lr_j: of write j


class Writes(NamedTuple):
    """What every chunk wrote, and onto what; lists by layer. Token j's write is -lr_j inputs_j (outer) errors_j."""

    inputs_NGCI: list[Tensor]  # the layers' inputs for the keys
    errors_NGCO: list[Tensor]  # the errors that reach the layers' outputs
    starts_NGI2O: list[Tensor]  # M at each chunk's start


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

    `states` (N + 1, G, 2 I, O) by layer is room for every chunk's start and the last one's end; all but its last are
    the rule's `starts`.
    """
    writes = rule.writes
    anchors: Sequence[Tensor | None] = anchor or [None] * len(state)
    of_keys_NGCI2 = spread(writes.inputs_NGCI[0], shares.writes_NGC2)
    for room, m in zip(states, state, strict=True):
        room[0] = m
    for n in range(len(of_keys_NGCI2)):
        rule.write(n, [room[n] for room in states])
        for layer, (room, to) in enumerate(zip(states, anchors, strict=True)):
            start, end, delta = room[n], room[n + 1], writes.errors_NGCO[layer][n]
            torch.bmm(shares.transition_NG22[n], _flat(start), out=_flat(end))
            if to is not None:
                forgotten = 1 - shares.transition_NG22[n][:, :1, :1]
                end.chunk(2, dim=-2)[0].addcmul_(forgotten, to)
            x = of_keys_NGCI2[n] if layer == 0 else spread(writes.inputs_NGCI[layer][n], shares.writes_NGC2[n])
            end.baddbmm_(x.mT, delta, alpha=-1)
    return [room[-1].clone() for room in states]  # a view would keep all the others alive


def _flat(m: Tensor) -> Tensor:
    """M (..., 2 I, O) as two rows, W and S, (..., 2, I O)."""
    return torch.unflatten(m, -2, (2, -1)).flatten(-2)


def spread(rows: Tensor, shares: Tensor) -> Tensor:
    """Rows (..., C, I) times two shares each (..., C, 2), side by side: (..., C, 2 I)."""
    return (shares.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(-2)


def spread_backward(d_spread: Tensor, rows: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the rows and of the shares from that of `spread`."""
    d_halves = d_spread.unflatten(-1, (2, -1))
    d_rows = d_halves[..., 0, :] * shares[..., :1]
    d_rows.addcmul_(d_halves[..., 1, :], shares[..., 1:])
    return d_rows, (d_halves * rows.unsqueeze(-2)).sum(-1)


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
    inputs, errors = writes.inputs_NGCI, writes.errors_NGCO
    of_keys_NGCI2 = spread(inputs[0], shares.writes_NGC2)
    d_ends = [torch.empty_like(start) for start in writes.starts_NGI2O]
    d_write_shares = torch.zeros_like(shares.writes_NGC2)
    for n in reversed(range(len(inputs[0]))):
        for layer, d_end in enumerate(d_state):
            d_ends[layer][n] = d_end
            x = of_keys_NGCI2[n] if layer == 0 else spread(inputs[layer][n], shares.writes_NGC2[n])
            d_writes.errors_NGCO[layer][n].baddbmm_(x, d_end, alpha=-1)
            if layer > 0:  # the keys' gradient can wait
                d_x, d_shares = _of_update(errors[layer][n], d_end, inputs[layer][n], shares.writes_NGC2[n])
                d_writes.inputs_NGCI[layer][n].sub_(d_x)
                d_write_shares[n].sub_(d_shares)
        for d_start, d_end in zip(d_writes.starts_NGI2O, d_ends, strict=True):
            _flat(d_start[n]).baddbmm_(shares.transition_NG22[n].mT, _flat(d_end[n]))
        d_state = [d_start[n] for d_start in d_writes.starts_NGI2O]
        rule.write_backward(n, d_writes, d_state)
    d_k, d_shares = _of_update(errors[0], d_ends[0], inputs[0], shares.writes_NGC2)
    d_writes.inputs_NGCI[0].sub_(d_k)
    d_transition = torch.stack(
        [_flat(d_end) @ _flat(start).mT for start, d_end in zip(writes.starts_NGI2O, d_ends, strict=True)]
    ).sum(0)
    d_anchor = None
    if anchor is not None:
        d_end_weights = [d_end.chunk(2, dim=-2)[0] for d_end in d_ends]
        d_anchor = [((1 - shares.transition_NG22[..., :1, :1]) * d).sum(0) for d in d_end_weights]
        for to, d in zip(anchor, d_end_weights, strict=True):
            d_transition[..., 0, 0] -= (to * d).sum((-2, -1))
    of_shares = UpdateShares(d_transition, d_write_shares.sub_(d_shares))
    return WalkGradient(rule.finish_backward(d_writes), of_shares, d_state, d_anchor)


def _of_update(delta: Tensor, d_end: Tensor, x: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """What an update's gradient gives the layer's inputs and the shares, with the sign turned."""
    return spread_backward(delta @ d_end.mT, x, shares)
