"""The chunked memory against the token-by-token reference, in float64."""

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.ops import MemoryState, titans_memory

TOLERANCE = 1e-10
DIM_K, DIM_V, HEADS, BATCH = 4, 5, 2, 2


def make_inputs(length: int, depth: int = 1, seed: int = 0, dim_v: int = DIM_V) -> tuple[list[Tensor], list[Tensor]]:
    """Random tokens (q, k, v, lr, momentum, forget) and initial weights, float64, requiring gradients."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    shape = (BATCH, length, HEADS)
    tokens = [
        randn(*shape, DIM_K),
        F.normalize(randn(*shape, DIM_K), dim=-1),
        randn(*shape, dim_v),
        # Steps at which even a three-layer memory is stable: where the rule diverges, rounding errors do too.
        0.1 * torch.sigmoid(randn(*shape)),
        0.8 * torch.sigmoid(randn(*shape)),
        torch.sigmoid(randn(*shape) - 2),
    ]
    widths = [DIM_K, *[2 * DIM_K] * (depth - 1), dim_v]
    weights = [randn(HEADS, a, b) / a**0.5 for a, b in pairwise(widths)]
    return [x.requires_grad_() for x in tokens], [w.requires_grad_() for w in weights]


def flatten(y: Tensor, state: MemoryState) -> list[Tensor]:
    """Everything a call returns."""
    return [y, *state.weights, *state.surprise, *state.chunk_start]


def loss_of(results: list[Tensor]) -> Tensor:
    """A scalar with a different, nonlinear sensitivity to every entry of every result."""
    return sum(((r * torch.arange(1, r.numel() + 1).view_as(r).cos()).sin().sum() for r in results), torch.zeros(()))


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max().item() <= TOLERANCE * (1 + b.abs().max().item()) if b.numel() else a.shape == b.shape


def results_and_gradients(
    tokens: list[Tensor], weights: list[Tensor], run: Callable[[], tuple[Tensor, MemoryState]], *more: Tensor
) -> list[Tensor]:
    results = flatten(*run())
    return results + list(torch.autograd.grad(loss_of(results), [*tokens, *weights, *more], allow_unused=False))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("chunk_size", [1, 5, 16, 64])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
@pytest.mark.parametrize("carried", [False, True])
def test_chunked_equals_reference(depth: int, chunk_size: int, forget_to: Any, carried: bool) -> None:
    for length in (1, 15, 16, 37, 130):
        compare_backends(length, depth, chunk_size, forget_to, carried)


def compare_backends(length: int, depth: int, chunk_size: int, forget_to: Any, carried: bool) -> None:
    tokens, weights = make_inputs(length, depth)
    state, leaves = carried_state(weights, chunk_size, forget_to) if carried else (None, [])
    if carried and forget_to == "zero":
        weights = [w.detach() for w in weights]  # with a state, the initial weights are not used
    wanted = [*tokens, *leaves, *(w for w in weights if w.requires_grad)]

    def run(backend: Any) -> list[Tensor]:
        options = {"chunk_size": chunk_size, "forget_to": forget_to, "backend": backend}
        results = flatten(*titans_memory(*tokens, weights, state, **options))
        return results + list(torch.autograd.grad(loss_of(results), wanted))

    assert_same(run("chunked"), run("reference"))


def carried_state(weights: list[Tensor], chunk_size: int, forget_to: Any) -> tuple[MemoryState, list[Tensor]]:
    """A state in the middle of a chunk (if chunks have a middle), and its tensors as leaves of the graph."""
    depth = len(weights)
    past, _ = make_inputs(chunk_size // 2 + 1, depth, seed=1)
    _, state = titans_memory(*past, weights, chunk_size=chunk_size, forget_to=forget_to, backend="reference")
    leaves = [x.detach().requires_grad_() for group in state[:3] for x in group]
    if state.position == 0:  # a chunk's start is then the weights themselves
        leaves = leaves[: 2 * depth]
    return MemoryState(
        leaves[:depth], leaves[depth : 2 * depth], leaves[-depth:] if state.position else leaves[:depth], state.position
    ), leaves


@pytest.mark.parametrize(("depth", "forget_to"), list(product([1, 2], ["zero", "initial"])))
def test_every_split_in_two_continues_exactly(depth: int, forget_to: Any) -> None:
    length, options = 13, {"chunk_size": 5, "forget_to": forget_to, "backend": "chunked"}
    tokens, weights = make_inputs(length, depth)
    whole = results_and_gradients(tokens, weights, lambda: titans_memory(*tokens, weights, **options))
    for cut in range(length + 1):

        def in_two(cut: int = cut) -> tuple[Tensor, MemoryState]:
            first, state = titans_memory(*(x[:, :cut] for x in tokens), weights, **options)
            second, state = titans_memory(*(x[:, cut:] for x in tokens), weights, state, **options)
            return torch.cat([first, second], dim=1), state

        assert_same(results_and_gradients(tokens, weights, in_two), whole)


def test_one_token_at_a_time_continues_exactly() -> None:
    tokens, weights = make_inputs(23, depth=2)
    whole = flatten(*titans_memory(*tokens, weights, chunk_size=7))
    outputs, state = [], None
    for t in range(23):
        y, state = titans_memory(*(x[:, t : t + 1] for x in tokens), weights, state, chunk_size=7)
        outputs.append(y)
    assert state is not None
    assert_same(flatten(torch.cat(outputs, dim=1), state), whole)


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
def test_every_activation_equals_reference(activation: Any) -> None:
    tokens, weights = make_inputs(21, depth=3)
    found, expected = (
        results_and_gradients(
            tokens,
            weights,
            lambda: titans_memory(*tokens, weights, chunk_size=8, activation=activation, backend=backend),  # noqa: B023
        )
        for backend in ("chunked", "reference")
    )
    assert_same(found, expected)


@pytest.mark.parametrize("depth", [1, 2])
def test_gradients_by_finite_differences(depth: int) -> None:
    tokens, weights = make_inputs(6, depth)
    # One sequence and one head keep the number of differences small.
    tokens = [x[:1, :, :1].detach().requires_grad_() for x in tokens]
    weights = [w[:1].detach().requires_grad_() for w in weights]

    def op(*arguments: Tensor) -> tuple[Tensor, ...]:
        return tuple(flatten(*titans_memory(*arguments[:6], list(arguments[6:]), chunk_size=4)))

    assert torch.autograd.gradcheck(op, (*tokens, *weights))


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_a_token_changes_itself_and_the_future_only(backend: Any) -> None:
    length = 19
    tokens, weights = make_inputs(length, depth=2)
    tokens = [x.detach() for x in tokens]
    y, _ = titans_memory(*tokens, weights, chunk_size=5, backend=backend)
    for index, t in product(range(6), (0, 4, 5, 9, 18)):
        changed = [x.clone() for x in tokens]
        changed[index][:, t] *= 0.5
        y_changed, _ = titans_memory(*changed, weights, chunk_size=5, backend=backend)
        differs = (y != y_changed).flatten(2).any(-1).any(0)
        assert not differs[:t].any()
        # A gate of the very first token acts on an empty surprise; everything else shows at once.
        if not (index == 4 and t == 0):
            assert differs[t]


def test_a_sequence_does_not_see_its_batch_mates() -> None:
    tokens, weights = make_inputs(17, depth=2)
    y, _ = titans_memory(*tokens, weights, chunk_size=4)
    alone, _ = titans_memory(*(x[1:] for x in tokens), weights, chunk_size=4)
    assert_same([y[1:]], [alone])


def test_gates_at_exactly_zero_and_one() -> None:
    for lr, momentum, forget in product([0.0, 1.0], repeat=3):
        tokens, weights = make_inputs(11)
        tokens[3:] = [torch.full_like(g, x).requires_grad_() for g, x in zip(tokens[3:], (lr, momentum, forget))]  # noqa: B905
        # Momentum 1 without forgetting grows like t^2 in float64: relative agreement is what can be asked.
        found, expected = (
            results_and_gradients(
                tokens,
                weights,
                lambda: titans_memory(*tokens, weights, chunk_size=4, backend=backend),  # noqa: B023
            )
            for backend in ("chunked", "reference")
        )
        assert all(torch.isfinite(x).all() for x in found)
        assert_same(found, expected)


def test_half_precision_inputs_keep_a_float32_state() -> None:
    tokens, weights = make_inputs(40)
    half = [x.detach().to(torch.bfloat16) for x in tokens]
    y, state = titans_memory(*half, [w.detach().float() for w in weights])
    assert y.dtype == torch.bfloat16
    assert state.weights[0].dtype == torch.float32
    exact, _ = titans_memory(*(x.double() for x in half), weights, backend="reference")
    assert (y - exact).abs().max() <= 2**-8 * exact.abs().max()


def test_autocast_does_not_round_the_state() -> None:
    tokens, weights = ([x.detach().float() for x in group] for group in make_inputs(40))
    expected, _ = titans_memory(*tokens, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = titans_memory(*tokens, weights)
    assert torch.equal(found, expected)


def test_an_empty_sequence_leaves_the_state_alone() -> None:
    tokens, weights = make_inputs(9)
    _, state = titans_memory(*tokens, weights, chunk_size=4)
    y, after = titans_memory(*(x[:, :0] for x in tokens), weights, state, chunk_size=4)
    assert y.shape == (BATCH, 0, HEADS, DIM_V)
    assert_same([*after.weights, *after.surprise], [*state.weights, *state.surprise])
    assert torch.equal(torch.as_tensor(after.position), torch.as_tensor(state.position))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "cuda"}, "backend must be one of .*; got 'cuda'"),
        ({"gradient": "exact"}, "gradient must be one of .*; got 'exact'"),
        ({"forget_to": "one"}, "forget_to must be one of .*; got 'one'"),
        ({"activation": "tanh"}, "activation must be one of .*; got 'tanh'"),
        ({"backend": "triton"}, "triton.*available: auto, chunked, reference"),
    ],
)
def test_an_unknown_option_value_raises_with_the_valid_ones(change: dict[str, Any], message: str) -> None:
    tokens, weights = make_inputs(3)
    with pytest.raises(ValueError, match=message):
        titans_memory(*tokens, weights, **change)


def test_wrong_shapes_are_named() -> None:
    tokens, weights = make_inputs(3)
    q, k, v, lr, momentum, forget = tokens
    with pytest.raises(ValueError, match="q, k and v must be"):
        titans_memory(q, k[:, :2], v, lr, momentum, forget, weights)
    with pytest.raises(ValueError, match=r"momentum must be \(B, T, H\) = \(2, 3, 2\); got \(2, 3\)"):
        titans_memory(q, k, v, lr, momentum[..., 0], forget, weights)
    with pytest.raises(ValueError, match=r"weights\[0\] must be .* got \(2, 3, 5\)"):
        titans_memory(q, k, v, lr, momentum, forget, [weights[0][:, :3]])
    with pytest.raises(ValueError, match="must have D_v = 5 output features; got 4"):
        titans_memory(q, k, v, lr, momentum, forget, [weights[0][..., :4]])


def test_a_state_of_another_memory_or_chunk_size_raises() -> None:
    tokens, weights = make_inputs(7)
    _, state = titans_memory(*tokens, weights, chunk_size=16)
    with pytest.raises(ValueError, match="use the chunk_size and the gradient of the call that returned the state"):
        titans_memory(*tokens, weights, state, chunk_size=4)
    deeper = make_inputs(7, depth=2)[1]
    with pytest.raises(ValueError, match=r"state.weights must have shapes"):
        titans_memory(*tokens, deeper, state)
