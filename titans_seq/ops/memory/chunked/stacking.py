"""W and S of a layer, joined in one matrix M, so that one product reads or writes both.

They stand one on top of the other, (2 I, O), or, where the layer has more inputs than outputs, side by side, (I, 2 O),
`side_by_side`. The two coefficients of a token, of W and of S, then only meet the narrower side of the layer: for M
stacked in rows, inputs are spread before a product with M and gathered after one with its transpose; for M side by
side, outputs are gathered after it and spread before its transpose.
"""

import torch
from torch import Tensor


def halves(m: Tensor, side_by_side: bool) -> tuple[Tensor, Tensor]:
    """W and S out of M, both (..., I, O)."""
    weights, surprise = m.chunk(2, dim=-1 if side_by_side else -2)
    return weights, surprise


def spread(rows: Tensor, shares: Tensor) -> Tensor:
    """Rows (..., C, D) times two shares each (..., C, 2), side by side: (..., C, 2 D)."""
    return (shares.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(-2)


def gather(pairs: Tensor, shares: Tensor) -> Tensor:
    """Both halves of pairs (..., C, 2 D) times their shares (..., C, 2), added: (..., C, D); transposes `spread`."""
    of_weights, of_surprise = pairs.chunk(2, dim=-1)
    return (of_weights * shares[..., :1]).addcmul_(of_surprise, shares[..., 1:])


def weigh(pairs: Tensor, rows: Tensor) -> Tensor:
    """Both halves of pairs (..., C, 2 D) times rows (..., C, D), summed: the gradient of shares (..., C, 2)."""
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
