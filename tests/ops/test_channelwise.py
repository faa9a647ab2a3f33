"""A forget gate per input channel: the chunked path against the token loop in float64, and against one gate for all."""

import gc
import weakref
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.test_chunked import (
    BATCH,
    DIM_V,
    HEADS,
    assert_same,
    flatten,
    loss_of,
    make_inputs,
    results_and_gradients,
)
from titans_seq.ops import MemoryState, titans_memory
from titans_seq.ops.memory.chunked.channelwise import autograd
from titans_seq.ops.memory.chunked.channelwise.decay import channel_coefficients


def make_channel_inputs(
    length: int, depth: int = 1, seed: int = 0, dim_v: int = DIM_V
) -> tuple[list[Tensor], list[Tensor]]:
    """Like `make_inputs`, but with a forget gate for every input channel of every layer."""
    tokens, weights = make_inputs(length, depth, seed, dim_v)
    generator = torch.Generator().manual_seed(seed + 100)
    channels = sum(w.shape[1] for w in weights)
    noise = torch.randn(BATCH, length, HEADS, channels, dtype=torch.float64, generator=generator)
    return [*tokens[:5], torch.sigmoid(noise - 2).requires_grad_()], weights


def compare(length: int, depth: int = 1, state: MemoryState | None = None, dim_v: int = DIM_V, **options: Any) -> None:
    tokens, weights = make_channel_inputs(length, depth, dim_v=dim_v)
    reference = {k: v for k, v in options.items() if k != "checkpoint_every"}
    found = everything(tokens, weights, state, **options)
    assert_same(found, everything(tokens, weights, state, backend="reference", **reference))


def everything(tokens: list[Tensor], weights: list[Tensor], state: MemoryState | None, **options: Any) -> list[Tensor]:
    """Outputs, state, stats, the position in the chunk, and gradients of tokens, initial weights and state."""
    leaves = [] if state is None else [x for group in state[:3] for x in group if x.requires_grad]
    y, after, stats = titans_memory(*tokens, weights, state, return_stats=True, **options)
    results = flatten(y, after)
    gradients = torch.autograd.grad(loss_of(results), [*tokens, *weights, *leaves], allow_unused=True)
    found = [torch.zeros(()) if g is None else g for g in gradients]
    assert not any(x.requires_grad for x in stats)
    return [*results, *found, *stats, torch.as_tensor(after.position).expand(BATCH).double()]


def carried_state(depth: int, length: int, mask: Tensor | None = None, **options: Any) -> MemoryState:
    """The state after some tokens, as leaves of the graph."""
    tokens, weights = make_channel_inputs(length, depth, seed=1, dim_v=DIM_V)
    _, state = titans_memory(*tokens, weights, mask=mask, **options)
    groups = ([x.detach().clone().requires_grad_() for x in group] for group in state[:3])
    return MemoryState(*groups, state.position)


def flags(length: int, share: float, seed: int) -> Tensor:
    return torch.rand(BATCH, length, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("chunk_size", [1, 5, 16])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
def test_chunked_equals_the_token_loop(depth: int, chunk_size: int, forget_to: Any) -> None:
    options = {"chunk_size": chunk_size, "forget_to": forget_to}
    compare(35, depth, **options)
    compare(7, depth, carried_state(depth, 4, **options), **options)


@pytest.mark.parametrize("chunk_size", [1, 5, 16])
@pytest.mark.parametrize("forget_to", ["zero", "initial"])
@pytest.mark.parametrize("outer_gradient", ["exact", "first_order"])
def test_online_equals_the_token_loop(chunk_size: int, forget_to: Any, outer_gradient: Any) -> None:
    options = {"chunk_size": chunk_size, "forget_to": forget_to, "outer_gradient": outer_gradient}
    compare(35, gradient="online", **options)
    compare(3, state=carried_state(1, 4, gradient="online", **options), gradient="online", **options)


@pytest.mark.parametrize("forget_to", ["zero", "initial"])
@pytest.mark.parametrize("outer_gradient", ["exact", "first_order"])
@pytest.mark.parametrize(("depth", "residual"), [(1, True), (2, False), (3, True)])
def test_options_together_equal_the_token_loop(forget_to: Any, outer_gradient: Any, depth: int, residual: bool) -> None:
    options = {"forget_to": forget_to, "outer_gradient": outer_gradient, "residual": residual}
    compare(19, depth, dim_v=4, chunk_size=6, **options)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_other_activations_equal_the_token_loop(activation: Any) -> None:
    compare(19, 3, chunk_size=8, activation=activation)


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize(("depth", "gradient"), [(2, "chunk"), (1, "online")])
def test_checkpoints_change_nothing(every: int, depth: int, gradient: Any) -> None:
    state = carried_state(depth, 3, gradient=gradient, chunk_size=4)
    compare(22, depth, state, gradient=gradient, chunk_size=4, forget_to="initial", checkpoint_every=every)


def test_segments_chosen_by_size_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titans_seq.ops.memory.chunked.channelwise.autograd._TABLE_BYTES", 0)
    compare(50, 2, chunk_size=3)


@pytest.mark.parametrize(
    ("depth", "options"),
    [
        (2, {"chunk_size": 5, "forget_to": "initial"}),
        (2, {"chunk_size": 4, "checkpoint_every": 1}),
        (1, {"chunk_size": 3, "gradient": "online"}),
    ],
)
@pytest.mark.parametrize(("kept", "resets"), [(0.7, 0.0), (1.0, 0.2), (0.6, 0.2), (0.0, 0.5)])
def test_masks_and_resets_equal_the_token_loop(depth: int, options: dict[str, Any], kept: float, resets: float) -> None:
    masks = {"mask": flags(17, kept, 1), "reset": flags(17, resets, 2)}
    uneven = carried_state(depth, 7, mask=flags(7, 0.6, 4), **options)
    for state in (None, uneven):
        compare(17, depth, state, **masks, **options)


def test_coefficients_follow_the_recurrence_token_by_token() -> None:
    tokens, _ = make_channel_inputs(7)
    momentum, forget = (x.detach().transpose(1, 2).unsqueeze(0).flatten(1, 2) for x in tokens[4:])  # (1, G, C, ...)
    live = flags(7, 0.6, 1).repeat_interleave(HEADS, dim=0).unsqueeze(0)
    for layer, channels in zip(channel_coefficients(momentum, forget, live, [1, 3]), ([0], [1, 2, 3]), strict=True):
        keep, cross, surprise = torch.ones(3, 1, BATCH * HEADS, 1, dtype=torch.float64)
        cross = torch.zeros_like(cross)
        for t in range(7):
            goes_on = live[:, :, t, None]
            surprise = torch.where(goes_on, momentum[:, :, t, None] * surprise, surprise)
            kept = 1 - forget[:, :, t, channels]
            cross = torch.where(goes_on, kept * cross + surprise, cross)
            keep = torch.where(goes_on, kept * keep, keep)
            assert_same([x[:, :, t] for x in layer.chunk[:3]], [keep, cross, surprise])


def test_masked_tokens_leave_the_state_bit_identical() -> None:
    tokens, weights = make_channel_inputs(8, depth=2)
    for forget_to in ("zero", "initial"):
        options = {"chunk_size": 5, "forget_to": forget_to}
        _, state = titans_memory(*tokens, weights, **options)
        mask = torch.ones(BATCH, 8, dtype=torch.bool)
        mask[0] = False  # its chunks contain only padding
        _, after = titans_memory(*tokens, weights, state, mask=mask, **options)
        for before, now in zip(flatten(tokens[0], state)[1:], flatten(tokens[0], after)[1:], strict=True):
            assert torch.equal(before[0], now[0])
            assert not torch.equal(before[1], now[1])


@pytest.mark.parametrize(
    ("depth", "options"),
    [(1, {}), (2, {"forget_to": "initial"}), (1, {"gradient": "online"}), (1, {"outer_gradient": "first_order"})],
)
def test_every_split_in_two_continues_exactly(depth: int, options: dict[str, Any]) -> None:
    tokens, weights = make_channel_inputs(11, depth)
    whole = results_and_gradients(tokens, weights, lambda: titans_memory(*tokens, weights, chunk_size=4, **options))
    for cut in range(12):

        def in_two(cut: int = cut) -> tuple[Tensor, MemoryState]:
            first, rest = ([x[:, part] for x in tokens] for part in (slice(cut), slice(cut, None)))
            y1, state = titans_memory(*first, weights, chunk_size=4, **options)
            y2, state = titans_memory(*rest, weights, state, chunk_size=4, **options)
            return torch.cat([y1, y2], dim=1), state

        assert_same(results_and_gradients(tokens, weights, in_two), whole)


@pytest.mark.parametrize(
    ("depth", "options"),
    [
        (1, {"forget_to": "initial"}),
        (3, {"residual": True}),
        (1, {"gradient": "online"}),
        (2, {"outer_gradient": "first_order", "mask": flags(41, 0.8, 1)}),
    ],
)
def test_equal_channels_are_one_gate(depth: int, options: dict[str, Any]) -> None:
    tokens, weights = make_inputs(41, depth, dim_v=4)
    channels = sum(w.shape[1] for w in weights)
    spread = [*tokens[:5], tokens[5].unsqueeze(-1).expand(*tokens[5].shape, channels)]
    one, each = (
        results_and_gradients(tokens, weights, lambda: titans_memory(*x, weights, chunk_size=16, **options))  # noqa: B023
        for x in (tokens, spread)
    )
    assert_same(each, one)


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_channels_are_the_inputs_of_one_layer_after_another(backend: Any) -> None:
    tokens, weights = make_channel_inputs(9, depth=3)
    still = [torch.zeros_like(tokens[3]), torch.ones_like(tokens[4])]  # nothing is written, only forgotten
    _, state = titans_memory(*tokens[:3], *still, tokens[5], weights, chunk_size=4, backend=backend)
    left = (1 - tokens[5]).prod(dim=1)
    expected = [left[..., first : first + w.shape[1], None] * w for first, w in zip((0, 4, 12), weights, strict=True)]
    assert_same(state.weights, expected)


@pytest.mark.parametrize("gradient", ["chunk", "online"])
def test_gates_at_exactly_zero_and_one(gradient: Any) -> None:
    for lr, momentum, forget in product([0.0, 1.0], [0.0, 1.0], [0.0, 1.0, None]):
        tokens, weights = make_channel_inputs(11)
        binary = (tokens[5] > 0.1).double()  # independent for each channel
        tokens[3:] = [
            *(torch.full_like(g, x).requires_grad_() for g, x in zip(tokens[3:5], (lr, momentum), strict=True)),
            (binary if forget is None else torch.full_like(binary, forget)).requires_grad_(),
        ]
        found, expected = (
            everything(tokens, weights, None, chunk_size=4, gradient=gradient, backend=backend)
            for backend in ("chunked", "reference")
        )
        assert all(torch.isfinite(x).all() for x in found)
        assert_same(found, expected)


def test_gradients_by_finite_differences() -> None:
    tokens, weights = make_channel_inputs(6, depth=2)
    tokens = [x[:1, :, :1].detach().requires_grad_() for x in tokens]
    weights = [w[:1].detach().requires_grad_() for w in weights]

    def op(*arguments: Tensor) -> tuple[Tensor, ...]:
        return tuple(flatten(*titans_memory(*arguments[:6], list(arguments[6:]), chunk_size=4)))

    assert torch.autograd.gradcheck(op, (*tokens, *weights), fast_mode=True)


def test_a_token_changes_itself_and_the_future_only() -> None:
    tokens, weights = ([x.detach() for x in group] for group in make_channel_inputs(19, depth=2))
    y, _ = titans_memory(*tokens, weights, chunk_size=6)
    for index, t in product(range(6), (0, 5, 6, 8, 18)):
        changed = [x.clone() for x in tokens]
        changed[index][:, t] *= 0.5
        y_changed, _ = titans_memory(*changed, weights, chunk_size=6)
        differs = (y != y_changed).flatten(2).any(-1).any(0)
        assert not differs[:t].any()
        assert differs[t] or (index == 4 and t == 0)


@pytest.mark.parametrize("options", [{"chunk_size": 16}, {"chunk_size": 64, "gradient": "online"}])
def test_long_sequences_in_single_precision(options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    length, dim = 4096, 16
    q, k, v = (torch.randn(1, length, 1, dim, generator=generator) for _ in range(3))
    gates = [torch.rand(1, length, 1, *more, generator=generator) for more in ((), (), (dim,))]
    gates[2] = (gates[2] - 0.5).clamp_min(0) * 2  # half of the gates are zero, the others up to one
    tokens = [q, torch.nn.functional.normalize(k, dim=-1), v, *gates]
    weights = [torch.randn(1, dim, dim, generator=generator)]
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [x.to(dtype).requires_grad_() for x in (*tokens, *weights)]
        y, state = titans_memory(*leaves[:6], leaves[6:], **options)
        results.append([y, *state.weights, *torch.autograd.grad(y.square().mean() + state.weights[0].sum(), leaves)])
    for single, double in zip(*results, strict=True):
        assert torch.isfinite(single).all()
        assert (single - double).abs().max() <= 1e-4 * double.abs().max()


def test_half_precision_inputs_keep_a_float32_state() -> None:
    tokens, weights = make_channel_inputs(40, depth=2)
    half = [x.detach().to(torch.bfloat16) for x in tokens]
    y, state = titans_memory(*half, [w.detach().float() for w in weights])
    assert y.dtype == torch.bfloat16
    assert state.weights[0].dtype == torch.float32
    exact, _ = titans_memory(*(x.double() for x in half), weights, backend="reference")
    assert (y - exact).abs().max() <= 2**-8 * exact.abs().max()


def test_autocast_rounds_neither_results_nor_gradients() -> None:
    tokens, weights = ([x.detach().float().requires_grad_() for x in group] for group in make_channel_inputs(23))

    def run() -> list[Tensor]:
        y, state = titans_memory(*tokens, weights)
        return [y, *state.weights, *torch.autograd.grad(y.sum(), [*tokens, *weights])]

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("gradient", ["chunk", "online"])
def test_an_empty_sequence_or_batch(gradient: Any) -> None:
    tokens, weights = make_channel_inputs(9)
    _, state = titans_memory(*tokens, weights, chunk_size=4, gradient=gradient)
    y, after = titans_memory(*(x[:, :0] for x in tokens), weights, state, chunk_size=4, gradient=gradient)
    assert y.shape == (BATCH, 0, HEADS, DIM_V)
    assert_same(flatten(y, after)[1:], flatten(y, state)[1:])
    for mask in (None, torch.ones(0, 9, dtype=torch.bool)):
        y, after = titans_memory(*(x[:0] for x in tokens), weights, mask=mask, chunk_size=4, gradient=gradient)
        assert y.shape == (0, 9, HEADS, DIM_V)
        assert after.weights[0].shape[0] == 0


class Kept:
    """Counts what autograd keeps, for `saved_tensors_hooks`: numbers now, at the peak, and in the largest tensor."""

    def __init__(self) -> None:
        self.now = self.peak = self.largest = 0

    def pack(self, x: Tensor) -> "tuple[Tensor, _Held]":
        return x, _Held(self, x.numel())

    @staticmethod
    def unpack(held: "tuple[Tensor, _Held]") -> Tensor:
        return held[0]


class _Held:
    def __init__(self, kept: Kept, numbers: int) -> None:
        self.kept, self.numbers = kept, numbers
        kept.now += numbers
        kept.peak, kept.largest = max(kept.peak, kept.now), max(kept.largest, numbers)

    def __del__(self) -> None:
        self.kept.now -= self.numbers


@pytest.mark.parametrize(("depth", "gradient"), [(2, "chunk"), (1, "online")])
def test_no_table_of_tokens_by_tokens_by_channels_is_kept(
    depth: int, gradient: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk_size, every, graphs, states = 32, 2, [], []
    run_segment = autograd._run_segment

    def watched(*arguments: Any) -> Any:
        y, state, writes = run_segment(*arguments)
        states.append(weakref.ref(state[0]))
        return y, state, writes

    monkeypatch.setattr(autograd, "_run_segment", watched)
    for length in (256, 1024):
        tokens, weights = make_channel_inputs(length, depth)
        kept = Kept()
        gc.disable()
        try:
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
                options = {"chunk_size": chunk_size, "gradient": gradient, "checkpoint_every": every}
                y, state = titans_memory(*tokens, weights, **options)
                assert kept.now <= 1.1 * sum(x.numel() for x in (*tokens, *weights, *state.weights))
                after_forward, kept.largest = kept.now, 0
                torch.autograd.grad(y.sum(), tokens)
            del y, state
            assert kept.now == 0  # nothing waits for the garbage collector
            assert states
            assert not any(state() for state in states)
        finally:
            gc.enable()
        assert kept.largest <= BATCH * HEADS * every * chunk_size * max(chunk_size, tokens[5].shape[-1])
        graphs.append(kept.peak - after_forward)
    assert graphs[0] == graphs[1] > 0  # one segment's graph, independent of the length


def test_a_wrong_number_of_channels_raises() -> None:
    tokens, weights = make_channel_inputs(3, depth=2)
    with pytest.raises(ValueError, match=r"forget must be .* = \(2, 3, 2, 12\); got \(2, 3, 2, 4\)"):
        titans_memory(*tokens[:5], tokens[5][..., :4], weights)
    with pytest.raises(ValueError, match=r"forget must be \(B, T, H\) = \(2, 3, 2\); got \(2, 3\)"):
        titans_memory(*tokens[:5], tokens[5][..., 0, 0], weights)
    with pytest.raises(ValueError, match=r"lr must be \(B, T, H\) = \(2, 3, 2\); got \(2, 3, 2, 12\)"):
        titans_memory(*tokens[:3], tokens[5], *tokens[4:], weights)
