"""What all recurrences share: the choice of the form, the precision, and the layout of chunks.

Shape suffixes: B batch, T tokens, H heads, N chunks, C tokens of a chunk, K features of a key, V of a value.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

RecurrenceBackend = Literal["reference", "chunked"]
Result = tuple[Tensor, tuple[Tensor, ...]]


def run_recurrence(
    forms: tuple[Callable[..., Result], Callable[..., Result]],
    tokens: Sequence[Tensor],
    state: Sequence[Tensor] | None,
    shapes: Sequence[tuple[int, ...]],
    chunk_size: int,
    backend: RecurrenceBackend,
) -> Result:
    """Run a recurrence in at least float32, without autocast.

    Args:
        forms: the token loop, form(tokens, state), and the chunked form, form(tokens, state, chunk_size).
        tokens: (B, T, ...) of each argument; the first is q (B, T, H, K), and the third ends with the V of y.
        state: returned by an earlier call; None: zeros.
        shapes: of the state's tensors.
        chunk_size: tokens of a chunk, which changes the speed and not the result.
        backend: the form.

    Returns:
        y (B, T, H, V) in q's type, and the state after the last token, in the type of the computation.

    Raises ValueError when backend or chunk_size are invalid, or the state does not fit.
    """
    if backend not in ("reference", "chunked"):
        raise ValueError(f"backend must be reference or chunked; got {backend!r}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")
    q, v = tokens[0], tokens[2]
    dtype = torch.promote_types(q.dtype, torch.float32)
    if state is None:
        start = tuple(q.new_zeros(shape, dtype=dtype) for shape in shapes)
    else:
        if [x.shape for x in state] != list(shapes):
            raise ValueError(f"the state must be {list(shapes)}; got {[tuple(x.shape) for x in state]}")
        start = tuple(x.to(dtype) for x in state)
    if q.shape[1] == 0:
        return q.new_zeros(*q.shape[:-1], v.shape[-1]), start
    inputs = [x.to(dtype) for x in tokens]
    loop, chunked = forms
    with torch.autocast(q.device.type, enabled=False):
        y, after = loop(inputs, start) if backend == "reference" else chunked(inputs, start, chunk_size)
    return y.to(q.dtype), after


def run_matrix_recurrence(
    forms: tuple[Callable[..., Result], Callable[..., Result]],
    tokens: Sequence[Tensor],
    state: Tensor | None,
    chunk_size: int,
    backend: RecurrenceBackend,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence whose state is one matrix (B, H, K, V) per head; see `run_recurrence`."""
    q, _, v, *_ = tokens
    shape = (q.shape[0], *q.shape[2:], v.shape[-1])
    y, (after,) = run_recurrence(forms, tokens, None if state is None else [state], [shape], chunk_size, backend)
    return y, after


def to_chunks(x: Tensor, chunk_size: int) -> Tensor:
    """Reshape x (B, T, H) or (B, T, H, D) to (N, B, H, C) or (N, B, H, C, D); the last chunk is filled with zeros."""
    size = min(chunk_size, x.shape[1])
    missing = -x.shape[1] % size
    padded = F.pad(x, (*(0, 0) * (x.ndim - 2), 0, missing))
    chunks = torch.unflatten(padded, 1, (-1, size))  # (B, N, C, H, ...)
    return chunks.transpose(0, 1).transpose(2, 3)


def from_chunks(y: Sequence[Tensor], length: int) -> Tensor:
    """Join N outputs (B, H, C, V) to (B, T, H, V) and drop the tokens that filled the last chunk."""
    return torch.cat(list(y), dim=2)[:, :, :length].transpose(1, 2)


def decay_between(total: Tensor) -> Tensor:
    """Return exp(total_t - total_j) for j <= t, and 0 for j > t, from cumulative log decays (..., C): (..., C, C)."""
    return later_to_zero(total.unsqueeze(-1) - total.unsqueeze(-2), -torch.inf).exp()


def later_to_zero(x: Tensor, value: float = 0.0) -> Tensor:
    """Fill x (..., C, C) with `value` where the column's token is later than the row's."""
    size = x.shape[-1]
    return x.masked_fill(torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1), value)
