"""Per-token norms of surprise, update and memory: computed on request, outside the autograd graph."""

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.recurrent import ReadCoefficients, Writes
from titans_seq.ops.memory.chunked.stacking import halves
from titans_seq.ops.memory.state import MemoryStats


def group_stats(
    writes: Writes, of_weights: ReadCoefficients, of_surprise: ReadCoefficients, decay_target: list[Tensor] | None
) -> MemoryStats:
    """Stats of a group of chunks, each (N, G, C), from its writes and the coefficients of W_t and of S_t.

    W_t and S_t are weighted sums of the chunk's start W and S, its writes and the decay target, so that their norms
    follow from those terms' inner products; for writes these are (x_i . x_j) (delta_i . delta_j). No W_t is formed.
    """
    totals = [torch.zeros(()), torch.zeros(()), torch.zeros(())]
    for layer, (x, delta, start, side_by_side) in enumerate(zip(*writes, strict=True)):
        start_terms = list(halves(start, side_by_side))
        if decay_target is not None:
            start_terms.append(decay_target[layer].expand_as(start_terms[0]))
        write_products = (x @ x.mT) * (delta @ delta.mT)
        # <M, x_j (outer) delta_j> = x_j . M delta_j
        cross_products = torch.stack([((x @ m) * delta).sum(-1) for m in start_terms], dim=-2)
        flat = torch.stack([m.flatten(-2) for m in start_terms], dim=-2)
        products = torch.cat(
            [
                torch.cat([flat @ flat.mT, cross_products], dim=-1),
                torch.cat([cross_products.mT, write_products], dim=-1),
            ],
            dim=-2,
        )
        squares = [write_products.diagonal(dim1=-2, dim2=-1)]
        for coefficients, forgets in ((of_surprise, False), (of_weights, True)):
            weights = [coefficients.start_NGC2]
            if decay_target is not None:
                forgotten = 1 - coefficients.start_NGC2[..., :1]
                weights.append(forgotten if forgets else torch.zeros_like(forgotten))
            row = torch.cat([*weights, -coefficients.writes_NGCC], dim=-1)
            squares.append(((row @ products) * row).sum(-1))
        totals = [total + square for total, square in zip(totals, squares, strict=True)]
    # Rounding can make a square that is zero slightly negative.
    return MemoryStats(*(total.clamp_min(0).sqrt() for total in totals))
