"""Parallel half of a segment: every token reads with its own weights, all chunks at once.

W_t = a_t W + b_t S - sum_{j<=t} C[t, j] lr_j x_j (outer) delta_j is never formed: a read h W_t is two products with the
chunk's start and one pass of linear attention over the chunk's writes. Shape suffixes as in `recurrent`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.recurrent import ReadCoefficients, Writes
from titans_seq.ops.memory.chunked.stacking import add_matmul, gather, matmul_into, spread, weigh
from titans_seq.ops.memory.network import ActivationFunction


class ReadsGradient(NamedTuple):
    """Gradients of `read_chunks`' inputs."""

    q_NGCI: Tensor
    coefficients: ReadCoefficients
    writes: Writes
    decay_target: list[Tensor] | None


def read_chunks(
    q_NGCI: Tensor,
    writes: Writes,
    coefficients: ReadCoefficients,
    decay_target: list[Tensor] | None,
    act: ActivationFunction,
) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs (N, G, C, O) and, for the backward pass, the reads of the layers before the last."""
    reads: list[Tensor] = []
    h = q_NGCI
    for layer in range(len(writes.starts)):
        if layer:
            h = act.value(reads[-1])
        reads.append(_read_layer(h, writes, coefficients, decay_target, layer))
    return reads.pop(), reads


def _read_layer(
    h: Tensor, writes: Writes, coefficients: ReadCoefficients, decay_target: list[Tensor] | None, layer: int
) -> Tensor:
    x, delta = writes.inputs_NGCI[layer], writes.errors_NGCO[layer]
    scores = (h @ x.mT).mul_(coefficients.writes_NGCC)
    read = read_start(
        h,
        writes.starts[layer],
        writes.side_by_side[layer],
        coefficients.start_NGC2,
        None if decay_target is None else decay_target[layer],
    )
    return add_matmul(read, scores, delta, alpha=-1)


def read_start(
    h: Tensor, start: Tensor, side_by_side: bool, coefficients: Tensor, decay_target: Tensor | None
) -> Tensor:
    """Read the decayed start of the chunk with h (N, G, C, I): a (h W) + b (h S) + (1 - a) (h decay_target)."""
    read = gather(h @ start, coefficients) if side_by_side else spread(h, coefficients) @ start
    if decay_target is not None:
        read.addcmul_(1 - coefficients[..., :1], h @ decay_target)
    return read


class StartGradient(NamedTuple):
    """Gradients of `read_start`'s inputs, except the start, for which there is `start_gradient`."""

    h: Tensor
    coefficients: Tensor
    decay_target: Tensor | None


def read_start_backward(
    d_read: Tensor, h: Tensor, start: Tensor, side_by_side: bool, coefficients: Tensor, decay_target: Tensor | None
) -> StartGradient:
    """Gradients of `read_start`."""
    if side_by_side:
        d_h, d_coefficients = spread(d_read, coefficients) @ start.mT, weigh(h @ start, d_read)
    else:
        pairs = d_read @ start.mT
        d_h, d_coefficients = gather(pairs, coefficients), weigh(pairs, h)
    if decay_target is None:
        return StartGradient(d_h, d_coefficients, None)
    forgotten = 1 - coefficients[..., :1]
    back = d_read @ decay_target.mT
    d_h.addcmul_(back, forgotten)
    d_coefficients[..., 0] -= (back * h).sum(-1)
    return StartGradient(d_h, d_coefficients, (h.mT @ (forgotten * d_read)).sum(0))


def start_gradient(out: Tensor, d_read: Tensor, h: Tensor, side_by_side: bool, coefficients: Tensor) -> None:
    """Write the gradient of `read_start` with respect to `start` to `out`."""
    if side_by_side:
        matmul_into(out, h.mT, spread(d_read, coefficients))
    else:
        matmul_into(out, spread(h, coefficients).mT, d_read)


def read_chunks_backward(
    d_y: Tensor,
    q_NGCI: Tensor,
    reads: list[Tensor],
    writes: Writes,
    coefficients: ReadCoefficients,
    decay_target: list[Tensor] | None,
    act: ActivationFunction,
    d_starts: list[Tensor],
) -> ReadsGradient:
    """Gradients of `read_chunks`; that of `writes.starts` is written to the buffers `d_starts`, by layer."""
    layers = len(reads) + 1
    d_read = d_y
    d_start_coefficients = torch.zeros_like(coefficients.start_NGC2)
    d_write_coefficients = torch.zeros_like(coefficients.writes_NGCC)
    d_inputs, d_errors, d_decay_target = ([d_y] * layers for _ in range(3))
    for layer in reversed(range(layers)):
        h = act.value(reads[layer - 1]) if layer else q_NGCI
        x, delta = writes.inputs_NGCI[layer], writes.errors_NGCO[layer]
        start, side_by_side = writes.starts[layer], writes.side_by_side[layer]
        if layer < layers - 1:
            d_read = act.vjp(d_read, reads[layer])
        start_gradient(d_starts[layer], d_read, h, side_by_side, coefficients.start_NGC2)
        of_start = read_start_backward(
            d_read,
            h,
            start,
            side_by_side,
            coefficients.start_NGC2,
            None if decay_target is None else decay_target[layer],
        )
        d_h = of_start.h
        d_start_coefficients += of_start.coefficients
        if of_start.decay_target is not None:
            d_decay_target[layer] = of_start.decay_target
        # Gradients through the reads of the chunk's writes.
        similarity, d_scores = h @ x.mT, d_read @ delta.mT
        d_write_coefficients.addcmul_(similarity, d_scores, value=-1)
        d_errors[layer] = matmul_into(
            torch.empty_like(delta), similarity.mul_(coefficients.writes_NGCC).mT, d_read, alpha=-1
        )
        add_matmul(d_h, d_scores.mul_(coefficients.writes_NGCC), x, alpha=-1)
        d_inputs[layer] = matmul_into(torch.empty_like(x), d_scores.mT, h, alpha=-1)
        d_read = d_h
    gradient = ReadCoefficients(d_start_coefficients, d_write_coefficients)
    d_writes = Writes(d_inputs, d_errors, d_starts, writes.side_by_side)
    return ReadsGradient(d_read, gradient, d_writes, d_decay_target if decay_target is not None else None)
