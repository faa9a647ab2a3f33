"""What the memory did, token by token, for those who want to look: computed on request, outside the graph."""

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.recurrent import ReadCoefficients, Writes
from titans_seq.ops.memory.chunked.stacking import halves
from titans_seq.ops.memory.state import MemoryStats


def group_stats(
    writes: Writes, of_weights: ReadCoefficients, of_surprise: ReadCoefficients, anchor: list[Tensor] | None
) -> MemoryStats:
    """Stats of a group of chunks, each (N, G, C), out of its writes and of the shares of W_t and of S_t.

    W_t and S_t are weighted sums of the chunk's start W and S, its writes and the anchor, so that their norms follow
    from those terms' inner products; for writes these are (x_i . x_j) (delta_i . delta_j). No W_t is formed.
    """
    totals = [torch.zeros(()), torch.zeros(()), torch.zeros(())]
    for layer, (x, delta, start, side_by_side) in enumerate(zip(*writes, strict=True)):
        fixed = list(halves(start, side_by_side))
        if anchor is not None:
            fixed.append(anchor[layer].expand_as(fixed[0]))
        alike = (x @ x.mT) * (delta @ delta.mT)
        # <M, x_j (outer) delta_j> = x_j . M delta_j
        across = torch.stack([((x @ m) * delta).sum(-1) for m in fixed], dim=-2)
        flat = torch.stack([m.flatten(-2) for m in fixed], dim=-2)
        products = torch.cat(
            [torch.cat([flat @ flat.mT, across], dim=-1), torch.cat([across.mT, alike], dim=-1)], dim=-2
        )
        squares = [alike.diagonal(dim1=-2, dim2=-1)]
        for shares, forgets in ((of_surprise, False), (of_weights, True)):
            weights = [shares.start_NGC2]
            if anchor is not None:
                let_go = 1 - shares.start_NGC2[..., :1]
                weights.append(let_go if forgets else torch.zeros_like(let_go))
            row = torch.cat([*weights, -shares.writes_NGCC], dim=-1)
            squares.append(((row @ products) * row).sum(-1))
        totals = [total + square for total, square in zip(totals, squares, strict=True)]
    # Rounding can leave a square that ought to be zero slightly negative.
    return MemoryStats(*(total.clamp_min(0).sqrt() for total in totals))
