"""How the kernels cut their work: sizes of tiles, threads, and how products are rounded."""

from typing import Any, NamedTuple

import torch

HEAD_DIMS = (32, 64, 128)
# Head dimension, whether online, precision: what compiles for sm_80 and sm_90 without spilling registers, as
# `benchmarks/kernel_resources.py` checks.
SHIPPED = (
    (32, False, "bf16"),
    (64, False, "bf16"),
    (64, True, "bf16"),
    (64, False, "ieee"),
    (128, False, "bf16"),
)
# Tokens of a tile, the fewest that tensor cores take; longer chunks are cut into tiles. (The tables of 32 did not fit
# into the registers of a program.)
CHUNK = 16


class Tiles(NamedTuple):
    """What the kernels are compiled for."""

    head_dim: int
    value_dim: int
    online: bool
    precision: str  # of products, see `kernels`

    @classmethod
    def of(cls, dtype: torch.dtype, head_dim: int, value_dim: int, online: bool) -> "Tiles":
        """For tokens of a type. float16 is computed as float32: gradients do not fit its range."""
        return cls(head_dim, value_dim, online, "bf16" if dtype == torch.bfloat16 else "ieee")

    @property
    def shipped(self) -> bool:
        """Whether compiled kernels are known to fit on the chip; how wide the values are makes no difference."""
        return (self.head_dim, self.online, self.precision) in SHIPPED

    @property
    def columns(self) -> int:
        """Of the values, to a block, that is, to a program of the walks."""
        return 32 if self.precision == "bf16" and self.head_dim < max(HEAD_DIMS) else 16

    @property
    def blocks(self) -> int:
        """Of columns; so many programs share a head."""
        return self.value_dim // self.columns

    @property
    def operand(self) -> torch.dtype:
        """What the operands of products are rounded to, or kept in where rounding is left to the tensor cores."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def settings(self, kernel: str) -> dict[str, Any]:
        """What a kernel is launched with besides its arguments."""
        settings: dict[str, Any] = {
            "D": self.head_dim,
            "C": CHUNK,
            "ONLINE": self.online,
            "PRECISION": self.precision,
            "num_warps": 4,
            "num_stages": 2 if self.precision == "bf16" else 1,
        }
        if kernel == "matrix_finish_backward":  # adds up block after block: narrow ones leave room for the sums
            warps = 8 if self.precision == "ieee" or self.head_dim > 64 else 4
            return {**settings, "D_V": self.value_dim, "V": 16, "num_warps": warps}
        return settings if kernel == "matrix_prepare" else {**settings, "D_V": self.value_dim, "V": self.columns}
