"""Test-time training, TTT-Linear and TTT-MLP (Sun et al., ICML 2025, arXiv 2407.04620).

The state is a network f, one linear map or two with GELU between them. Within a mini-batch, the gradients of all tokens
are taken at the weights W at its start, and the token at position t reads with

    W_t = W - s_t sum_{j<=t} lr_j grad l_j(W),    l_j(W) = 1/2 |k_j + LN(f(k_j; W)) - v_j|^2,    z_t = f(q_t; W_t)

s_t is a scale per position, 1/t at the start of training; LN has weights per head, and these get no inner gradient.
After the last position W becomes W_t.
"""

from collections.abc import Sequence
from math import pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

from titans_seq.ops.masking import check_flags, take_tokens
from titans_seq.ops.recurrences.chunks import RecurrenceBackend, later_to_zero, to_chunks

_EPS = 1e-6  # of the norm


class TTTState(NamedTuple):
    """State of test-time training after the last token."""

    weights: list[Tensor]  # W and b of each layer at the mini-batch's start, (B, H, d_in, d_out) and (B, H, 1, d_out)
    sums: list[Tensor]  # sum of lr_j grad l_j over the mini-batch's tokens so far, of the same shapes
    position: Tensor  # (B,) int64, the number of these tokens


class _Norm(NamedTuple):
    """Weight and bias of the norm, (H, 1, D)."""

    weight: Tensor
    bias: Tensor


def ttt(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    scale: Tensor,
    norm: tuple[Tensor, Tensor],
    weights: Sequence[Tensor],
    state: TTTState | None = None,
    *,
    mask: Tensor | None = None,
    backend: RecurrenceBackend = "chunked",
) -> tuple[Tensor, TTTState]:
    """Run test-time training.

    Args:
        q, k, v: (B, T, H, D).
        lr: (B, T, H), the tokens' learning rates.
        scale: (C,), the scale of each position of a mini-batch, whose length is thereby C.
        norm: weight and bias of the norm, each (H, 1, D).
        weights: W and b of each layer at a sequence's start, (H, d_in, d_out) and (H, 1, d_out).
        state: returned by an earlier call; continues its sequence exactly, also within a mini-batch.
        mask: (B, T) bool; tokens where it is False are skipped, and their outputs are zero.
        backend: "reference" is the token loop.

    Returns:
        z (B, T, H, D) in q's type, and the state after the last token.

    Raises ValueError when backend is unknown, or the mask or the state do not fit.
    """
    if backend not in ("reference", "chunked"):
        raise ValueError(f"backend must be reference or chunked; got {backend!r}")
    check_flags(mask, None, q.shape[:2])
    dtype, batch = torch.promote_types(q.dtype, torch.float32), len(q)
    start = [w.to(dtype).expand(batch, *w.shape) for w in weights]
    if state is None:
        position = torch.zeros(batch, dtype=torch.int64, device=q.device)
        state = TTTState(start, [torch.zeros_like(w) for w in start], position)
    else:
        _check_state(state, start, len(scale))
        state = TTTState([w.to(dtype) for w in state.weights], [s.to(dtype) for s in state.sums], state.position)
    if q.shape[1] == 0:
        return torch.zeros_like(q), state
    seen = q.new_ones(q.shape[:2], dtype=torch.bool) if mask is None else mask
    tokens = [x.to(dtype) for x in (q, k, v, lr)]
    run = _loop if backend == "reference" else _chunked
    with torch.autocast(q.device.type, enabled=False):
        z, after = run(tokens, scale.to(dtype), _Norm(*(x.to(dtype) for x in norm)), state, seen)
    return z.masked_fill(~seen[..., None, None], 0).to(q.dtype), after


def _check_state(state: TTTState, start: list[Tensor], size: int) -> None:
    expected, found = [w.shape for w in start], [w.shape for w in state.weights]
    if found != expected or [s.shape for s in state.sums] != expected or state.position.shape != start[0].shape[:1]:
        raise ValueError(f"the state's weights must be {[tuple(x) for x in expected]}; got {[tuple(x) for x in found]}")
    if bool((state.position >= size).any()):
        raise ValueError(
            f"the state's position must be in a mini-batch of {size} tokens; got {state.position.tolist()}"
        )


def _read(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return f(x), x (..., D) with weights (..., d_in, d_out)."""
    for layer in range(0, len(weights), 2):
        x = (F.gelu(x, approximate="tanh") if layer else x) @ weights[layer] + weights[layer + 1]
    return x


def _loop(tokens: list[Tensor], scale: Tensor, norm: _Norm, state: TTTState, seen: Tensor) -> tuple[Tensor, TTTState]:
    """Compute the equations above token by token, with autograd's inner gradients."""

    def loss(weights: list[Tensor], k: Tensor, v: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = F.layer_norm(_read(weights, k.unsqueeze(0)), k.shape, weight.squeeze(0), bias.squeeze(0), _EPS)
        return (k + z.squeeze(0) - v).square().sum() / 2

    inner_gradient = vmap(vmap(grad(loss)), in_dims=(0, 0, 0, None, None))
    weights, sums, position = state
    outputs = []
    for t, (q, k, v, lr) in enumerate(zip(*(x.unbind(1) for x in tokens), strict=True)):
        valid = seen[:, t]
        step = (lr * valid.unsqueeze(-1))[..., None, None]
        gradients = inner_gradient(weights, k, v, *norm)
        sums = [s + step * g for s, g in zip(sums, gradients, strict=True)]
        at = scale[position].view(-1, 1, 1, 1)
        now = [w - at * s for w, s in zip(weights, sums, strict=True)]
        outputs.append(_read(now, q.unsqueeze(-2)).squeeze(-2))
        position = position + valid
        full = (position == len(scale)).view(-1, 1, 1, 1)
        weights = [torch.where(full, new, w) for new, w in zip(now, weights, strict=True)]
        sums = [s.masked_fill(full, 0) for s in sums]
        position = position % len(scale)
    return torch.stack(outputs, dim=1), TTTState(weights, sums, position)


def _chunked(
    tokens: list[Tensor], scale: Tensor, norm: _Norm, state: TTTState, seen: Tensor
) -> tuple[Tensor, TTTState]:
    """Run a mini-batch at once: its gradients are at the same weights, and its reads are linear attention over them."""
    weights, sums, position = state
    size, end = len(scale), position + seen.sum(1)
    column = position.unsqueeze(1) + seen.cumsum(1) - 1  # (B, T), each token's place on the grid of mini-batches
    aligned = _align(tokens, seen, position, -(-int(end.max()) // size) * size or size)
    q, k, v, lr = (to_chunks(x, size) for x in aligned)
    at, outputs = scale.unsqueeze(-1), []
    for n in range(len(q)):
        inputs, writes = _writes(weights, k[n], v[n], norm)
        writes = [lr[n].unsqueeze(-1) * g for g in writes]
        outputs.append(_reads(weights, sums, q[n], inputs, writes, at))
        products = [p for x, g in zip(inputs, writes, strict=True) for p in (x.mT @ g, g.sum(-2, keepdim=True))]
        sums = [s + p for s, p in zip(sums, products, strict=True)]
        full = (end >= (n + 1) * size).view(-1, 1, 1, 1)
        weights = [torch.where(full, w - scale[-1] * s, w) for w, s in zip(weights, sums, strict=True)]
        sums = [s.masked_fill(full, 0) for s in sums]
    z = torch.cat(outputs, dim=2).transpose(1, 2)
    return take_tokens(z, column.clamp_min(0)), TTTState(weights, sums, end % size)


def _align(tokens: list[Tensor], seen: Tensor, position: Tensor, length: int) -> list[Tensor]:
    """Move each sequence's valid tokens to `position` and after it; the other places learn nothing (lr is 0)."""
    order = torch.argsort(~seen, dim=1, stable=True)  # the valid tokens first
    rank = torch.arange(length, device=seen.device) - position.unsqueeze(1)
    taken = (rank >= 0) & (rank < seen.sum(1, keepdim=True))
    source = order.gather(1, rank.clamp(0, seen.shape[1] - 1))
    q, k, v, lr = (take_tokens(x, source) for x in tokens)
    return [q, k, v, lr.masked_fill(~taken.unsqueeze(-1), 0)]


def _writes(weights: list[Tensor], k: Tensor, v: Tensor, norm: _Norm) -> tuple[list[Tensor], list[Tensor]]:
    """Return each layer's inputs for the keys (B, H, C, d_in), and the loss's gradients at its outputs."""
    inputs, hidden = [k], []
    for layer in range(0, len(weights), 2):
        hidden.append(inputs[-1] @ weights[layer] + weights[layer + 1])
        inputs.append(F.gelu(hidden[-1], approximate="tanh"))
    centred = hidden[-1] - hidden[-1].mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + _EPS).rsqrt()
    unit = centred * inverse
    g = (k + unit * norm.weight + norm.bias - v) * norm.weight
    g = (g - g.mean(-1, keepdim=True) - unit * (g * unit).mean(-1, keepdim=True)) * inverse
    gradients = [g]
    for layer in range(len(hidden) - 2, -1, -1):
        gradients.insert(0, gradients[0] @ weights[2 * layer + 2].mT * _gelu_slope(hidden[layer]))
    return inputs[:-1], gradients


def _reads(
    weights: list[Tensor], sums: list[Tensor], q: Tensor, inputs: list[Tensor], writes: list[Tensor], at: Tensor
) -> Tensor:
    """Return f(q_t; W_t) for the tokens of a mini-batch, (B, H, C, D), without forming any W_t."""
    x = q
    for layer, (keys, g) in enumerate(zip(inputs, writes, strict=True)):
        x = F.gelu(x, approximate="tanh") if layer else x
        learned = x @ sums[2 * layer] + sums[2 * layer + 1] + later_to_zero(x @ keys.mT + 1) @ g
        x = x @ weights[2 * layer] + weights[2 * layer + 1] - at * learned
    return x


def _gelu_slope(x: Tensor) -> Tensor:
    """Return the derivative of GELU's approximation by tanh."""
    c, d = sqrt(2 / pi), 0.044715
    tanh = torch.tanh(c * (x + d * x**3))
    return (1 + tanh + x * (1 - tanh.square()) * c * (1 + 3 * d * x.square())) / 2
