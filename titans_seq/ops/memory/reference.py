"""The memory one token at a time: slow, and the judge of every fast path.

It is written as the paper writes it, and its inner gradient comes from `torch.func.grad`, so that it shares no
derivation with what it judges.
"""

import torch
from torch import Tensor
from torch.func import grad, vmap

from titans_seq.ops.memory.mlp import read_memory
from titans_seq.ops.memory.options import Options
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.tokens import Tokens


def reference_memory(
    tokens: Tokens,
    initial: list[Tensor],
    state: MemoryState,
    options: Options,
) -> tuple[Tensor, MemoryState]:
    """Equations 13 to 16 of arXiv 2501.00663 as written; arguments as `titans_memory`, `initial` its `weights`."""

    def inner_loss(weights: list[Tensor], k: Tensor, v: Tensor) -> Tensor:
        return (read_memory(weights, k, options.activation, options.residual) - v).square().sum()

    inner_gradient = vmap(vmap(grad(inner_loss)))  # over batch and heads

    weights, surprise, chunk_start, position = state
    chunk_size = 1 if options.gradient == "online" else options.chunk_size
    position %= chunk_size
    outputs = []
    for t in range(tokens.q.shape[1]):
        if position == 0:
            chunk_start = weights
        at = chunk_start if options.outer_gradient == "exact" else [w.detach() for w in chunk_start]
        q, k, v, lr, momentum, forget = (x[:, t] for x in tokens)  # (B, H, D) and (B, H)
        lr, momentum, forget = (gate[..., None, None] for gate in (lr, momentum, forget))
        gradient = inner_gradient(at, k, v)
        surprise = [momentum * s - lr * g for s, g in zip(surprise, gradient, strict=True)]
        weights = [(1 - forget) * w + s for w, s in zip(weights, surprise, strict=True)]
        if options.forget_to == "initial":
            weights = [w + forget * w0 for w, w0 in zip(weights, initial, strict=True)]
        outputs.append(read_memory(weights, q.unsqueeze(-2), options.activation, options.residual).squeeze(-2))
        position = (position + 1) % chunk_size
    y = torch.stack(outputs, dim=1) if outputs else torch.zeros_like(tokens.v)
    return y, MemoryState(weights, surprise, weights if position == 0 else chunk_start, position)
