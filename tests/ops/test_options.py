"""Every option of the memory against the reference, in float64: outputs, final state and all gradients."""

import gc
import inspect
import weakref
from typing import Any

import pytest
import torch

from tests.ops.test_chunked import DIM_V, assert_same, flatten, make_inputs, results_and_gradients
from titans_seq.ops import MemoryState, titans_memory
from titans_seq.ops.memory.arguments import Options
from titans_seq.ops.memory.chunked import groups


def compare(length: int, depth: int = 1, state: MemoryState | None = None, dim_v: int = DIM_V, **options: Any) -> None:
    tokens, weights = make_inputs(length, depth, dim_v=dim_v)
    reference = {k: v for k, v in options.items() if k != "checkpoint_every"}
    found = results_and_gradients(tokens, weights, lambda: titans_memory(*tokens, weights, state, **options))
    expected = results_and_gradients(
        tokens, weights, lambda: titans_memory(*tokens, weights, state, backend="reference", **reference)
    )
    assert_same(found, expected)


def test_the_op_takes_every_option_with_its_default() -> None:
    parameters = inspect.signature(titans_memory).parameters
    assert {name: parameters[name].default for name in Options._fields} == Options()._asdict()


def test_the_op_passes_every_option_on(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Options(
        chunk_size=5,
        gradient="online",
        activation="gelu",
        forget_to="initial",
        residual=True,
        outer_gradient="first_order",
        checkpoint_every=2,
        return_stats=True,
    )
    assert not any(a == b for a, b in zip(changed, Options(), strict=True))
    passed = []
    monkeypatch.setattr("titans_seq.ops.memory.op.run_memory", lambda *a: passed.append(a[3]) or (None, None, None))
    tokens, weights = make_inputs(3)
    titans_memory(*tokens, weights, **changed._asdict())
    assert passed == [changed]
    assert Options.from_fields({**changed._asdict(), "conv_width": 4}) == changed
    assert Options.from_fields({"residual": True}) == Options(residual=True)


@pytest.mark.parametrize("chunk_size", [1, 5, 16, 64])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
@pytest.mark.parametrize("length", [1, 15, 16, 37, 130])
def test_online_equals_the_token_loop(chunk_size: int, forget_to: Any, length: int) -> None:
    compare(length, gradient="online", chunk_size=chunk_size, forget_to=forget_to)


def test_online_is_the_chunk_rule_with_chunks_of_one() -> None:
    tokens, weights = make_inputs(37)
    online = results_and_gradients(
        tokens, weights, lambda: titans_memory(*tokens, weights, gradient="online", chunk_size=16)
    )
    single = results_and_gradients(tokens, weights, lambda: titans_memory(*tokens, weights, chunk_size=1))
    assert_same(online, single)


def test_online_continues_exactly_at_every_split_with_any_chunk() -> None:
    tokens, weights = make_inputs(13)
    whole = results_and_gradients(
        tokens, weights, lambda: titans_memory(*tokens, weights, gradient="online", chunk_size=5)
    )
    for cut in range(14):

        def in_two(cut: int = cut) -> tuple[torch.Tensor, MemoryState]:
            first, state = titans_memory(*(x[:, :cut] for x in tokens), weights, gradient="online", chunk_size=4)
            rest = [x[:, cut:] for x in tokens]
            second, state = titans_memory(*rest, weights, state, gradient="online", chunk_size=16)
            return torch.cat([first, second], dim=1), state

        assert_same(results_and_gradients(tokens, weights, in_two), whole)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
def test_first_order_equals_the_token_loop(depth: int, forget_to: Any) -> None:
    compare(37, depth, outer_gradient="first_order", chunk_size=5, forget_to=forget_to)


@pytest.mark.parametrize("forget_to", ["zero", "initial"])
def test_first_order_online_equals_the_token_loop(forget_to: Any) -> None:
    compare(37, gradient="online", outer_gradient="first_order", chunk_size=5, forget_to=forget_to)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
@pytest.mark.parametrize("outer_gradient", ["exact", "first_order"])
def test_residual_memory_equals_the_token_loop(depth: int, forget_to: Any, outer_gradient: Any) -> None:
    options = {"residual": True, "forget_to": forget_to, "outer_gradient": outer_gradient}
    compare(37, depth, dim_v=4, chunk_size=5, **options)


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
def test_depth_four_equals_the_token_loop(activation: Any) -> None:
    compare(37, 4, chunk_size=5, activation=activation)


@pytest.mark.parametrize("every", [1, 2, 3, 100])
@pytest.mark.parametrize(("depth", "gradient"), [(1, "chunk"), (2, "chunk"), (1, "online")])
def test_checkpoints_change_no_gradient(every: int, depth: int, gradient: Any) -> None:
    compare(37, depth, gradient=gradient, chunk_size=4, checkpoint_every=every)


def test_many_segments_are_chosen_by_size_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titans_seq.ops.memory.chunked.autograd._KEEP_ALL_BYTES", 0)
    compare(130, 2, chunk_size=5)


@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"gradient": "online"}, {"forget_to": "initial"}, {"checkpoint_every": 5}])
def test_groups_of_chunks_change_nothing(chunks: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_of_a_chunk = 2 * 2 * 4 * 8 * 8  # batch, heads, tokens, the widest layer's features, float64
    monkeypatch.setattr("titans_seq.ops.memory.chunked.autograd._GROUP_BYTES", chunks * bytes_of_a_chunk)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    compare(37, 1 if "gradient" in options else 2, chunk_size=4, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lr", [0.5, 1.0])
def test_online_is_stable_over_65536_tokens(dtype: torch.dtype, lr: float) -> None:
    generator = torch.Generator().manual_seed(0)
    length, dim = 65536, 16
    q, k, v = (torch.randn(1, length, 1, dim, generator=generator) for _ in range(3))
    k = torch.nn.functional.normalize(k, dim=-1)
    # A step of 1 reflects the memory along the key; a run of identical keys is the worst case for the solve.
    k[:, 1000:2000] = k[:, 1000:1001]
    gates = (torch.full((1, length, 1), g) for g in (lr, 0.0, 1e-3))
    tokens = [x.to(dtype) for x in (q, k, v, *gates)]
    y, state = titans_memory(*tokens, [torch.zeros(1, dim, dim)], gradient="online", chunk_size=64)
    exact, _ = titans_memory(*(x.double() for x in tokens), [torch.zeros(1, dim, dim).double()], gradient="online")
    assert torch.isfinite(y).all()
    assert state.weights[0].dtype == torch.float32
    # Reflections do not decay anything, including rounding errors: with identical keys these add up, and sums over a
    # chunk lose digits in proportion to its size (without AVX-512 3e-5 for each of its tokens, benchmarks/LOG.md).
    tolerance = {torch.float32: 64 * 6e-5 if lr == 1.0 else 1e-5, torch.bfloat16: 2**-8}[dtype]
    assert (y - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize("forget_to", ["zero", "initial"])
@pytest.mark.parametrize(
    ("depth", "gradient", "residual"), [(1, "chunk", False), (3, "chunk", True), (1, "online", False)]
)
def test_stats_equal_the_token_loop_and_cost_no_gradient(
    forget_to: Any, depth: int, gradient: Any, residual: bool
) -> None:
    tokens, weights = make_inputs(37, depth, dim_v=4)
    options = {"gradient": gradient, "forget_to": forget_to, "residual": residual, "chunk_size": 5}
    y, state, stats = titans_memory(*tokens, weights, return_stats=True, **options)
    _, _, expected = titans_memory(*tokens, weights, return_stats=True, backend="reference", **options)
    assert_same(list(stats), list(expected))
    assert not any(x.requires_grad for x in stats)
    assert_same(flatten(y, state), flatten(*titans_memory(*tokens, weights, **options)))
    assert stats.means() == {name: float(x.mean()) for name, x in stats._asdict().items()}


def test_online_needs_a_matrix_memory() -> None:
    tokens, weights = make_inputs(3, depth=2)
    with pytest.raises(ValueError, match=r'gradient="online" requires a matrix memory .*; got weights of depth 2'):
        titans_memory(*tokens, weights, gradient="online")


@pytest.mark.parametrize("name", ["chunk_size", "checkpoint_every"])
def test_counts_start_at_one(name: str) -> None:
    tokens, weights = make_inputs(3)
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        titans_memory(*tokens, weights, **{name: 0})


def test_buffers_are_filled_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NaN in newly allocated memory the results stay the same."""
    tokens, weights = make_inputs(37, depth=2)
    clean = flatten(*titans_memory(*tokens, weights, chunk_size=5))
    real = torch.Tensor.new_empty

    def poisoned(self: torch.Tensor, *size: Any, **options: Any) -> torch.Tensor:
        return real(self, *size, **options).fill_(float("nan"))

    def poisoned_like(x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, float("nan"))

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", poisoned_like)
    found = results_and_gradients(tokens, weights, lambda: titans_memory(*tokens, weights, chunk_size=5))
    assert_same(found[: len(clean)], clean)
    assert all(torch.isfinite(x).all() for x in found)


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"gradient": "online"}, {"checkpoint_every": 2}])
def test_nothing_waits_for_the_garbage_collector(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Values kept for the backward pass are freed with the results: there is no reference cycle."""
    alive: list[weakref.ref[Any]] = []
    for name in ("ChunkRule", "OnlineRule"):
        rule = getattr(groups, name)

        def made(*arguments: Any, rule: Any = rule) -> Any:
            one = rule(*arguments)
            alive.append(weakref.ref(one))
            return one

        monkeypatch.setattr(groups, name, made)
    tokens, weights = make_inputs(23, dim_v=4)
    gc.disable()
    try:
        y, state = titans_memory(*tokens, weights, chunk_size=4, **options)
        (y.sum() + state.weights[0].sum()).backward()
        del y, state
        assert alive
        assert not any(one() for one in alive)
    finally:
        gc.enable()


def test_a_loss_kept_for_a_log_keeps_no_segment_alive() -> None:
    tokens, weights = make_inputs(23)
    y, _ = titans_memory(*tokens, weights, chunk_size=4)
    loss = y.square().sum()
    first = torch.autograd.grad(loss, tokens, retain_graph=True)
    nodes, kept = [loss.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            kept += [node.kept] if hasattr(node, "kept") else []
            nodes += [before for before, _ in node.next_functions]
    assert kept
    assert all(one is None for one in kept)
    assert_same(list(torch.autograd.grad(loss, tokens)), list(first))  # computed again


def test_backward_inside_autocast() -> None:
    tokens, weights = ([x.detach().float().requires_grad_() for x in group] for group in make_inputs(23))
    expected = torch.autograd.grad(titans_memory(*tokens, weights)[0].sum(), tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(titans_memory(*tokens, weights)[0].sum(), tokens)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_state_of_another_type_is_converted_and_of_another_shape_raises() -> None:
    tokens, weights = ([x.detach().float() for x in group] for group in make_inputs(9))
    _, state = titans_memory(*tokens, weights)
    expected, _ = titans_memory(*tokens, weights, state)
    found, after = titans_memory(*tokens, weights, state.to(torch.float64))
    assert (found.dtype, after.weights[0].dtype) == (torch.float32, torch.float64)
    assert (found - expected).abs().max() < 1e-5
    with pytest.raises(ValueError, match=r"state\.surprise must have shapes"):
        titans_memory(*tokens, weights, state._replace(surprise=[]))
    with pytest.raises(ValueError, match=r"state\.position must be an int or"):
        titans_memory(*tokens, weights, state._replace(position=torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"state\.position must be in \[0, 16\) .* got 16"):
        titans_memory(*tokens, weights, state._replace(position=16))
    with pytest.raises(ValueError, match=r"q must be of a floating type; got torch\.int64"):
        titans_memory(tokens[0].long(), *tokens[1:], weights)


def test_no_batch_at_all() -> None:
    tokens, weights = make_inputs(9)
    none = [x[:0] for x in tokens]
    for mask in (None, torch.ones(0, 9, dtype=torch.bool)):
        y, state = titans_memory(*none, weights, mask=mask)
        assert y.shape == (0, 9, 2, DIM_V)
        assert state.weights[0].shape[0] == 0


def test_arguments_of_a_wrong_kind_are_named() -> None:
    tokens, weights = make_inputs(5)
    with pytest.raises(ValueError, match=r"lr must be a tensor \(B, T, H\); got 0\.1"):
        titans_memory(*tokens[:3], 0.1, *tokens[4:], weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights must be a list of tensors .*; got a tensor \(2, 4, 5\)"):
        titans_memory(*tokens, weights[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"chunk_size must be an integer; got 16\.0"):
        titans_memory(*tokens, weights, chunk_size=16.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least one head; got \(B, T, H, D_k\) = \(2, 5, 0, 4\)"):
        titans_memory(*(x[:, :, :0] for x in tokens), [weights[0][:0]])
