"""Choice of the backend for a call, with the reason when Triton is not available for it."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from titans_seq.ops.masking import one_or_each
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.configs import CHUNK, EXPANSIONS, HEAD_DIMS, MlpTiles, Tiles
from titans_seq.ops.memory.triton.selftest import KernelCase, why_not_trusted

Backend = Literal["auto", "reference", "chunked", "triton"]
_MAX_GRID_Y = 65535  # limit of a CUDA grid's second dimension, which counts batch x heads


def why_not_triton_here(device: torch.device | None = None) -> str | None:
    """Return why the Triton kernels cannot run on this machine, or on one of its devices; None if they can."""
    if not torch.cuda.is_available():
        return "requires a CUDA device; none was found"
    if device is not None and device.type != "cuda":
        return f"requires tensors on a CUDA device; got {device}"
    if torch.version.hip is not None:
        return "requires an NVIDIA GPU; got an AMD GPU"
    if find_spec("triton") is None:
        return "requires the package triton, which is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    too_old = f"requires compute capability 8.0 or higher; {torch.cuda.get_device_name(device)} has {major}.{minor}"
    return too_old if major < 8 else None


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU (for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not_options(sizes: Sequence[int], channel_forget: bool, options: Options) -> str | None:
    """Return the first reason why the Triton kernels do not support a memory; None if they do.

    Args:
        sizes: features of keys, hidden layers and values.
        channel_forget: whether there is one forget gate per input channel.
        options: the memory's options.
    """
    depth, head_dim, value_dim = len(sizes) - 1, sizes[0], sizes[-1]
    wrong = [size for size in sizes[1:-1] if size not in [factor * head_dim for factor in EXPANSIONS]]
    hidden = f"supports hidden layers of {_listed(EXPANSIONS)} times head_dim; got {wrong} for head_dim {head_dim}"
    reasons = {
        f"supports depth 1 and 2; got {depth}": depth > 2,
        f"supports head_dim {_listed(HEAD_DIMS)}; got {head_dim}": head_dim not in HEAD_DIMS,
        f"supports D_v {_listed(HEAD_DIMS)}; got {value_dim}": value_dim not in HEAD_DIMS,
        hidden: bool(wrong),
        "does not support residual=True": options.residual,
        "does not support one forget gate per input channel": channel_forget,
        "does not support return_stats=True": options.return_stats,
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
    """Return the first reason why the Triton kernels do not support this call; None if they do."""
    sizes = [tokens.q.shape[-1], *(w.shape[-1] for w in weights)]
    sequences = tokens.q.shape[0] * tokens.q.shape[2]
    one_position_each = state is not None and isinstance(one_or_each(state.position), Tensor)
    state_tensors = () if state is None else (*state.weights, *state.surprise, *state.chunk_start)
    reasons = {
        "supports float32, float16 and bfloat16; got float64": any(
            x.dtype == torch.float64 for x in (*tokens, *weights, *state_tensors)
        ),
        f"supports up to {_MAX_GRID_Y} heads over the whole batch; got {sequences}": sequences > _MAX_GRID_Y,
        "does not support mask or reset": mask is not None or reset is not None,
        "requires the same state.position for all batch elements; got one each": one_position_each,
    }
    reason = why_not_options(sizes, tokens.forget.ndim == 4, options)
    reason = reason or next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None or interpreting():
        return reason
    return why_not_triton_here(tokens.q.device) or _why_not_shipped(tokens.q.dtype, sizes, options)


def _why_not_shipped(dtype: torch.dtype, sizes: Sequence[int], options: Options) -> str | None:
    """Return why no compiled kernel configuration is shipped for these sizes; None if there is one."""
    head_dim, *hidden, value_dim = sizes
    if hidden:
        shipped = bool(MlpTiles.candidates(dtype, head_dim, value_dim, *hidden))
    else:
        shipped = bool(Tiles.candidates(dtype, head_dim, value_dim, options.gradient == "online"))
    products = "bfloat16" if dtype == torch.bfloat16 else "float32"
    reason = (
        f'has no kernel for depth {len(sizes) - 1}, gradient="{options.gradient}", head_dim {head_dim} and products '
        f"in {products}: no configuration compiles without spilling registers"
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
    """Return the backend for a call; raises ValueError for "triton" where it is not supported.

    "auto" chooses Triton where the kernels support the call and have passed their self-test on the device.
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
    """Kernel cases for a self-test by hand (`titans-seq doctor`), by name: every shipped kind at head_dim 64."""
    options = Options(chunk_size=CHUNK)
    cases = {}
    for dtype in (torch.bfloat16, torch.float32):
        type_name = str(dtype).removeprefix("torch.")
        cases[f"depth 1, chunk, {type_name}"] = KernelCase.of(dtype, (64, 64), options)
        cases[f"depth 1, online, {type_name}"] = KernelCase.of(dtype, (64, 64), options._replace(gradient="online"))
        cases[f"depth 2, {type_name}"] = KernelCase.of(dtype, (64, 256, 64), options)
    return cases


def on_cuda(tokens: Tokens) -> bool:
    """Whether "auto" may consider Triton."""
    return tokens.q.is_cuda


def _listed(items: Sequence[int]) -> str:
    return ", ".join(str(item) for item in items)
