"""Sliding-window attention against a loop over queries, in float64."""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.nn.attention_reference import naive_attention
from titans_seq.nn.attention import AttentionState, SlidingWindowAttention

DIM = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(window: int | None, num_heads: int = 2, num_persistent: int = 3, **options: Any) -> SlidingWindowAttention:
    layer = SlidingWindowAttention(DIM, num_heads, window=window, num_persistent=num_persistent, **options).double()
    for name, parameter in layer.named_parameters():
        if name.startswith("persistent"):
            torch.nn.init.normal_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=1.5 / sqrt(DIM))
    return layer


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, DIM, dtype=torch.float64, requires_grad=True)


def close(found: Tensor, wanted: Tensor, atol: float = 1e-12) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0, atol=atol)


class SDPACalls(TorchFunctionMode):
    """Counts the calls of SDPA, their scores, the elements of their keys and those of the largest mask."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.scores, self.keys, self.mask = 0, 0, 0, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            (q, k), mask = args[:2], kwargs["attn_mask"]
            self.calls += 1
            self.scores += q.shape[0] * q.shape[2] * k.shape[2]
            self.keys += k.numel()
            if mask is not None:
                assert mask.any(-1).all(), "a query without visible keys: kernels differ in the result"
                self.mask = max(self.mask, mask.numel())
        return func(*args, **(kwargs or {}))


def gradients(y: Tensor, inputs: Sequence[Tensor], seed: int = 1) -> tuple[Tensor, ...]:
    weighting = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad((y * weighting).sum(), inputs)


@pytest.mark.parametrize(
    ("num_heads", "num_persistent", "rotary_share"), [(1, 0, 1.0), (4, 3, 0.5), (1, 1, 0.5), (4, 0, 0.0)]
)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 5, 16, 100, None])
def test_equals_the_loop_over_positions_and_its_gradients(
    window: int | None, causal: bool, num_heads: int, num_persistent: int, rotary_share: float
) -> None:
    layer = make(window, num_heads, num_persistent, causal=causal, rotary_share=rotary_share)
    for length in (1, 5, 6, 17, 149):  # the last length needs several blocks
        x = tokens(2, length)
        y, _ = layer(x)
        wanted = torch.stack([naive_attention(layer, row) for row in x])
        assert close(y, wanted), length
        inputs = [x, *layer.parameters()]
        for a, b in zip(gradients(y, inputs), gradients(wanted, inputs), strict=True):
            assert close(a, b, 1e-11), length


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 5, None])
def test_an_empty_sequence_gives_an_empty_output(window: int | None, causal: bool) -> None:
    layer = make(window, causal=causal)
    y, state = layer(tokens(2, 0))
    assert y.shape == (2, 0, DIM)
    assert state.seen == 0
    y, state = layer(tokens(2, 0), mask=torch.zeros(2, 0, dtype=torch.bool))
    assert y.shape == (2, 0, DIM)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 4, 70, None])
def test_a_token_affects_exactly_the_queries_whose_window_contains_it(window: int | None, causal: bool) -> None:
    layer = make(window, causal=causal)
    length, reach = 150, 150 if window is None else window
    x = tokens(1, length).detach()
    changed = x + torch.eye(length, dtype=x.dtype)[..., None]  # batch element t: token t changed
    moved = (layer(torch.cat([x, changed]))[0][1:] - layer(x)[0]).abs().amax(-1) > 1e-12
    ago = torch.arange(length) - torch.arange(length)[:, None]
    assert torch.equal(moved, (ago < reach) & (ago >= (0 if causal else 1 - reach)))


def test_batch_elements_do_not_see_each_other() -> None:
    for causal in (True, False):
        layer = make(70, causal=causal)
        x = tokens(3, 150)
        y, _ = layer(x)
        (gradient,) = torch.autograd.grad(y[1].sum(), x)
        assert torch.equal(gradient[[0, 2]], torch.zeros_like(gradient[[0, 2]]))
        assert close(y[1:2], layer(x[1:2])[0])


def test_scores_depend_on_distance_alone_and_persistent_tokens_are_position_independent() -> None:
    layer = make(8)
    x = tokens(1, 1).detach().expand(1, 40, DIM)
    y, _ = layer(x)
    assert close(y[:, 8:], y[:, 7:8].expand(-1, 32, -1))
    # With window 1 a query sees only itself, at distance 0, and them: the output must be the same at all positions.
    y, _ = make(1)(x)
    assert close(y, y[:, :1].expand(-1, 40, -1))


PIECES = [1, 2, 0, 1, 1, 16, 5, 40, 2, 150, 1, 0, 7, 30]


@pytest.mark.parametrize("window", [1, 2, 5, 16, 100])
@pytest.mark.parametrize("valid_fraction", [1.0, 0.6])
def test_pieces_equal_one_call_and_its_gradients(window: int, valid_fraction: float) -> None:
    layer = make(window)
    x = tokens(3, sum(PIECES))
    valid = torch.rand(x.shape[:2]) < valid_fraction
    valid[1, : sum(PIECES[:8])] = False  # a sequence that begins late, and one that ends early
    valid[2, sum(PIECES[:9]) :] = False
    mask = None if valid_fraction == 1 else valid
    whole, last = layer(x, mask=mask)
    outputs: list[Tensor] = []
    state = None
    for piece, piece_mask in zip(x.split(PIECES, 1), valid.split(PIECES, 1), strict=True):
        y, state = layer(piece, state, mask=None if mask is None else piece_mask)
        outputs.append(y)
        assert (
            state.keys.shape == state.values.shape == (3, 2, window - 1, DIM // 2)
        )  # constant from the first piece on
    found = torch.cat(outputs, dim=1)
    assert close(found, whole, 1e-10)
    assert state is not None
    for a, b in zip(state, last, strict=True):
        assert close(torch.as_tensor(a), torch.as_tensor(b), 1e-10)
    inputs = [x, *layer.parameters()]
    for a, b in zip(gradients(found, inputs), gradients(whole, inputs), strict=True):
        assert close(a, b, 1e-10)


def test_masked_and_unmasked_pieces_may_alternate() -> None:
    layer = make(5)
    first, second, third = tokens(2, 4), tokens(2, 3), tokens(2, 90)
    mask = torch.tensor([[True, False, False], [False, True, True]])
    _, state = layer(first)
    _, state = layer(second, state, mask=mask)
    y, _ = layer(third, state)
    for b in range(2):
        sequence = torch.cat([first[b], second[b, mask[b]], third[b]])
        assert close(y[b], naive_attention(layer, sequence)[-90:], 1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "num_persistent"), [(1, 0), (3, 0), (3, 2), (70, 0), (70, 2), (None, 0), (None, 2)])
def test_padding_has_no_effect(window: int | None, num_persistent: int, causal: bool) -> None:
    layer = make(window, num_persistent=num_persistent, causal=causal)
    x = tokens(5, 200)
    mask = torch.rand(5, 200) < 0.7
    mask[1, 10:] = False
    mask[2, :150] = False
    mask[3] = False
    mask[4] = True
    poisoned = torch.where(mask[..., None], x, torch.nan)
    with SDPACalls():
        y, state = layer(poisoned, mask=mask)
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    found = gradients(y, [x, *layer.parameters()])
    assert torch.equal(found[0][~mask], torch.zeros_like(found[0][~mask]))
    wanted = torch.zeros_like(y)
    for b in range(5):
        alone, state_alone = layer(x[b : b + 1, mask[b]])
        assert close(y[b, mask[b]], alone[0])
        wanted = wanted.index_put((torch.tensor(b), mask[b].nonzero()[:, 0]), alone[0])
        assert close(state.keys[b], state_alone.keys[0])
        assert close(state.values[b], state_alone.values[0])
        assert torch.as_tensor(state.seen).expand(5)[b] == state_alone.seen
    for a, b_ in zip(found, gradients(wanted, [x, *layer.parameters()]), strict=True):
        assert close(a, b_, 1e-11)


@pytest.mark.parametrize("window", [4, 70])
def test_a_batch_of_padding_only_is_finite_and_keeps_the_state(window: int) -> None:
    layer = make(window, num_persistent=0)
    _, before = layer(tokens(2, 3))
    padding = torch.full((2, 100, DIM), torch.nan, dtype=torch.float64, requires_grad=True)
    with SDPACalls():
        y, after = layer(padding, before, mask=torch.zeros(2, 100, dtype=torch.bool))
    assert torch.equal(y, torch.zeros_like(y))
    for gradient in gradients(y, [padding, *layer.parameters()]):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    assert torch.equal(after.keys, before.keys)
    assert after.seen == 3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_a_state_survives_a_file(tmp_path: Path, num_heads: int, masked: bool) -> None:
    layer = make(6, num_heads)
    mask = torch.tensor([[True, False, True], [True, False, False]]) if masked else None
    x = tokens(2, 20).detach()
    _, state = layer(tokens(2, 3), mask=mask)
    assert state.keys.requires_grad
    assert not state.detach().keys.requires_grad
    save_file(state.named_tensors(), tmp_path / "state.safetensors")
    loaded = AttentionState.from_named_tensors(load_file(tmp_path / "state.safetensors"))
    assert isinstance(loaded.seen, int) != masked
    y, _ = layer(x, loaded)
    assert torch.equal(y, layer(x, state)[0])
    with pytest.raises(ValueError, match="an AttentionState must have the tensors keys, values, seen; got keys"):
        AttentionState.from_named_tensors({"keys": state.keys})


def test_a_state_stores_no_more_than_its_window() -> None:
    for num_heads in (1, 2):
        _, state = make(6, num_heads)(tokens(2, 500))
        for x in (state.keys, state.values):
            assert x.is_contiguous()
            assert x.untyped_storage().nbytes() == x.nbytes


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_every_parameter_of_a_new_layer_gets_a_gradient(num_heads: int, causal: bool) -> None:
    layer = SlidingWindowAttention(DIM, num_heads, window=4, causal=causal, num_persistent=2)
    y, _ = layer(torch.randn(2, 9, DIM))
    y.square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


def sdpa_calls(layer: SlidingWindowAttention, length: int) -> SDPACalls:
    with SDPACalls() as calls, torch.no_grad():
        layer(torch.randn(1, length, DIM, dtype=torch.float64))
    return calls


@pytest.mark.parametrize("window", [1, 64, 300])
def test_work_and_memory_grow_linearly(window: int) -> None:
    causal = make(window)
    short, long = sdpa_calls(causal, 4096), sdpa_calls(causal, 16384)
    assert long.calls <= 2
    assert 0 < max(short.mask, long.mask) <= 256 * (256 + window)  # one mask for all blocks
    assert long.scores < 4.5 * short.scores
    assert long.keys < 4.5 * short.keys
    assert long.scores < 16384 * (2 * window + 300)
    both_ways = make(window, causal=False)
    assert sdpa_calls(both_ways, 16384).mask < 4.5 * sdpa_calls(both_ways, 4096).mask


@pytest.mark.parametrize(("window", "length"), [(None, 50), (64, 64), (100, 50)])
def test_a_first_window_and_full_attention_need_no_mask(window: int | None, length: int) -> None:
    for mask in (None, torch.rand(1, length) < 0.5):
        with SDPACalls() as calls:
            make(window)(tokens(1, length), mask=mask)
        assert (calls.calls, calls.mask) == (1, 0)


def test_rotary_angles_do_not_grow_along_a_stream() -> None:
    """Piece 100 equals piece 2 bit for bit: positions are not counted from the start of the stream."""
    layer = SlidingWindowAttention(DIM, 2, window=8)
    x = torch.randn(1, 16, DIM)
    _, state = layer(x)
    wanted, _ = layer(x, state)
    for _ in range(100):
        y, state = layer(x, state)
        state = state.detach()
    assert torch.equal(y, wanted)


@pytest.mark.parametrize("window", [4, None])
@pytest.mark.parametrize("causal", [True, False])
def test_lower_precision(window: int | None, causal: bool) -> None:
    layer = make(window, causal=causal).float()
    x = torch.randn(2, 100, DIM)
    mask = torch.rand(2, 100) < 0.8
    exact, _ = layer.double()(x.double(), mask=mask)
    single, _ = layer.float()(x, mask=mask)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, rtol=0, atol=2e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, state = layer(x, mask=mask)
        mixed.float().sum().backward()
        if causal and window is not None:
            layer(x, layer(x)[1], mask=mask)
    assert mixed.dtype == state.keys.dtype == torch.bfloat16
    if causal and window is not None:
        assert layer(x, state)[0].dtype == torch.float32  # a state in one precision continues in another
    half, _ = layer.bfloat16()(x.bfloat16(), mask=mask)
    assert half.dtype == torch.bfloat16
    size = exact.abs().max()
    for y in (mixed, half):
        assert (y.double() - exact).abs().max() < 0.05 * size


def test_invalid_arguments_raise_errors_with_the_rule() -> None:
    def assert_raises(match: str, *arguments: int, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            SlidingWindowAttention(*arguments, **{"window": 4, **options})

    assert_raises("num_heads must divide dim; got 3 and 16", 16, 3)
    assert_raises("window must be at least 1 or None, num_persistent 0; got 0 and 0", 16, 2, window=0)
    assert_raises("window must be at least 1 or None, num_persistent 0; got 4 and -1", 16, 2, num_persistent=-1)
    assert_raises("of head_dim must be even; got 0.5 of 6", 12, 2)
    assert_raises("of head_dim must be even; got 1.5 of 8", 16, 2, rotary_share=1.5)
    assert_raises("persistent tokens need features that are not rotated", 16, 2, num_persistent=1, rotary_share=1.0)

    x = tokens(2, 5)
    _, state = make(4)(x)
    with pytest.raises(ValueError, match="it would grow with the sequence"):
        make(None)(x, make(None)(x)[1])
    with pytest.raises(ValueError, match="bidirectional attention takes no state"):
        make(4, causal=False)(x, state)
    with pytest.raises(ValueError, match=r"state must hold keys and values \(2, 2, 4, 8\); got \(2, 2, 3, 8\)"):
        make(5)(x, state)
    for mask in (torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5)):
        with pytest.raises(ValueError, match=r"mask must be bool \(2, 5\)"):
            make(4)(x, mask=mask)
