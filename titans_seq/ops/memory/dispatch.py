"""Run a checked call of the memory on its backend: types, start state, and the choice between implementations."""

import contextlib
import functools

import torch
from torch import Tensor

from titans_seq.ops.differentiation import transforming
from titans_seq.ops.masking import one_or_each
from titans_seq.ops.memory.arguments import Options, Tokens, check_position, state_chunk_size
from titans_seq.ops.memory.backends import Backend, choose_backend
from titans_seq.ops.memory.chunked.nonfinite import split_at_nonfinite
from titans_seq.ops.memory.chunked.op import chunked_memory
from titans_seq.ops.memory.chunked.packed import packed_memory
from titans_seq.ops.memory.reference import reference_memory
from titans_seq.ops.memory.state import MemoryState, MemoryStats

BackendResult = tuple[Tensor, MemoryState, MemoryStats | None]


def run_backend(
    tokens: Tokens,
    weights: list[Tensor],
    state: MemoryState | None,
    options: Options,
    mask: Tensor | None,
    reset: Tensor | None,
    backend: Backend,
) -> BackendResult:
    """Compute a call whose arguments `titans_memory` has checked, except for the backend and the state's position."""
    backend = choose_backend(backend, tokens, weights, state, options, mask, reset)
    if backend != "reference" and transforming():
        raise ValueError(f'torch.func transforms (grad, vmap, jvp, ...) require backend="reference"; got {backend!r}')
    dtype = state_dtype(tokens, weights, state)
    initial = [w.to(dtype) for w in weights]
    before: int | Tensor = 0
    if state is None:
        state = _initial_state(initial, batch=tokens.q.shape[0])
    else:
        before = torch.as_tensor(state.position)
        check_position(before, options.chunk_size)
        state = state.to(dtype)._replace(position=one_or_each(before))
    # Autocast would round the carried state to half precision inside the loop.
    with without_autocast(tokens.q.device):
        if backend == "triton":  # the kernels convert to float32 as they load
            from titans_seq.ops.memory.triton.op import triton_memory

            y, after = triton_memory(tokens, initial, state, options)
            stats = None
        else:
            memory = reference_memory if backend == "reference" else _run_chunked
            y, after, stats = memory(Tokens(*(x.to(dtype) for x in tokens)), initial, state, options, mask, reset)
    if mask is None and reset is None:
        position = position_after(before, tokens.q.shape[1], options)
    else:
        position = torch.as_tensor(after.position).cpu().expand(tokens.q.shape[0])
    return y.to(tokens.q.dtype), after._replace(position=position, chunk_size=state_chunk_size(options)), stats


def state_dtype(tokens: Tokens, weights: list[Tensor], state: MemoryState | None) -> torch.dtype:
    """Return the type of the computation and of the state: the widest among the arguments, at least float32."""
    carried = [] if state is None else [x for group in state[:3] for x in group]
    return functools.reduce(torch.promote_types, (x.dtype for x in (*tokens, *weights, *carried)), torch.float32)


def position_after(position: int | Tensor, length: int, options: Options) -> Tensor:
    """Return the position in the chunk after `length` more tokens, all of them valid and of one sequence."""
    return torch.as_tensor(position, dtype=torch.int64, device="cpu").add(length) % state_chunk_size(options)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Disable autocast on devices that have it; the meta device has none."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _initial_state(initial: list[Tensor], batch: int) -> MemoryState:
    weights = [w.expand(batch, *w.shape) for w in initial]
    return MemoryState(weights, [torch.zeros_like(w) for w in weights], weights, position=0)


def _run_chunked(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    options: Options,
    mask: Tensor | None,
    reset: Tensor | None,
) -> BackendResult:
    """Run the chunked memory, in one piece unless a token is not finite."""
    sizes = split_at_nonfinite(tokens, mask)
    if len(sizes) == 1:
        return _run_piece(tokens, initial, state, options, mask, reset)
    masks, resets = ([None] * len(sizes) if x is None else x.split(sizes, dim=1) for x in (mask, reset))
    outputs, stats = [], []
    for *piece, own_mask, own_reset in zip(*(x.split(sizes, dim=1) for x in tokens), masks, resets, strict=True):
        y, state, of_piece = _run_piece(Tokens(*piece), initial, state, options, own_mask, own_reset)
        state = state._replace(position=one_or_each(state.position))
        outputs.append(y)
        stats.append(of_piece)
    joined = [torch.cat(parts, dim=1) for parts in zip(*(s for s in stats if s is not None), strict=True)]
    return torch.cat(outputs, dim=1), state, MemoryStats(*joined) if joined else None


def _run_piece(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    options: Options,
    mask: Tensor | None,
    reset: Tensor | None,
) -> BackendResult:
    if mask is None and reset is None and isinstance(state.position, int):
        return chunked_memory(tokens, initial, state, options)
    return packed_memory(tokens, initial, state, options, mask, reset)
