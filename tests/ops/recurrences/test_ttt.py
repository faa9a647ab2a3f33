"""Test-time training: mini-batches against the token loop in float64, pieces against the whole, masks, and peers."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fla.ops.ttt.naive import chunk_ttt_linear_ref
from torch import Tensor
from torch.nn import functional as F

from tests.ops.recurrences.test_recurrences import assert_same, loss_of
from titans_seq.ops.recurrences import TTTState, ttt

BATCH, HEADS, DIM, SIZE = 3, 2, 4, 5


def make_arguments(length: int, depth: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens (q, k, v, lr), and the scale, the norm and the weights, all as leaves of the graph."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    tokens = [*(randn(BATCH, length, HEADS, DIM) for _ in range(3)), 0.3 * torch.sigmoid(randn(BATCH, length, HEADS))]
    scale = 1 / torch.arange(1.0, SIZE + 1, dtype=torch.float64) + 0.1 * torch.rand(SIZE, generator=generator)
    widths = [(DIM, 6), (6, DIM)] if depth == 2 else [(DIM, DIM)]
    weights = [w for i, o in widths for w in (randn(HEADS, i, o) / i**0.5, 0.1 * randn(HEADS, 1, o))]
    shared = [scale, 1 + 0.1 * randn(HEADS, 1, DIM), 0.1 * randn(HEADS, 1, DIM), *weights]
    return [x.requires_grad_() for x in tokens], [x.detach().requires_grad_() for x in shared]


def run(tokens: Sequence[Tensor], shared: list[Tensor], state: TTTState | None = None, **options: Any) -> Any:
    scale, weight, bias, *weights = shared
    return ttt(*tokens, scale, (weight, bias), weights, state, **options)


def everything(y: Tensor, state: TTTState, leaves: Sequence[Tensor]) -> list[Tensor]:
    results = [y, *state.weights, *state.sums]
    live = [x for x in results if x.requires_grad]
    return [
        *results,
        state.position,
        *torch.autograd.grad(loss_of(live), leaves, allow_unused=True, materialize_grads=True),
    ]


def some_mask(length: int) -> Tensor:
    mask = torch.rand(BATCH, length, generator=torch.Generator().manual_seed(3)) < 0.7
    mask[0], mask[1] = True, False
    return mask


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, 4, 5, 13])
def test_mini_batches_equal_the_token_loop(depth: int, masked: bool, length: int) -> None:
    tokens, shared = make_arguments(length, depth)
    mask = some_mask(length) if masked else None
    past, _ = make_arguments(7, depth, seed=1)
    _, before = run(past, shared, mask=some_mask(7))  # sequences that stand at different positions
    for state in (None, TTTState(*([x.detach() for x in part] for part in before[:2]), before.position)):
        assert_same(
            *(
                everything(*run(tokens, shared, state, mask=mask, backend=backend), [*tokens, *shared])
                for backend in ("chunked", "reference")
            )
        )


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("sizes", [[cut, 13 - cut] for cut in range(14)] + [[1] * 13], ids=str)
def test_pieces_continue_exactly(depth: int, sizes: list[int]) -> None:
    tokens, shared = make_arguments(13, depth)
    mask = some_mask(13)
    whole = everything(*run(tokens, shared, mask=mask), [*tokens, *shared])
    outputs, state = [], None
    for *piece, part in zip(*(x.split(sizes, dim=1) for x in (*tokens, mask)), strict=True):
        y, state = run(piece, shared, state, mask=part)
        outputs.append(y)
    assert state is not None
    assert_same(everything(torch.cat(outputs, dim=1), state, [*tokens, *shared]), whole)


@pytest.mark.parametrize("depth", [1, 2])
def test_masked_tokens_are_skipped(depth: int) -> None:
    tokens, shared = make_arguments(13, depth)
    mask = some_mask(13)
    y, state = run(tokens, shared, mask=mask)
    assert (y[~mask] == 0).all()
    for b, valid in enumerate(mask):
        alone, after = run([x[b : b + 1, valid] for x in tokens], shared)
        assert_same([y[b, valid], *(x[b] for x in state.weights)], [alone[0], *(x[0] for x in after.weights)])


def test_against_flash_linear_attention() -> None:
    """Its learning rate belongs to the reading token, ours to the one learned from: here all tokens have the same."""
    tokens, shared = make_arguments(20, 1)
    q, k, v = (x.detach().float() for x in tokens[:3])
    weight, bias, matrix, offset = (x.detach().float() for x in shared[1:])
    start = [x.expand(BATCH, *x.shape).clone() for x in (matrix, offset)]
    expected, *state = chunk_ttt_linear_ref(
        *(x.clone() for x in (q, k, v, weight, bias)), 0.2, 1.0, 1e-6, SIZE, *start, output_final_state=True
    )
    rate = torch.full((BATCH, 20, HEADS), 0.2, dtype=torch.float64)
    doubles = [x.double() for x in (weight, bias, matrix, offset)]
    z, after = run([*(x.double() for x in (q, k, v)), rate], [torch.ones(SIZE, dtype=torch.float64), *doubles])
    found = z + F.layer_norm(z, (DIM,), eps=1e-6) * doubles[0].squeeze(1) + doubles[1].squeeze(1)
    for ours, theirs in zip((found, *after.weights), (expected, *state), strict=True):
        torch.testing.assert_close(ours, theirs.double(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_gradients_by_finite_differences(depth: int) -> None:
    tokens, shared = make_arguments(7, depth)
    tokens = [x.detach()[:1].requires_grad_() for x in tokens]

    def outputs(*arguments: Tensor) -> Tensor:
        y: Tensor = run(arguments[:4], list(arguments[4:]))[0]
        return y

    assert torch.autograd.gradcheck(outputs, (*tokens, *shared), fast_mode=True)


def test_bad_arguments_raise() -> None:
    tokens, shared = make_arguments(3, 1)
    _, state = run(tokens, shared)
    with pytest.raises(ValueError, match="backend must be reference or chunked; got 'triton'"):
        run(tokens, shared, backend="triton")
    with pytest.raises(ValueError, match="the state's weights must be"):
        run([x[:1] for x in tokens], shared, state)
    with pytest.raises(ValueError, match="position must be in a mini-batch of 5 tokens"):
        run(tokens, shared, state._replace(position=torch.full((BATCH,), 5)))
    with pytest.raises(ValueError, match="mask must be bool"):
        run(tokens, shared, mask=torch.ones(BATCH, 4, dtype=torch.bool))
