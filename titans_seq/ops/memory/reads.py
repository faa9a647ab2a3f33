"""The parallel half of a segment: every token reads with its own weights, all chunks at once.

W_t = a_t W + b_t S - sum_{j<=t} C[t, j] lr_j x_j (outer) delta_j is never formed: a read h W_t is two products with the
chunk's start and one pass of linear attention over the chunk's writes. Shape suffixes as in `writes`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.mlp import ActivationFunction
from titans_seq.ops.memory.writes import ReadShares, Writes, spread, spread_backward


class ReadsGradient(NamedTuple):
    """Gradients of what `read_segment` took."""

    q_NGCI: Tensor
    shares: ReadShares
    writes: Writes
    anchor: list[Tensor] | None


def read_segment(
    q_NGCI: Tensor, writes: Writes, shares: ReadShares, anchor: list[Tensor] | None, act: ActivationFunction
) -> tuple[Tensor, list[Tensor]]:
    """The outputs (N, G, C, O); for the backward pass, what the layers before the last read, (N, G, C, O)."""
    reads: list[Tensor] = []
    h = q_NGCI
    for layer in range(len(writes.starts_NGI2O)):
        if layer:
            h = act.value(reads[-1])
        reads.append(_read_layer(h, writes, shares, anchor, layer))
    return reads.pop(), reads


def _read_layer(h: Tensor, writes: Writes, shares: ReadShares, anchor: list[Tensor] | None, layer: int) -> Tensor:
    x, delta = writes.inputs_NGCI[layer], writes.errors_NGCO[layer]
    scores = (h @ x.mT).mul_(shares.writes_NGCC)
    read = read_start(h, writes.starts_NGI2O[layer], shares.start_NGC2, None if anchor is None else anchor[layer])
    return read.sub_(scores @ delta)


def read_start(h: Tensor, start: Tensor, shares: Tensor, anchor: Tensor | None) -> Tensor:
    """What is left of the chunk's start, read by h (N, G, C, I): a (h W) + b (h S) + (1 - a) (h anchor)."""
    read = spread(h, shares) @ start
    if anchor is not None:
        read.addcmul_(1 - shares[..., :1], h @ anchor)
    return read


class StartGradient(NamedTuple):
    """Gradients of what `read_start` took."""

    h: Tensor
    start: Tensor
    shares: Tensor
    anchor: Tensor | None


def read_start_backward(
    d_read: Tensor, h: Tensor, start: Tensor, shares: Tensor, anchor: Tensor | None
) -> StartGradient:
    """Back through `read_start`."""
    d_h, d_shares = spread_backward(d_read @ start.mT, h, shares)
    d_start = spread(h, shares).mT @ d_read
    if anchor is None:
        return StartGradient(d_h, d_start, d_shares, None)
    forgotten = 1 - shares[..., :1]
    back = d_read @ anchor.mT
    d_h.addcmul_(back, forgotten)
    d_shares[..., 0] -= (back * h).sum(-1)
    return StartGradient(d_h, d_start, d_shares, (h.mT @ (forgotten * d_read)).sum(0))


def read_segment_backward(
    d_y: Tensor,
    q_NGCI: Tensor,
    reads: list[Tensor],
    writes: Writes,
    shares: ReadShares,
    anchor: list[Tensor] | None,
    act: ActivationFunction,
) -> ReadsGradient:
    """Back through `read_segment`."""
    layers = len(reads) + 1
    d_read = d_y
    d_start_shares = torch.zeros_like(shares.start_NGC2)
    d_write_shares = torch.zeros_like(shares.writes_NGCC)
    d_inputs, d_errors, d_starts, d_anchor = ([d_y] * layers for _ in range(4))
    for layer in reversed(range(layers)):
        h = act.value(reads[layer - 1]) if layer else q_NGCI
        start, x, delta = writes.starts_NGI2O[layer], writes.inputs_NGCI[layer], writes.errors_NGCO[layer]
        if layer < layers - 1:
            d_read = d_read * act.slope(reads[layer])
        of_start = read_start_backward(d_read, h, start, shares.start_NGC2, None if anchor is None else anchor[layer])
        d_h, d_starts[layer] = of_start.h, of_start.start
        d_start_shares += of_start.shares
        if of_start.anchor is not None:
            d_anchor[layer] = of_start.anchor
        # From the chunk's writes.
        similarity, d_scores = h @ x.mT, d_read @ delta.mT
        d_write_shares.addcmul_(similarity, d_scores, value=-1)
        d_errors[layer] = similarity.mul_(shares.writes_NGCC).mT @ d_read
        d_errors[layer].neg_()
        d_scores.mul_(shares.writes_NGCC)
        d_h -= d_scores @ x
        d_inputs[layer] = (d_scores.mT @ h).neg_()
        d_read = d_h
    gradient = ReadShares(d_start_shares, d_write_shares)
    d_writes = Writes(d_inputs, d_errors, d_starts)
    return ReadsGradient(d_read, gradient, d_writes, d_anchor if anchor is not None else None)
