"""Reference implementation, one token at a time: slow, and the ground truth for every fast path.

It follows the paper's equations literally, and its inner gradient comes from `torch.func.grad`, so that it shares no
derivation with the implementations tested against it.
"""

import torch
from torch import Tensor
from torch.func import grad, vmap

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.network import read_memory
from titans_seq.ops.memory.state import MemoryState, MemoryStats


def reference_memory(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    options: Options,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, MemoryState, MemoryStats | None]:
    """Compute equations 13 to 16 of arXiv 2501.00663 as written.

    Arguments as in `titans_memory`, with `initial` for its `weights`; the stats are None unless requested.
    """

    def inner_loss(weights: list[Tensor], k: Tensor, v: Tensor) -> Tensor:
        return (read_memory(weights, k, options.activation, options.residual) - v).square().sum()

    inner_gradient = vmap(vmap(grad(inner_loss)))  # over batch and heads

    weights, surprise, chunk_start = state[:3]
    (batch, length), device = tokens.lr.shape[:2], tokens.lr.device
    chunk_size = 1 if options.gradient == "online" else options.chunk_size
    position = torch.as_tensor(state.position, device=device).expand(batch) % chunk_size
    valid = torch.ones(batch, length, dtype=torch.bool, device=device) if mask is None else mask
    if mask is not None:  # masked tokens may contain anything, including NaN
        tokens = Tokens(*(x.masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), 0) for x in tokens))
    begins = torch.zeros_like(valid) if reset is None else reset & valid
    outputs, stats = [], []
    for t in range(length):
        weights = _where(begins[:, t], initial, weights)
        surprise = _where(begins[:, t], [torch.zeros_like(s) for s in surprise], surprise)
        position = position.masked_fill(begins[:, t], 0)
        chunk_start = _where(valid[:, t] & (position == 0), weights, chunk_start)
        at = chunk_start if options.outer_gradient == "exact" else [w.detach() for w in chunk_start]
        q, k, v, lr, momentum, forget = (x[:, t] for x in tokens)  # (B, H, D) and (B, H)
        lr, momentum = (gate[..., None, None] for gate in (lr, momentum))
        gradient = inner_gradient(at, k, v)
        next_surprise = [momentum * s - lr * g for s, g in zip(surprise, gradient, strict=True)]
        forgets = _by_layer(forget, weights)
        next_weights = [(1 - f) * w + s for f, w, s in zip(forgets, weights, next_surprise, strict=True)]
        if options.forget_to == "initial":
            next_weights = [w + f * w0 for f, w, w0 in zip(forgets, next_weights, initial, strict=True)]
        surprise = _where(valid[:, t], next_surprise, surprise)
        weights = _where(valid[:, t], next_weights, weights)
        position = torch.where(valid[:, t], (position + 1) % chunk_size, position)
        seen = valid[:, t, None].to(lr.dtype)  # (B, 1)
        if options.return_stats:
            stats.append(MemoryStats(*(seen * _norm(tensors) for tensors in (gradient, surprise, weights))))
        y = read_memory(weights, q.unsqueeze(-2), options.activation, options.residual).squeeze(-2)
        outputs.append(seen.unsqueeze(-1) * y)
    chunk_start = _where(position == 0, weights, chunk_start)
    y = torch.stack(outputs, dim=1) if outputs else torch.zeros_like(tokens.v)
    state = MemoryState(weights, surprise, chunk_start, position)
    if not options.return_stats:
        return y, state, None
    joined = [torch.stack(parts, dim=1) for parts in zip(*stats, strict=True)]
    return y, state, MemoryStats(*joined) if joined else MemoryStats(*(torch.empty_like(tokens.lr) for _ in range(3)))


def _by_layer(forget: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Split forget gates per head (B, H), or per channel of the concatenated layers (B, H, I), by layer."""
    if forget.ndim == 2:
        return [forget[..., None, None]] * len(weights)
    return [gate.unsqueeze(-1) for gate in forget.split([w.shape[-2] for w in weights], dim=-1)]


def _where(condition_B: Tensor, yes: list[Tensor], no: list[Tensor]) -> list[Tensor]:
    """Select `yes` or `no` for each batch element, in every tensor of the lists."""
    condition = condition_B[:, None, None, None]
    return [torch.where(condition, a, b) for a, b in zip(yes, no, strict=True)]


def _norm(tensors: list[Tensor]) -> Tensor:
    """Frobenius norm over all layers' (B, H, d_in, d_out) together, (B, H)."""
    return torch.stack([x.detach().square().sum((-2, -1)) for x in tensors]).sum(0).sqrt()
