"""How the kernels cut their work: sizes of tiles, threads, and how products are rounded.

Each kind of memory has a few choices, of which `tuning` takes the fastest on a device; all are compiled for sm_80 and
sm_90 by `benchmarks/kernel_resources.py`, which lets none pass that spills registers.
"""

from typing import Any, NamedTuple

import torch

HEAD_DIMS = (32, 64, 128)
EXPANSIONS = (1, 2, 3, 4)  # of a memory of depth 2: hidden units over head_dim
# Tokens of a tile, the fewest that tensor cores take; longer chunks are cut into tiles. (The tables of 32 did not fit
# into the registers of a program.)
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


class MatrixChoice(NamedTuple):
    """How the walks of a matrix memory are launched, and what follows them."""

    columns: int  # of the values, to a block, that is, to a program of the walks
    warps: int
    stages: int
    finish_warps: int


class MlpChoice(NamedTuple):
    """How the walks of a memory of depth 2 are launched."""

    block: int  # hidden units at a time; for what is no walk, 16
    warps: int
    stages: int


# By head dimension, whether online, and precision: what compiles without spilling.
MATRIX_CHOICES: dict[tuple[int, bool, str], tuple[MatrixChoice, ...]] = {
    (32, False, "bf16"): (MatrixChoice(32, 8, 2, 4), MatrixChoice(16, 4, 2, 4)),
    (32, True, "bf16"): (MatrixChoice(32, 4, 2, 4), MatrixChoice(32, 8, 2, 4)),
    (64, False, "bf16"): (MatrixChoice(32, 4, 2, 4), MatrixChoice(16, 4, 2, 4), MatrixChoice(32, 8, 2, 4)),
    (64, True, "bf16"): (MatrixChoice(16, 4, 2, 4), MatrixChoice(32, 8, 2, 4)),
    (128, False, "bf16"): (MatrixChoice(16, 4, 2, 8), MatrixChoice(32, 8, 2, 8)),
    (128, True, "bf16"): (MatrixChoice(16, 4, 2, 8), MatrixChoice(32, 4, 2, 8)),
    (32, False, "ieee"): (MatrixChoice(16, 4, 1, 4),),
    (32, True, "ieee"): (MatrixChoice(16, 4, 1, 4),),
    (64, False, "ieee"): (MatrixChoice(16, 8, 1, 8),),
    (64, True, "ieee"): (MatrixChoice(16, 8, 1, 8),),
}
# By head dimension and precision.
MLP_CHOICES: dict[tuple[int, str], tuple[MlpChoice, ...]] = {
    (32, "bf16"): (MlpChoice(16, 8, 1),),
    (64, "bf16"): (MlpChoice(16, 8, 1),),
    (32, "ieee"): (MlpChoice(16, 8, 1),),
    (64, "ieee"): (MlpChoice(32, 8, 1),),
}
# By kernel, head dimension, whether online, and precision: registers of a thread, where the compiler, left alone, aims
# at fewer, for the sake of more programs at once, or at more, and spills in the end.
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
    """What the kernels of a matrix memory are compiled for."""

    head_dim: int
    value_dim: int
    online: bool
    precision: str  # of products, see `kernels`
    choice: MatrixChoice

    @classmethod
    def candidates(cls, dtype: torch.dtype, head_dim: int, value_dim: int, online: bool) -> "list[Tiles]":
        """The choices for tokens of a type; none, if none is shipped."""
        precision = _precision(dtype)
        choices = MATRIX_CHOICES.get((head_dim, online, precision), ())
        return [cls(head_dim, value_dim, online, precision, choice) for choice in choices]

    @classmethod
    def of(cls, dtype: torch.dtype, head_dim: int, value_dim: int, online: bool) -> "Tiles":
        """The first choice; in the interpreter, which has no registers, there is one for all."""
        found = cls.candidates(dtype, head_dim, value_dim, online)
        return found[0] if found else cls(head_dim, value_dim, online, _precision(dtype), MatrixChoice(16, 4, 1, 4))

    @property
    def blocks(self) -> int:
        """Of columns; so many programs share a head."""
        return self.value_dim // self.choice.columns

    @property
    def operand(self) -> torch.dtype:
        """What the operands of products are rounded to, or kept in where rounding is left to the tensor cores."""
        return _operand(self.precision)

    def settings(self, kernel: str) -> dict[str, Any]:
        """What a kernel is launched with besides its arguments."""
        if kernel == "gates_backward":
            return _GATES
        columns, warps, stages, finish_warps = self.choice
        settings: dict[str, Any] = {"D": self.head_dim, "C": CHUNK, "PRECISION": self.precision}
        settings["ONLINE"] = self.online
        if kernel == "matrix_prepare":
            return {**settings, "num_warps": 4, "num_stages": 1}
        settings["D_V"] = self.value_dim
        settings |= _registers(kernel, self.head_dim, self.online, self.precision)
        if kernel == "matrix_finish_backward":  # adds up block after block: narrow ones leave room for the sums
            return {**settings, "V": 16, "num_warps": finish_warps, "num_stages": stages}
        return {**settings, "V": columns, "num_warps": warps, "num_stages": stages}


class MlpTiles(NamedTuple):
    """What the kernels of a memory of depth 2 are compiled for."""

    head_dim: int
    value_dim: int
    hidden: int
    precision: str
    choice: MlpChoice

    @classmethod
    def candidates(cls, dtype: torch.dtype, head_dim: int, value_dim: int, hidden: int) -> "list[MlpTiles]":
        """As `Tiles.candidates`."""
        precision = _precision(dtype)
        widest = max(head_dim, value_dim)
        choices = MLP_CHOICES.get((widest, precision), ())
        return [cls(head_dim, value_dim, hidden, precision, choice) for choice in choices]

    @classmethod
    def of(cls, dtype: torch.dtype, head_dim: int, value_dim: int, hidden: int) -> "MlpTiles":
        """As `Tiles.of`."""
        found = cls.candidates(dtype, head_dim, value_dim, hidden)
        return found[0] if found else cls(head_dim, value_dim, hidden, _precision(dtype), MlpChoice(32, 4, 1))

    def blocks(self, kernel: str) -> int:
        """Of hidden units."""
        blocks: int = self.hidden // self.settings(kernel)["HB"]
        return blocks

    @property
    def operand(self) -> torch.dtype:
        """As `Tiles.operand`: tables are rounded to it in the scratch."""
        return _operand(self.precision)

    def settings(self, kernel: str) -> dict[str, Any]:
        """What a kernel is launched with besides its arguments."""
        if kernel == "gates_backward":
            return _GATES
        block, warps, stages = self.choice
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
    """float16 is computed as float32: gradients do not fit its range."""
    return "bf16" if dtype == torch.bfloat16 else "ieee"


def _operand(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32
