"""The memory a chunk at a time, in its dual form: matmuls only, no per-token weights, exact.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, K and V key and value features.
The derivation is in README.md beside this file.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.decay import chunk_decay
from titans_seq.ops.memory.mlp import ACTIVATIONS, write_factors
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.tokens import Tokens


class _Chunk(NamedTuple):
    q_GCK: Tensor
    k_GCK: Tensor
    v_GCV: Tensor
    first_scores_GCC: Tensor  # the first layer's read weights: its inputs are q and k, known before the loop
    writes_GCC: Tensor  # C[t, j] lr_j
    start_weights_GC1: Tensor
    start_surprise_GC1: Tensor
    last_writes_GC1: Tensor  # D[last, j] lr_j
    last_surprise_G11: Tensor


def chunked_memory(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    *,
    chunk_size: int,
    activation: str,
    forget_to: str,
) -> tuple[Tensor, MemoryState]:
    """As `reference_memory`, to rounding; time and memory are linear in T."""
    batch, _, heads, _ = tokens.q.shape
    tokens = Tokens(*(_fold_heads(x) for x in tokens))
    anchor = [w.expand(batch, *w.shape).flatten(0, 1) for w in initial] if forget_to == "initial" else None
    weights, surprise, chunk_start = ([w.flatten(0, 1) for w in group] for group in state[:3])

    outputs = []
    position = state.position
    for chunk in _chunks(tokens, position, chunk_size):
        if position == 0:
            chunk_start = weights
        y_GCV, weights, surprise = _advance(chunk, weights, surprise, chunk_start, anchor, activation)
        outputs.append(y_GCV)
        position = (position + chunk.q_GCK.shape[1]) % chunk_size
    if position == 0:
        chunk_start = weights

    y_GTV = torch.cat(outputs, dim=1) if outputs else tokens.v
    y_BTHV = torch.unflatten(y_GTV, 0, (batch, heads)).transpose(1, 2)
    weights, surprise, chunk_start = (
        [torch.unflatten(w, 0, (batch, heads)) for w in group] for group in (weights, surprise, chunk_start)
    )
    return y_BTHV, MemoryState(weights, surprise, chunk_start, position)


def _fold_heads(x: Tensor) -> Tensor:
    """(B, T, H, ...) to (B H, T, ...)."""
    return x.transpose(1, 2).flatten(0, 1)


def _chunks(tokens: Tokens, position: int, chunk_size: int) -> list[_Chunk]:
    """The rest of an open chunk, the whole chunks, and what is left over.

    Whole chunks are prepared together and taken apart by one `unbind`: cutting them out one by one would make
    autograd's backward quadratic in the length, since every cut's gradient is a full-length tensor of zeros.
    """
    length = tokens.q.shape[1]
    head = min((chunk_size - position) % chunk_size, length)
    body = (length - head) // chunk_size * chunk_size
    chunks: list[_Chunk] = []
    pieces = zip(*(x.split([head, body, length - head - body], dim=1) for x in tokens), strict=True)
    for piece in pieces:
        size = piece[0].shape[1]
        if size:
            count = max(1, size // chunk_size)
            chunks += _prepare(Tokens(*(_in_chunks(x, count) for x in piece)))
    return chunks


def _in_chunks(x: Tensor, count: int) -> Tensor:
    """(G, T, ...) to (N, G, C, ...)."""
    return torch.unflatten(x, 1, (count, -1)).transpose(0, 1)


def _prepare(tokens: Tokens) -> list[_Chunk]:
    """Everything that does not depend on the memory's state, for all chunks in a few large operations."""
    q_NGCK, k_NGCK, v_NGCV, lr_NGC, momentum_NGC, forget_NGC = tokens
    decay = chunk_decay(momentum_NGC, forget_NGC)
    writes_NGCC = decay.writes * lr_NGC.unsqueeze(-2)
    prepared = (
        q_NGCK,
        k_NGCK,
        v_NGCV,
        (q_NGCK @ k_NGCK.transpose(-1, -2)) * writes_NGCC,
        writes_NGCC,
        decay.start_weights.unsqueeze(-1),
        decay.start_surprise.unsqueeze(-1),
        (decay.last_writes * lr_NGC).unsqueeze(-1),
        decay.last_surprise[..., None, None],
    )
    return [_Chunk(*parts) for parts in zip(*(x.unbind(0) for x in prepared), strict=True)]


def _advance(
    chunk: _Chunk,
    weights: list[Tensor],
    surprise: list[Tensor],
    chunk_start: list[Tensor],
    anchor: list[Tensor] | None,
    activation: str,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """One chunk: the outputs of its tokens, then W and S after its last token."""
    act = ACTIVATIONS[activation].value
    inputs, errors = write_factors(chunk_start, chunk.k_GCK, chunk.v_GCV, activation)
    a_GC1, b_GC1 = chunk.start_weights_GC1, chunk.start_surprise_GC1
    last_a_G11, last_b_G11 = a_GC1[:, -1:], b_GC1[:, -1:]
    last_C_GC1 = chunk.writes_GCC[:, -1].unsqueeze(-1)

    h = chunk.q_GCK
    next_weights, next_surprise = [], []
    for layer, (W, S, x, delta) in enumerate(zip(weights, surprise, inputs, errors, strict=True)):
        scores_GCC = chunk.first_scores_GCC if layer == 0 else (h @ x.transpose(-1, -2)) * chunk.writes_GCC
        read = a_GC1 * (h @ W) + b_GC1 * (h @ S) - scores_GCC @ delta
        x_T = x.transpose(-1, -2)
        W_end = last_a_G11 * W + last_b_G11 * S - x_T @ (last_C_GC1 * delta)
        S_end = chunk.last_surprise_G11 * S - x_T @ (chunk.last_writes_GC1 * delta)
        if anchor is not None:
            read = read + (1 - a_GC1) * (h @ anchor[layer])
            W_end = W_end + (1 - last_a_G11) * anchor[layer]
        next_weights.append(W_end)
        next_surprise.append(S_end)
        h = act(read) if layer < len(weights) - 1 else read
    return h, next_weights, next_surprise
