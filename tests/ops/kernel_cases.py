"""Cases for the kernels' tests: random tokens and memories, and all results of the op compared with the token loop."""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.ops import MemoryState, titans_memory

TOLERANCE = 1e-5  # relative, in float32; actual errors are about 3e-7


def make_tokens(length: int, dim: int, dim_v: int, batch: int = 1, heads: int = 1) -> list[Tensor]:
    """Random q, k, v, lr, momentum, forget in float64."""
    generator = torch.Generator().manual_seed(length)

    def randn(*shape: int) -> Tensor:
        return torch.randn(batch, length, heads, *shape, dtype=torch.float64, generator=generator)

    q, k = (F.normalize(randn(dim), dim=-1) for _ in range(2))
    gates = 0.1 * torch.sigmoid(randn()), 0.8 * torch.sigmoid(randn()), torch.sigmoid(randn() - 2)
    return [x.float().double() for x in (q, k, randn(dim_v), *gates)]  # representable in float32


def make_weights(sizes: tuple[int, ...], heads: int = 1) -> list[Tensor]:
    """Weights of a memory that maps keys of the first size to values of the last."""
    generator = torch.Generator().manual_seed(0)
    layers = itertools.pairwise(sizes)
    return [(torch.randn(heads, *layer, generator=generator) / layer[0] ** 0.5).double() for layer in layers]


def everything(y: Tensor, state: MemoryState, leaves: list[Tensor]) -> list[Tensor]:
    """Outputs, state, and the gradients of a random projection of both."""
    results = [y, *state.weights, *state.surprise, *state.chunk_start]
    generator = torch.Generator().manual_seed(1)
    projections = (torch.randn(r.shape, dtype=torch.float64, generator=generator) for r in results)
    loss = sum((r.double() * p).sum() for r, p in zip(results, projections, strict=True))
    assert isinstance(loss, Tensor)
    return results + list(torch.autograd.grad(loss, leaves))


def run(
    tokens: list[Tensor],
    weights: list[Tensor],
    state: MemoryState | None = None,
    cuts: tuple[int, ...] = (),
    **options: Any,
) -> list[Tensor]:
    """All results of one call, or of several calls split at the cuts with the state carried between them."""
    tokens = [x.detach().requires_grad_() for x in tokens]
    weights = [w.detach().requires_grad_() for w in weights]
    leaves = [*tokens, *weights]
    if state is not None:
        groups = [[w.detach().to(weights[0].dtype).requires_grad_() for w in group] for group in state[:3]]
        state = MemoryState(*groups, state.position)
        leaves += [w for group in groups for w in group]
    outputs = []
    for first, stop in zip((0, *cuts), (*cuts, tokens[0].shape[1]), strict=True):
        y, state = titans_memory(*(x[:, first:stop] for x in tokens), weights, state, **options)
        outputs.append(y)
    assert state is not None
    if len(leaves) > len(tokens) + len(weights) and options["forget_to"] == "zero":
        # With a state, the initial weights only act as the decay target.
        leaves = [*tokens, *leaves[len(tokens) + len(weights) :]]
    return everything(torch.cat(outputs, dim=1), state, leaves)


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for place, (a, b) in enumerate(zip(found, expected, strict=True)):
        error = (a.double() - b).abs().max() / b.abs().max().clamp_min(1e-30)
        assert error <= tolerance, f"result {place}: relative error {error:.1e}"


def compare(
    length: int,
    sizes: tuple[int, ...] = (32, 32),
    *,
    batch: int = 1,
    heads: int = 1,
    dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
    **options: Any,
) -> None:
    tokens = [x.to(dtype) for x in make_tokens(length, sizes[0], sizes[-1], batch, heads)]
    weights = [w.float() for w in make_weights(sizes, heads)]
    found = run(tokens, weights, backend="triton", **options)
    for name in ("checkpoint_every", "cuts"):
        options.pop(name, None)
    expected = run([x.double() for x in tokens], [w.double() for w in weights], backend="reference", **options)
    assert_close(found, expected, tolerance)
