"""W and S of a layer concatenated in one matrix M, so that one product reads or writes both.

They are concatenated along rows, (2 I, O), or, where the layer has more inputs than outputs, along columns, (I, 2 O),
`side_by_side`. The two coefficients of a token, of W and of S, then only scale the narrower side of the layer: for M
concatenated along rows, inputs are spread before a product with M and gathered after one with its transpose; for M
concatenated along columns, outputs are gathered after it and spread before its transpose.
"""

import torch
from torch import Tensor


def halves(m: Tensor, side_by_side: bool) -> tuple[Tensor, Tensor]:
    """Split M into W and S, both (..., I, O)."""
    weights, surprise = m.chunk(2, dim=-1 if side_by_side else -2)
    return weights, surprise


def spread(rows: Tensor, coefficients: Tensor) -> Tensor:
    """Scale rows (..., C, D) by two coefficients each (..., C, 2), concatenated: (..., C, 2 D)."""
    return (coefficients.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(-2)


def gather(pairs: Tensor, coefficients: Tensor) -> Tensor:
    """Sum the halves of pairs (..., C, 2 D), scaled by coefficients (..., C, 2): (..., C, D); transpose of `spread`."""
    of_weights, of_surprise = pairs.chunk(2, dim=-1)
    return (of_weights * coefficients[..., :1]).addcmul_(of_surprise, coefficients[..., 1:])


def weigh(pairs: Tensor, rows: Tensor) -> Tensor:
    """Inner products of the halves of pairs (..., C, 2 D) with rows (..., C, D): coefficient gradients (..., C, 2)."""
    products: Tensor = torch.unflatten(pairs, -1, (2, -1)) * rows.unsqueeze(-2)
    return products.sum(-1)


def matmul_into(out: Tensor, a: Tensor, b: Tensor, alpha: float = 1.0) -> Tensor:
    """Overwrite `out` (N, G, R, S), contiguous, with alpha a @ b."""
    out.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1), beta=0, alpha=alpha)
    return out


def add_matmul(out: Tensor, a: Tensor, b: Tensor, alpha: float = 1.0) -> Tensor:
    """Add alpha a @ b to `out` (N, G, R, S), contiguous."""
    out.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1), alpha=alpha)
    return out
