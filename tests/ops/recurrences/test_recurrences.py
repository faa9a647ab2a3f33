"""Every recurrence: its chunked form against its token loop in float64, and sequences in pieces against the whole."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.recurrences.cases import CASES, make_tokens
from titans_seq.ops import titans_memory
from titans_seq.ops.recurrences import gated_delta_rule

TOLERANCE = 1e-10


def loss_of(results: Sequence[Tensor]) -> Tensor:
    """A scalar with a different, nonlinear sensitivity to every entry of every result."""
    return sum(((r * torch.arange(1, r.numel() + 1).view_as(r).cos()).sin().sum() for r in results), torch.zeros(()))


def results_and_gradients(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    live = [x for x in results if x.requires_grad]
    return [*results, *torch.autograd.grad(loss_of(live), list(leaves))]


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max().item() <= TOLERANCE * (1 + b.abs().max().item()) if b.numel() else a.shape == b.shape


def carried_state(name: str) -> tuple[Any, list[Tensor]]:
    """A state in the middle of a sequence, and its tensors as leaves of the graph."""
    case = CASES[name]
    _, state = case.op(*make_tokens(name, 5, seed=1), backend="reference")
    leaves = [x.detach().requires_grad_() for x in case.flatten(state)]
    return case.restore(leaves), leaves


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk_size", [1, 5, 16, 64])
@pytest.mark.parametrize("carried", [False, True])
def test_chunked_equals_the_token_loop(name: str, chunk_size: int, carried: bool) -> None:
    case = CASES[name]
    for length in (1, 15, 16, 37):
        tokens = make_tokens(name, length)
        state, leaves = carried_state(name) if carried else (None, [])
        found = []
        for backend in ("chunked", "reference"):
            y, after = case.op(*tokens, state, chunk_size=chunk_size, backend=backend)
            found.append(results_and_gradients([y, *case.flatten(after)], [*tokens, *leaves]))
        assert_same(*found)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sizes", [[cut, 13 - cut] for cut in range(14)] + [[1] * 13], ids=str)
def test_pieces_continue_exactly(name: str, sizes: list[int]) -> None:
    case, tokens = CASES[name], make_tokens(name, 13)
    y, state = case.op(*tokens, chunk_size=5)
    whole = results_and_gradients([y, *case.flatten(state)], tokens)
    outputs, after = [], None
    for piece in zip(*(x.split(sizes, dim=1) for x in tokens), strict=True):
        y, after = case.op(*piece, after, chunk_size=5)
        outputs.append(y)
    assert_same(results_and_gradients([torch.cat(outputs, dim=1), *case.flatten(after)], tokens), whole)


@pytest.mark.parametrize("name", CASES)
def test_gradients_by_finite_differences(name: str) -> None:
    case = CASES[name]
    tokens = [x.detach()[:1].requires_grad_() for x in make_tokens(name, 4)]

    def outputs(*tokens: Tensor) -> Tensor:
        y: Tensor = case.op(*tokens, chunk_size=3)[0]
        return y

    assert torch.autograd.gradcheck(outputs, tokens, fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, tokens, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_closed_gates_do_not_overflow(name: str) -> None:
    """Decays down to exp(-200) a token, in float32: finite, and as in float64."""
    case, tokens = CASES[name], [x.detach() for x in make_tokens(name, 40)]
    tokens[3] = 200 * tokens[3].masked_fill(tokens[3] > tokens[3].median(), 0)
    expected, _ = case.op(*tokens)
    single = [x.float().requires_grad_() for x in tokens]
    y, state = case.op(*single)
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)
    gradients = torch.autograd.grad(loss_of([y, *(x for x in case.flatten(state) if x.requires_grad)]), single)
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    case, tokens = CASES[name], [x.detach() for x in make_tokens(name, 20)]
    low = [x.bfloat16() for x in tokens]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = case.op(*low)
    expected, _ = case.op(*(x.float() for x in low))
    assert y.dtype == torch.bfloat16
    assert all(x.dtype == torch.float32 for x in case.flatten(state))
    assert torch.equal(y, expected.bfloat16())


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_raise(name: str) -> None:
    case, tokens = CASES[name], make_tokens(name, 3)
    _, state = case.op(*tokens)
    refused: dict[str, Callable[[], Any]] = {
        "backend must be reference or chunked; got 'triton'": lambda: case.op(*tokens, backend="triton"),
        "chunk_size must be at least 1; got 0": lambda: case.op(*tokens, chunk_size=0),
        "the state must be": lambda: case.op(*(x[:1] for x in tokens), state),
    }
    for message, call in refused.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_the_online_rule_is_the_gated_delta_rule_without_forgetting_only() -> None:
    """Titans takes the error before the decay, Yang et al. after it."""
    q, k, v, _, beta = (x.detach() for x in make_tokens("gated_delta_rule", 30))
    start = [torch.zeros(2, 4, 6, dtype=torch.float64)]
    for rate, equal in ((0.0, True), (0.05, False)):
        forget = torch.full_like(beta, rate)
        expected, _ = gated_delta_rule(q, k, v, (1 - forget).log(), beta)
        found, _ = titans_memory(q, k, v, beta / 2, torch.zeros_like(beta), forget, start, gradient="online")
        difference = (found - expected).abs().max().item()
        assert (difference < TOLERANCE) if equal else (difference > 1e-3), rate
