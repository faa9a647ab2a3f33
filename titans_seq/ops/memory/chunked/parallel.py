"""The parallel half of a segment: every token reads with its own weights, all chunks at once.

W_t = a_t W + b_t S - sum_{j<=t} C[t, j] lr_j x_j (outer) delta_j is never formed: a read h W_t is two products with the
chunk's start and one pass of linear attention over the chunk's writes. Shape suffixes as in `writes`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.recurrent import ReadCoefficients, Writes
from titans_seq.ops.memory.chunked.stacking import add_matmul, gather, matmul_into, spread, weigh
from titans_seq.ops.memory.network import ActivationFunction


class ReadsGradient(NamedTuple):
    """Gradients of what `read_chunks` took."""

    q_NGCI: Tensor
    shares: ReadCoefficients
    writes: Writes
    anchor: list[Tensor] | None


def read_chunks(
    q_NGCI: Tensor, writes: Writes, shares: ReadCoefficients, anchor: list[Tensor] | None, act: ActivationFunction
) -> tuple[Tensor, list[Tensor]]:
    """The outputs (N, G, C, O); for the backward pass, what the layers before the last read, (N, G, C, O)."""
    reads: list[Tensor] = []
    h = q_NGCI
    for layer in range(len(writes.starts)):
        if layer:
            h = act.value(reads[-1])
        reads.append(_read_layer(h, writes, shares, anchor, layer))
    return reads.pop(), reads


def _read_layer(h: Tensor, writes: Writes, shares: ReadCoefficients, anchor: list[Tensor] | None, layer: int) -> Tensor:
    x, delta = writes.inputs_NGCI[layer], writes.errors_NGCO[layer]
    scores = (h @ x.mT).mul_(shares.writes_NGCC)
    read = read_start(
        h,
        writes.starts[layer],
        writes.side_by_side[layer],
        shares.start_NGC2,
        None if anchor is None else anchor[layer],
    )
    return add_matmul(read, scores, delta, alpha=-1)


def read_start(h: Tensor, start: Tensor, side_by_side: bool, shares: Tensor, anchor: Tensor | None) -> Tensor:
    """What is left of the chunk's start, read by h (N, G, C, I): a (h W) + b (h S) + (1 - a) (h anchor)."""
    read = gather(h @ start, shares) if side_by_side else spread(h, shares) @ start
    if anchor is not None:
        read.addcmul_(1 - shares[..., :1], h @ anchor)
    return read


class StartGradient(NamedTuple):
    """Gradients of what `read_start` took, but for the start, whose own `start_gradient` gives."""

    h: Tensor
    shares: Tensor
    anchor: Tensor | None


def read_start_backward(
    d_read: Tensor, h: Tensor, start: Tensor, side_by_side: bool, shares: Tensor, anchor: Tensor | None
) -> StartGradient:
    """Back through `read_start`."""
    if side_by_side:
        d_h, d_shares = spread(d_read, shares) @ start.mT, weigh(h @ start, d_read)
    else:
        pairs = d_read @ start.mT
        d_h, d_shares = gather(pairs, shares), weigh(pairs, h)
    if anchor is None:
        return StartGradient(d_h, d_shares, None)
    forgotten = 1 - shares[..., :1]
    back = d_read @ anchor.mT
    d_h.addcmul_(back, forgotten)
    d_shares[..., 0] -= (back * h).sum(-1)
    return StartGradient(d_h, d_shares, (h.mT @ (forgotten * d_read)).sum(0))


def start_gradient(out: Tensor, d_read: Tensor, h: Tensor, side_by_side: bool, shares: Tensor) -> None:
    """The gradient of what `read_start` took for `start`, to `out`."""
    if side_by_side:
        matmul_into(out, h.mT, spread(d_read, shares))
    else:
        matmul_into(out, spread(h, shares).mT, d_read)


def read_chunks_backward(
    d_y: Tensor,
    q_NGCI: Tensor,
    reads: list[Tensor],
    writes: Writes,
    shares: ReadCoefficients,
    anchor: list[Tensor] | None,
    act: ActivationFunction,
    d_starts: list[Tensor],
) -> ReadsGradient:
    """Back through `read_chunks`; `d_starts`, by layer as `writes.starts`, is room for the gradient of these."""
    layers = len(reads) + 1
    d_read = d_y
    d_start_shares = torch.zeros_like(shares.start_NGC2)
    d_write_shares = torch.zeros_like(shares.writes_NGCC)
    d_inputs, d_errors, d_anchor = ([d_y] * layers for _ in range(3))
    for layer in reversed(range(layers)):
        h = act.value(reads[layer - 1]) if layer else q_NGCI
        x, delta = writes.inputs_NGCI[layer], writes.errors_NGCO[layer]
        start, side_by_side = writes.starts[layer], writes.side_by_side[layer]
        if layer < layers - 1:
            d_read = act.vjp(d_read, reads[layer])
        start_gradient(d_starts[layer], d_read, h, side_by_side, shares.start_NGC2)
        of_start = read_start_backward(
            d_read, h, start, side_by_side, shares.start_NGC2, None if anchor is None else anchor[layer]
        )
        d_h = of_start.h
        d_start_shares += of_start.shares
        if of_start.anchor is not None:
            d_anchor[layer] = of_start.anchor
        # From the chunk's writes.
        similarity, d_scores = h @ x.mT, d_read @ delta.mT
        d_write_shares.addcmul_(similarity, d_scores, value=-1)
        d_errors[layer] = matmul_into(torch.empty_like(delta), similarity.mul_(shares.writes_NGCC).mT, d_read, alpha=-1)
        add_matmul(d_h, d_scores.mul_(shares.writes_NGCC), x, alpha=-1)
        d_inputs[layer] = matmul_into(torch.empty_like(x), d_scores.mT, h, alpha=-1)
        d_read = d_h
    gradient = ReadCoefficients(d_start_shares, d_write_shares)
    d_writes = Writes(d_inputs, d_errors, d_starts, writes.side_by_side)
    return ReadsGradient(d_read, gradient, d_writes, d_anchor if anchor is not None else None)
