"""Sequential half of a segment: the recurrence over chunks, which writes and updates the state.

A `WriteRule` computes a chunk's writes: `chunk_rule` takes their gradients at the chunk's start, `online_rule` at every
token's own weights. This module contains what both have in common.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's input and output features. W and S
of a layer are concatenated in one matrix M (`stacking`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.stacking import gather, halves, spread, weigh

StackedState = list[Tensor]  # per layer W and S concatenated along rows, (G, 2 I, O), for layers of any size


class UpdateCoefficients(NamedTuple):
    """Decay coefficients of a chunk's end: the last rows of the decay tables."""

    start_3NG: Tensor  # a, b: start's W and S in the end's W; e: start's S in the end's S
    writes_NGC2: Tensor  # each write, times its lr, in the end's W and S


class ReadCoefficients(NamedTuple):
    """Decay coefficients of a token's weights: the rows of the decay table of W."""

    start_NGC2: Tensor  # a, b: the start's W and S
    writes_NGCC: Tensor  # C[t, j] lr_j: write j


class Writes(NamedTuple):
    """Writes of every chunk and the states they are added to, by layer; write j is -lr_j inputs_j (outer) errors_j."""

    inputs_NGCI: list[Tensor]  # the layers' inputs for the keys
    errors_NGCO: list[Tensor]  # the errors that reach the layers' outputs
    starts: list[Tensor]  # M at each chunk's start, (N, G, 2 I, O) or (N, G, I, 2 O)
    side_by_side: list[bool]  # W and S concatenated along columns: coefficients scale the layer's outputs


class RuleGradient(NamedTuple):
    """Gradients of a `WriteRule`'s inputs."""

    k_NGCI: Tensor
    v_NGCO: Tensor
    reference: list[Tensor] | None = None
    past: ReadCoefficients | None = None
    decay_target: list[Tensor] | None = None


class WriteRule(Protocol):
    """Computes a chunk's writes from its keys, values and the state at its start."""

    writes: Writes  # the rule fills in inputs and errors, `scan_chunks` fills in starts

    def write(self, n: int, start: StackedState) -> None:
        """Compute the writes of chunk n, whose start is `start`."""

    def write_backward(self, n: int, d_writes: Writes, d_start: StackedState) -> None:
        """Add the gradient of chunk n's start to `d_start`, given the complete gradient of the chunk's writes.

        Gradients that the next chunk in the reverse scan does not need may be left to `finish_backward`.
        """

    def finish_backward(self, d_writes: Writes) -> RuleGradient:
        """Return the remaining gradients, after all chunks."""


def scan_chunks(
    rule: WriteRule, coefficients: UpdateCoefficients, states: list[Tensor], decay_target: list[Tensor] | None
) -> None:
    """Run the recurrence over chunks, with the writes computed by `rule`.

    `states` (N + 1, G, ...) by layer holds M at the first chunk's start, and receives M at every chunk's end, which is
    the next one's start; all but its last entry are the rule's `starts`.
    """
    writes = rule.writes
    decay_targets: Sequence[Tensor | None] = decay_target or [None] * len(states)
    of_keys = spread(writes.inputs_NGCI[0], coefficients.writes_NGC2) if not writes.side_by_side[0] else None
    for n in range(len(coefficients.writes_NGC2)):
        rule.write(n, [buffer[n] for buffer in states])
        a, b, e = coefficients.start_3NG[:, n, :, None, None]
        for layer, (buffer, target) in enumerate(zip(states, decay_targets, strict=True)):
            side_by_side = writes.side_by_side[layer]
            (weights, surprise), (end_weights, end_surprise) = (halves(m, side_by_side) for m in buffer[n : n + 2])
            torch.mul(surprise, e, out=end_surprise)
            torch.mul(weights, a, out=end_weights).addcmul_(surprise, b)
            if target is not None:
                end_weights.addcmul_(target, 1 - a)
            x, delta = writes.inputs_NGCI[layer][n], writes.errors_NGCO[layer][n]
            if side_by_side:
                delta = spread(delta, coefficients.writes_NGC2[n])
            else:
                x = of_keys[n] if layer == 0 and of_keys is not None else spread(x, coefficients.writes_NGC2[n])
            buffer[n + 1].baddbmm_(x.mT, delta, alpha=-1)


class ScanGradient(NamedTuple):
    """Gradients of `scan_chunks`' inputs, except the states, whose gradients stay in their buffers."""

    rule: RuleGradient
    coefficients: UpdateCoefficients
    decay_target: list[Tensor] | None


def scan_chunks_backward(
    rule: WriteRule,
    coefficients: UpdateCoefficients,
    d_states: list[Tensor],
    d_writes: Writes,
    decay_target: list[Tensor] | None,
) -> ScanGradient:
    """Gradients of `scan_chunks`, computed in reverse order of the chunks.

    `d_states` (N + 1, G, ...) by layer holds the gradient of the end's M in its last entry, and in the others the
    reads' gradients of the chunks' starts (`d_writes.starts` share this memory); the rest is added here. The other
    gradients in `d_writes`, from the reads, are overwritten.
    """
    writes = rule.writes
    d_write_coefficients = torch.zeros_like(coefficients.writes_NGC2)
    for n in reversed(range(len(d_write_coefficients))):
        a, b, e = coefficients.start_3NG[:, n, :, None, None]
        for layer, buffer in enumerate(d_states):
            side_by_side = writes.side_by_side[layer]
            (d_weights, d_surprise), (d_end_weights, d_end_surprise) = (
                halves(m, side_by_side) for m in buffer[n : n + 2]
            )
            d_weights.addcmul_(d_end_weights, a)
            d_surprise.addcmul_(d_end_weights, b).addcmul_(d_end_surprise, e)
            x, delta, d_x, d_delta = (
                part[layer][n]
                for part in (writes.inputs_NGCI, writes.errors_NGCO, d_writes.inputs_NGCI, d_writes.errors_NGCO)
            )
            if side_by_side:
                pairs = torch.bmm(x, buffer[n + 1])
                d_delta.sub_(gather(pairs, coefficients.writes_NGC2[n]))
                d_write_coefficients[n].sub_(weigh(pairs, delta))
                d_x.baddbmm_(spread(delta, coefficients.writes_NGC2[n]), buffer[n + 1].mT, alpha=-1)
            else:
                d_delta.baddbmm_(spread(x, coefficients.writes_NGC2[n]), buffer[n + 1], alpha=-1)
                if layer > 0:  # the keys' gradient is computed for all chunks at once, below
                    pairs = torch.bmm(delta, buffer[n + 1].mT)
                    d_x.sub_(gather(pairs, coefficients.writes_NGC2[n]))
                    d_write_coefficients[n].sub_(weigh(pairs, x))
        rule.write_backward(n, d_writes, [buffer[n] for buffer in d_states])
    d_ends = [buffer[1:] for buffer in d_states]
    if not writes.side_by_side[0]:
        pairs = writes.errors_NGCO[0] @ d_ends[0].mT
        d_writes.inputs_NGCI[0].sub_(gather(pairs, coefficients.writes_NGC2))
        d_write_coefficients.sub_(weigh(pairs, writes.inputs_NGCI[0]))
    d_start_coefficients = torch.zeros_like(coefficients.start_3NG)
    d_decay_target: list[Tensor] | None = [] if decay_target is not None else None
    for layer, (start, d_end) in enumerate(zip(writes.starts, d_ends, strict=True)):
        (weights, surprise), (d_weights, d_surprise) = (halves(m, writes.side_by_side[layer]) for m in (start, d_end))
        for index, (x, d) in enumerate(((weights, d_weights), (surprise, d_weights), (surprise, d_surprise))):
            d_start_coefficients[index] += (x * d).sum((-2, -1))
        if decay_target is not None and d_decay_target is not None:
            d_decay_target.append(((1 - coefficients.start_3NG[0, ..., None, None]) * d_weights).sum(0))
            d_start_coefficients[0] -= (decay_target[layer] * d_weights).sum((-2, -1))
    return ScanGradient(
        rule.finish_backward(d_writes), UpdateCoefficients(d_start_coefficients, d_write_coefficients), d_decay_target
    )
