"""Triton kernels of the memory of depth 2 in Triton's interpreter, tested as in test_triton.py."""

from typing import Any

import pytest
import torch

from tests.ops.kernel_cases import assert_close, compare, make_tokens, make_weights, run
from titans_seq.ops import titans_memory

pytest.importorskip("triton", reason="Triton is made for Linux only")
pytestmark = pytest.mark.usefixtures("poison")
SIZES = (32, 32, 32)


@pytest.mark.parametrize(
    ("head_dim", "expansion", "activation"),
    [
        (32, 3, "gelu"),
        (64, 2, "relu"),
        pytest.param(64, 4, "silu", marks=pytest.mark.slow),
        (128, 1, "silu"),
        pytest.param(128, 4, "gelu", marks=pytest.mark.slow),
    ],
)
def test_every_size_and_activation_equals_the_token_loop(head_dim: int, expansion: int, activation: Any) -> None:
    compare(19, (head_dim, expansion * head_dim, head_dim), activation=activation)


def test_batch_heads_and_wider_values_equal_the_token_loop() -> None:
    compare(17, (32, 64, 64), batch=2, heads=2)


@pytest.mark.parametrize(("length", "chunk_size"), [(1, 16), (7, 3), (51, 24)])
def test_any_length_and_chunk_equal_the_token_loop(length: int, chunk_size: int) -> None:
    compare(length, SIZES, chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [16, 24])
@pytest.mark.parametrize("options", [{"forget_to": "initial"}, {"outer_gradient": "first_order"}])
def test_options_equal_the_token_loop(options: dict[str, Any], chunk_size: int) -> None:
    compare(30, SIZES, chunk_size=chunk_size, **options)


@pytest.mark.parametrize(("chunk_size", "checkpoint_every", "cuts"), [(16, 2, ()), (72, None, (10,))])
def test_segments_change_nothing(
    chunk_size: int, checkpoint_every: int | None, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titans_seq.ops.memory.triton.plan.SEGMENT_BYTES", 1)
    options: dict[str, Any] = {"forget_to": "initial", "outer_gradient": "exact"}
    compare(77, SIZES, chunk_size=chunk_size, checkpoint_every=checkpoint_every, cuts=cuts, **options)


@pytest.mark.parametrize(("chunk_size", "cuts"), [(16, (5, 9, 20)), (40, (3, 20))])
def test_pieces_with_carried_state_equal_the_whole(chunk_size: int, cuts: tuple[int, ...]) -> None:
    compare(45, SIZES, chunk_size=chunk_size, cuts=cuts)


@pytest.mark.parametrize("outer_gradient", ["exact", "first_order"])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
def test_gradients_reach_a_state_in_the_middle_of_a_chunk(forget_to: Any, outer_gradient: Any) -> None:
    weights = make_weights(SIZES)
    options: dict[str, Any] = {"forget_to": forget_to, "outer_gradient": outer_gradient}
    _, state = titans_memory(*make_tokens(21, 32, 32), weights, backend="reference", forget_to=forget_to)
    tokens = make_tokens(14, 32, 32)  # 11 to the chunk's end
    state = state.to(torch.float32)
    found = run([x.float() for x in tokens], [w.float() for w in weights], state, backend="triton", **options)
    state = state.to(torch.float64)
    expected = run(tokens, [w.float().double() for w in weights], state, backend="reference", **options)
    assert_close(found, expected)


def test_gates_at_exactly_zero_and_one() -> None:
    tokens = make_tokens(20, 32, 32)
    for place, gate in enumerate(tokens[3:]):
        values = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
        gate.copy_(values[(torch.arange(20) // 3**place + place) % 3].view(1, 20, 1))
    tokens[3] /= 8
    weights = make_weights(SIZES)
    found = run([x.float() for x in tokens], [w.float() for w in weights], backend="triton")
    expected = run([x.float().double() for x in tokens], [w.float().double() for w in weights], backend="reference")
    assert_close(found, expected)


def test_float16_tokens_lose_no_more_than_their_own_digits() -> None:
    compare(21, SIZES, dtype=torch.float16, tolerance=2**-10)


def test_a_state_of_one_call_is_not_changed_by_the_next() -> None:
    weights = [w.float() for w in make_weights(SIZES)]
    tokens = [x.float() for x in make_tokens(20, 32, 32)]
    _, state = titans_memory(*tokens, weights, backend="triton", chunk_size=32)
    before = [x.clone() for group in state[:3] for x in group]
    titans_memory(*tokens, weights, state, backend="triton", chunk_size=32)
    assert all(torch.equal(a, b) for a, b in zip(before, [x for group in state[:3] for x in group], strict=True))


def test_an_unsupported_hidden_layer_raises() -> None:
    tokens = [x.float() for x in make_tokens(5, 32, 32)]
    for hidden in (160, 48):
        weights = [w.float() for w in make_weights((32, hidden, 32))]
        message = rf"supports hidden layers of 1, 2, 3, 4 times head_dim; got \[{hidden}\] for head_dim 32"
        with pytest.raises(ValueError, match=message):
            titans_memory(*tokens, weights, backend="triton")
