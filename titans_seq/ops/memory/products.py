"""Batched products into memory that is there already."""

from torch import Tensor


def matmul_into(out: Tensor, a: Tensor, b: Tensor, alpha: float = 1.0) -> Tensor:
    """Overwrite `out` (N, G, R, S), contiguous, with alpha a @ b."""
    out.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1), beta=0, alpha=alpha)
    return out


def add_matmul(out: Tensor, a: Tensor, b: Tensor, alpha: float = 1.0) -> Tensor:
    """Add alpha a @ b to `out` (N, G, R, S), contiguous."""
    out.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1), alpha=alpha)
    return out
