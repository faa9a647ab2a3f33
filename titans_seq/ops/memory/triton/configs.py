"""Kernel configurations: tile sizes, numbers of warps, and the precision of products.

Each kind of memory has a few configurations, of which `autotune` chooses the fastest on a device;
`benchmarks/kernel_resources.py` compiles all of them for sm_80 and sm_90 and fails if one spills registers.
"""

from typing import Any, NamedTuple

import torch

HEAD_DIMS = (32, 64, 128)
EXPANSIONS = (1, 2, 3, 4)  # of a memory of depth 2: hidden units over head_dim
# Tokens of a tile, the minimum for tensor cores; longer chunks are split into tiles. (With 32, the decay tables did not
# fit into a program's registers.)
CHUNK = 16

MATRIX_KERNELS = ("matrix_prepare", "matrix_walk", "matrix_walk_backward", "matrix_finish_backward", "gates_backward")
MLP_KERNELS = (
    "matrix_prepare",
    "mlp_walk",
    "mlp_read",
    "mlp_reads_backward",
    "mlp_walk_backward",
    "mlp_finish_backward",
    "gates_backward",
)


class MatrixConfig(NamedTuple):
    """Launch configuration of the matrix memory's kernels."""

    columns: int  # value columns per block, that is, per program of the scan kernels
    warps: int
    stages: int
    finish_warps: int


class MlpConfig(NamedTuple):
    """Launch configuration of the kernels for depth 2."""

    block: int  # hidden units per block in the scan kernels; the other kernels use 16
    warps: int
    stages: int


# By head dimension, whether online, and precision: configurations that compile without spilling.
MATRIX_CONFIGS: dict[tuple[int, bool, str], tuple[MatrixConfig, ...]] = {
    (32, False, "bf16"): (MatrixConfig(32, 8, 2, 4), MatrixConfig(16, 4, 2, 4)),
    (32, True, "bf16"): (MatrixConfig(32, 4, 2, 4), MatrixConfig(32, 8, 2, 4)),
    (64, False, "bf16"): (MatrixConfig(32, 4, 2, 4), MatrixConfig(16, 4, 2, 4), MatrixConfig(32, 8, 2, 4)),
    (64, True, "bf16"): (MatrixConfig(16, 4, 2, 4), MatrixConfig(32, 8, 2, 4)),
    (128, False, "bf16"): (MatrixConfig(16, 4, 2, 8), MatrixConfig(32, 8, 2, 8)),
    (128, True, "bf16"): (MatrixConfig(16, 4, 2, 8), MatrixConfig(32, 4, 2, 8)),
    (32, False, "ieee"): (MatrixConfig(16, 4, 1, 4),),
    (32, True, "ieee"): (MatrixConfig(16, 4, 1, 4),),
    (64, False, "ieee"): (MatrixConfig(16, 8, 1, 8),),
    (64, True, "ieee"): (MatrixConfig(16, 8, 1, 8),),
}
# By head dimension and precision.
MLP_CONFIGS: dict[tuple[int, str], tuple[MlpConfig, ...]] = {
    (32, "bf16"): (MlpConfig(16, 8, 1),),
    (64, "bf16"): (MlpConfig(16, 8, 1),),
    (32, "ieee"): (MlpConfig(16, 8, 1),),
    (64, "ieee"): (MlpConfig(32, 8, 1),),
}
# Registers per thread by kernel, head dimension, whether online, and precision, where the compiler's own choice ends in
# spills: it aims at fewer registers, to run more programs at once, or at too many.
_REGISTERS = {
    ("matrix_finish_backward", 32, True, "bf16"): 255,
    ("matrix_walk", 64, True, "ieee"): 255,
    ("matrix_finish_backward", 64, True, "ieee"): 200,
    ("mlp_read", 32, False, "bf16"): 255,
    ("mlp_read", 64, False, "ieee"): 255,
    ("mlp_reads_backward", 32, False, "ieee"): 255,
    ("mlp_finish_backward", 64, False, "ieee"): 255,
}


class Tiles(NamedTuple):
    """Compile-time parameters of the matrix memory's kernels."""

    head_dim: int
    value_dim: int
    online: bool
    precision: str  # of products, see `kernels`
    config: MatrixConfig

    @classmethod
    def candidates(cls, dtype: torch.dtype, head_dim: int, value_dim: int, online: bool) -> "list[Tiles]":
        """Return the shipped configurations for tokens of a type; an empty list if there is none."""
        precision = _precision(dtype)
        configs = MATRIX_CONFIGS.get((head_dim, online, precision), ())
        return [cls(head_dim, value_dim, online, precision, config) for config in configs]

    @classmethod
    def of(cls, dtype: torch.dtype, head_dim: int, value_dim: int, online: bool) -> "Tiles":
        """Return the first configuration, or a default one for the interpreter, which has no register limit."""
        found = cls.candidates(dtype, head_dim, value_dim, online)
        return found[0] if found else cls(head_dim, value_dim, online, _precision(dtype), MatrixConfig(16, 4, 1, 4))

    @property
    def blocks(self) -> int:
        """Number of column blocks, that is, of programs per head."""
        return self.value_dim // self.config.columns

    @property
    def operand(self) -> torch.dtype:
        """Type of the operands of products: rounded to bfloat16, or float32."""
        return _operand(self.precision)

    def settings(self, kernel: str) -> dict[str, Any]:
        """Compile-time constants and launch options of a kernel."""
        if kernel == "gates_backward":
            return _GATES
        columns, warps, stages, finish_warps = self.config
        settings: dict[str, Any] = {"D": self.head_dim, "C": CHUNK, "PRECISION": self.precision}
        settings["ONLINE"] = self.online
        if kernel == "matrix_prepare":
            return {**settings, "num_warps": 4, "num_stages": 1}
        settings["D_V"] = self.value_dim
        settings |= _registers(kernel, self.head_dim, self.online, self.precision)
        if kernel == "matrix_finish_backward":  # accumulates block by block: narrow blocks leave registers for the sums
            return {**settings, "V": 16, "num_warps": finish_warps, "num_stages": stages}
        return {**settings, "V": columns, "num_warps": warps, "num_stages": stages}


class MlpTiles(NamedTuple):
    """Compile-time parameters of the kernels for depth 2."""

    head_dim: int
    value_dim: int
    hidden: int
    precision: str
    config: MlpConfig

    @classmethod
    def candidates(cls, dtype: torch.dtype, head_dim: int, value_dim: int, hidden: int) -> "list[MlpTiles]":
        """Return the shipped configurations; see `Tiles.candidates`."""
        precision = _precision(dtype)
        widest = max(head_dim, value_dim)
        configs = MLP_CONFIGS.get((widest, precision), ())
        return [cls(head_dim, value_dim, hidden, precision, config) for config in configs]

    @classmethod
    def of(cls, dtype: torch.dtype, head_dim: int, value_dim: int, hidden: int) -> "MlpTiles":
        """Return the first configuration; see `Tiles.of`."""
        found = cls.candidates(dtype, head_dim, value_dim, hidden)
        return found[0] if found else cls(head_dim, value_dim, hidden, _precision(dtype), MlpConfig(32, 4, 1))

    def blocks(self, kernel: str) -> int:
        """Number of blocks of hidden units."""
        blocks: int = self.hidden // self.settings(kernel)["HB"]
        return blocks

    @property
    def operand(self) -> torch.dtype:
        """Type of the operands of products and of the tables in the scratch; see `Tiles.operand`."""
        return _operand(self.precision)

    def settings(self, kernel: str) -> dict[str, Any]:
        """Compile-time constants and launch options of a kernel."""
        if kernel == "gates_backward":
            return _GATES
        block, warps, stages = self.config
        settings = {"D": self.head_dim, "C": CHUNK, "PRECISION": self.precision}
        if kernel == "matrix_prepare":
            return {**settings, "ONLINE": False, "num_warps": 4, "num_stages": 1}
        settings |= _registers(kernel, max(self.head_dim, self.value_dim), False, self.precision)
        sizes = {"D_V": self.value_dim, "H": self.hidden, "HB": block if "walk" in kernel else 16}
        return {**settings, **sizes, "num_warps": warps, "num_stages": stages}


def _registers(kernel: str, head_dim: int, online: bool, precision: str) -> dict[str, Any]:
    registers = _REGISTERS.get((kernel, head_dim, online, precision))
    return {} if registers is None else {"maxnreg": registers}


_GATES = {"C": CHUNK, "num_warps": 4, "num_stages": 1}


def _precision(dtype: torch.dtype) -> str:
    """Return the precision of products; float16 is computed as float32, since gradients exceed its range."""
    return "bf16" if dtype == torch.bfloat16 else "ieee"


def _operand(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32
