"""Rotary position embedding (RoFormer, Su et al., 2021): scores depend on the distance between tokens."""

import torch
from torch import Tensor


def rotary_angles(rotated: int, positions: int, like: Tensor, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position's angles, both (positions, 1, rotated / 2)."""
    # In float64 the angle of the millionth token still has ten digits, so that its cosine is exact in float32.
    pair = torch.arange(0, rotated, 2, dtype=torch.float64, device=like.device)
    position = torch.arange(positions, dtype=torch.float64, device=like.device)
    angle = torch.outer(position, base ** (-pair / rotated))[:, None]
    dtype = torch.promote_types(like.dtype, torch.float32)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first R features of x (..., T, H, D), feature i with feature i + R / 2, by angles (T, 1, R / 2)."""
    half = cos.shape[-1]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest], dim=-1)
