"""The Triton kernels in Triton's interpreter, on a CPU, against the float64 token loop.

tests/conftest.py sets TRITON_INTERPRET before anything imports Triton. The interpreter takes milliseconds for every
operation of a kernel, whatever the size: cases are few and short, and each varies several things at once.
"""

import importlib
from typing import Any, NamedTuple

import pytest
import torch

from tests.ops.kernel_cases import assert_close, compare, make_tokens, make_weights, run
from titans_seq.ops import titans_memory
from titans_seq.ops.memory import backends
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.triton import configs

pytest.importorskip("triton", reason="Triton is made for Linux only")
parallel_scan = importlib.import_module("titans_seq.ops.memory.triton.matrix.parallel_scan")
pytestmark = pytest.mark.usefixtures("poison")


@pytest.mark.parametrize("gradient", ["chunk", "online"])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_every_head_dim_equals_the_token_loop(head_dim: int, gradient: Any) -> None:
    compare(21, (head_dim, head_dim), gradient=gradient)


@pytest.mark.parametrize("gradient", ["chunk", "online"])
def test_batch_heads_and_wider_values_equal_the_token_loop(gradient: Any) -> None:
    compare(17, (32, 64), batch=2, heads=2, gradient=gradient)


@pytest.mark.parametrize(("length", "chunk_size"), [(1, 16), (7, 3), (20, 13), (51, 24), (20, 100)])
def test_any_length_and_chunk_equal_the_token_loop(length: int, chunk_size: int) -> None:
    compare(length, chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [5, 100])
def test_online_chunks_of_any_size_equal_the_token_loop(chunk_size: int) -> None:
    compare(20, gradient="online", chunk_size=chunk_size)


@pytest.mark.parametrize("gradient", ["chunk", "online"])
@pytest.mark.parametrize("options", [{"forget_to": "initial"}, {"outer_gradient": "first_order"}])
def test_options_equal_the_token_loop(gradient: Any, options: dict[str, Any]) -> None:
    compare(21, gradient=gradient, **options)


@pytest.mark.parametrize("gradient", ["chunk", "online"])
def test_segments_change_nothing(gradient: Any) -> None:
    compare(49, gradient=gradient, checkpoint_every=2)


@pytest.mark.parametrize("cuts", [(), (10,)])
def test_segments_inside_a_long_chunk_change_nothing(cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titans_seq.ops.memory.triton.plan.SEGMENT_BYTES", 1)
    compare(81, chunk_size=72, cuts=cuts)


@pytest.mark.parametrize(("gradient", "cuts"), [("chunk", (5, 9, 20)), ("chunk", (16,)), ("online", (5,))])
def test_pieces_with_carried_state_equal_the_whole(gradient: Any, cuts: tuple[int, ...]) -> None:
    compare(25, gradient=gradient, cuts=cuts)


def test_pieces_of_chunks_of_several_tiles_equal_the_whole() -> None:
    compare(66, chunk_size=40, cuts=(3, 20))


@pytest.mark.parametrize("forget_to", ["zero", "initial"])
def test_gradients_reach_a_state_in_the_middle_of_a_chunk(forget_to: Any) -> None:
    weights = make_weights((32, 32))
    _, state = titans_memory(*make_tokens(21, 32, 32), weights, backend="reference", forget_to=forget_to)
    tokens = make_tokens(14, 32, 32)  # 11 to the chunk's end
    state = state.to(torch.float32)
    found = run([x.float() for x in tokens], [w.float() for w in weights], state, backend="triton", forget_to=forget_to)
    state = state.to(torch.float64)
    expected = run(tokens, weights, state, backend="reference", forget_to=forget_to)
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("gradient", "chunk_size", "options"),
    [
        ("chunk", 16, {"cuts": (5,), "batch": 2, "heads": 2}),
        ("online", 16, {"forget_to": "initial"}),
        ("chunk", 24, {"checkpoint_every": 1}),
    ],
)
def test_splits_in_parallel_equal_the_token_loop(
    gradient: Any, chunk_size: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_scan, "count_splits", lambda *_: 3)
    compare(4 * chunk_size + 10, (32, 64), gradient=gradient, chunk_size=chunk_size, **options)


def test_splits_without_forgetting_keep_their_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten, so that every split's start depends on all splits before it."""
    monkeypatch.setattr(parallel_scan, "count_splits", lambda *_: 6)
    tokens = make_tokens(96, 32, 32)
    tokens[3:] = [torch.full_like(tokens[3], gate) for gate in (0.25, 0.96875, 0.0)]
    weights = make_weights((32, 32))
    found = run([x.float() for x in tokens], [w.float() for w in weights], backend="triton")
    exact = [x.float().double() for x in tokens], [w.float().double() for w in weights]
    assert_close(found, run(*exact, backend="reference"))


@pytest.mark.parametrize(("heads", "length", "splits"), [(1, 16384, 128), (16, 16384, 33), (128, 16384, 1)])
def test_splits_fill_the_device(heads: int, length: int, splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Device(NamedTuple):
        multi_processor_count: int = 132

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Device())
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    tokens = Tokens(*(x.bfloat16() for x in make_tokens(1, 32, 32, heads=heads)))
    tiles = configs.Tiles.of(torch.bfloat16, 32, 32, online=False)
    assert parallel_scan.count_splits(tokens, tiles, length // 16) == splits


@pytest.mark.parametrize("gradient", ["chunk", "online"])
def test_gates_at_exactly_zero_and_one(gradient: Any) -> None:
    tokens = make_tokens(20, 32, 32)
    for place, gate in enumerate(tokens[3:]):
        values = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
        gate.copy_(values[(torch.arange(20) // 3**place + place) % 3].view(1, 20, 1))
    tokens[3] /= 2  # with steps of 1 at near-identical keys, the state and its rounding errors grow
    weights = make_weights((32, 32))
    found = run([x.float() for x in tokens], [w.float() for w in weights], backend="triton", gradient=gradient)
    expected = run(
        [x.float().double() for x in tokens],
        [w.float().double() for w in weights],
        backend="reference",
        gradient=gradient,
    )
    assert_close(found, expected)


def test_identical_keys_do_not_lose_precision() -> None:
    tokens = make_tokens(32, 32, 32)
    tokens[1][:] = tokens[1][:, :1]
    tokens[3:] = [torch.full_like(tokens[3], gate) for gate in (1.0, 0.0, 0.0)]  # every token reflects the memory
    weights = make_weights((32, 32))
    options: dict[str, Any] = {"gradient": "online", "chunk_size": 16}
    found = run([x.float() for x in tokens], [w.float() for w in weights], backend="triton", **options)
    expected = run(
        [x.float().double() for x in tokens], [w.float().double() for w in weights], backend="reference", **options
    )
    assert_close(found[:4], expected[:4])  # reflections amplify rounding errors in the gates' gradients


def test_float16_tokens_lose_no_more_than_their_own_digits() -> None:
    compare(21, dtype=torch.float16, tolerance=2**-10)


@pytest.mark.xfail(strict=True, reason="triton-lang/triton#11584: the interpreter miscomputes bfloat16")
def test_bfloat16_tokens_in_the_interpreter() -> None:
    compare(21, dtype=torch.bfloat16, tolerance=2**-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mask": torch.ones(1, 5, dtype=torch.bool)},
            'backend="triton" does not support mask or reset; available: auto, chunked, reference',
        ),
        ({"residual": True}, "does not support residual=True"),
        ({"return_stats": True}, "does not support return_stats=True"),
    ],
)
def test_calls_the_kernels_do_not_support_raise_or_are_chunked(change: dict[str, Any], message: str) -> None:
    tokens, weights = [x.float() for x in make_tokens(5, 32, 32)], [make_weights((32, 32))[0].float()]
    with pytest.raises(ValueError, match=message):
        titans_memory(*tokens, weights, backend="triton", **change)
    found, *_ = titans_memory(*tokens, weights, **change)
    expected, *_ = titans_memory(*tokens, weights, backend="chunked", **change)
    assert torch.equal(found, expected)


def test_without_a_gpu_and_an_interpreter_triton_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tokens, weights = [x.float() for x in make_tokens(5, 32, 32)], [make_weights((32, 32))[0].float()]
    with pytest.raises(ValueError, match="requires a CUDA device; none was found; available: auto, chunked, reference"):
        titans_memory(*tokens, weights, backend="triton")
    titans_memory(*tokens, weights, backend="auto")


def test_kernels_that_would_spill_registers_are_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(backends, "why_not_triton_here", lambda device: None)
    monkeypatch.setattr(configs, "MATRIX_CONFIGS", {(32, False, "bf16"): (configs.MatrixConfig(32, 4, 2, 4),)})
    weights = [make_weights((32, 32))[0].float()]

    def why_not(dtype: torch.dtype, options: Options) -> str | None:
        tokens = Tokens(*(x.to(dtype) for x in make_tokens(5, 32, 32)))
        return backends.why_not_triton(tokens, weights, None, options)

    options = Options()
    assert why_not(torch.bfloat16, options) is None
    reason = why_not(torch.bfloat16, options._replace(gradient="online"))
    assert reason is not None
    assert 'has no kernel for depth 1, gradient="online", head_dim 32 and products in bfloat16' in reason
    assert "float32" in str(why_not(torch.float16, options))


def test_without_gradients_nothing_is_kept() -> None:
    tokens = [x.float() for x in make_tokens(21, 32, 32)]
    y, state = titans_memory(*tokens, [make_weights((32, 32))[0].float()], backend="triton")
    assert not y.requires_grad
    assert not state.weights[0].requires_grad


def test_an_empty_sequence_leaves_the_state_alone() -> None:
    weights = make_weights((32, 32))[0].float()
    _, state = titans_memory(*(x.float() for x in make_tokens(5, 32, 32)), [weights], backend="triton")
    y, after = titans_memory(*(x.float() for x in make_tokens(0, 32, 32)), [weights], state, backend="triton")
    assert y.shape == (1, 0, 1, 32)
    assert torch.equal(after.weights[0], state.weights[0])
    assert torch.equal(torch.as_tensor(after.position), torch.as_tensor(state.position))
