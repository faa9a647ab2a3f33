"""Which backend computes what, and why not another."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.configs import CHUNK, EXPANSIONS, HEAD_DIMS, MlpTiles, Tiles
from titans_seq.ops.memory.triton.selftest import KernelCase, why_not_trusted

Backend = Literal["auto", "reference", "chunked", "triton"]
_MOST_HEADS = 65535  # of CUDA's grids in their second dimension


def why_not_triton_here(device: torch.device | None = None) -> str | None:
    """Why Triton's kernels cannot run on this machine, or on one of its devices; None if they can."""
    if not torch.cuda.is_available():
        return "needs a CUDA device, and there is none"
    if device is not None and device.type != "cuda":
        return f"needs tensors on a CUDA device; they are on {device}"
    if torch.version.hip is not None:
        return "is made for NVIDIA GPUs; this is an AMD GPU"
    if find_spec("triton") is None:
        return "needs the package triton, which is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    too_old = f"needs compute capability 8.0; {torch.cuda.get_device_name(device)} has {major}.{minor}"
    return too_old if major < 8 else None


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not_options(sizes: Sequence[int], channel_forget: bool, options: Options) -> str | None:
    """Why Triton's kernels cannot compute such a memory, the first reason; None if they can.

    `sizes` are those of keys, hidden layers and values.
    """
    depth, head_dim, value_dim = len(sizes) - 1, sizes[0], sizes[-1]
    wrong = [size for size in sizes[1:-1] if size not in [factor * head_dim for factor in EXPANSIONS]]
    hidden = f"knows hidden layers of {_listed(EXPANSIONS)} times head_dim; got {wrong} for head_dim {head_dim}"
    reasons = {
        f"knows no memory deeper than 2; got {depth}": depth > 2,
        f"knows head_dim {_listed(HEAD_DIMS)}; got {head_dim}": head_dim not in HEAD_DIMS,
        f"knows D_v {_listed(HEAD_DIMS)}; got {value_dim}": value_dim not in HEAD_DIMS,
        hidden: bool(wrong),
        "knows no residual memory": options.residual,
        "knows no forget gate per input channel": channel_forget,
        "returns no stats": options.return_stats,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def why_not_triton(
    tokens: Tokens,
    weights: list[Tensor],
    state: MemoryState | None,
    options: Options,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
) -> str | None:
    """Why Triton's kernels cannot compute this call, the first reason; None if they can."""
    sizes = [tokens.q.shape[-1], *(w.shape[-1] for w in weights)]
    sequences = tokens.q.shape[0] * tokens.q.shape[2]
    ragged = state is not None and isinstance(state.position, Tensor)
    reasons = {
        "knows float32, float16 and bfloat16; got float64": any(x.dtype == torch.float64 for x in (*tokens, *weights)),
        f"knows up to {_MOST_HEADS} heads of all batch elements together; got {sequences}": sequences > _MOST_HEADS,
        "knows neither mask nor reset": mask is not None or reset is not None,
        "knows no batch elements at different places in their chunks": ragged,
    }
    reason = why_not_options(sizes, tokens.forget.ndim == 4, options)
    reason = reason or next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None or interpreting():
        return reason
    return why_not_triton_here(tokens.q.device) or _misfit(tokens.q.dtype, sizes, options)


def _misfit(dtype: torch.dtype, sizes: Sequence[int], options: Options) -> str | None:
    """What of the kernels is not shipped."""
    head_dim, *hidden, value_dim = sizes
    if hidden:
        shipped = bool(MlpTiles.candidates(dtype, head_dim, value_dim, *hidden))
    else:
        shipped = bool(Tiles.candidates(dtype, head_dim, value_dim, options.gradient == "online"))
    products = "bfloat16" if dtype == torch.bfloat16 else "float32"
    reason = (
        f'ships no kernel for depth {len(sizes) - 1}, gradient="{options.gradient}", head_dim {head_dim} and products '
        f"in {products}: none is known to fit into the registers"
    )
    return None if shipped else reason


def choose_backend(
    backend: Backend,
    tokens: Tokens,
    weights: list[Tensor],
    state: MemoryState | None,
    options: Options,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
) -> Backend:
    """The backend that computes; raises ValueError for "triton" when something speaks against it.

    "auto" takes Triton where the kernels know the call and have passed a trial on the device.
    """
    if backend == "triton" and (why_not := why_not_triton(tokens, weights, state, options, mask, reset)):
        raise ValueError(f'backend="triton" {why_not}; available: auto, chunked, reference')
    if backend != "auto":
        return backend
    if not on_cuda(tokens):
        return "chunked"
    sizes = [tokens.q.shape[-1], *(w.shape[-1] for w in weights)]
    why_not = why_not_triton(tokens, weights, state, options, mask, reset)
    return (
        "chunked"
        if why_not or why_not_trusted(tokens.q.device, KernelCase.of(tokens.q.dtype, sizes, options))
        else "triton"
    )


def shipped_cases() -> dict[str, KernelCase]:
    """What a trial of the kernels by hand should be about, under a name: at head_dim 64, all that is shipped."""
    options = Options(chunk_size=CHUNK)
    kinds = {}
    for dtype in (torch.bfloat16, torch.float32):
        of_type = str(dtype).removeprefix("torch.")
        kinds[f"depth 1, chunk, {of_type}"] = KernelCase.of(dtype, (64, 64), options)
        kinds[f"depth 1, online, {of_type}"] = KernelCase.of(dtype, (64, 64), options._replace(gradient="online"))
        kinds[f"depth 2, {of_type}"] = KernelCase.of(dtype, (64, 256, 64), options)
    return kinds


def on_cuda(tokens: Tokens) -> bool:
    """Whether "auto" has anything to think about; a trial is not to be traced by torch.compile."""
    return tokens.q.is_cuda and not torch.compiler.is_compiling()


def _listed(items: Sequence[int]) -> str:
    return ", ".join(str(item) for item in items)
