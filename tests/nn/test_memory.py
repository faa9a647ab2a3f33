"""Memory layer with masked tokens and packed sequences, against each sequence alone; its stats and its state."""

import inspect
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.ops.test_chunked import assert_same, flatten, loss_of
from titans_seq.backbone import build_backbone
from titans_seq.nn import CausalConv, LayerStats, NeuralMemory, NeuralMemoryState
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.schema import BackboneOptions, MemoryOptions

BATCH, DIM = 3, 6

LAYERS: dict[str, dict[str, Any]] = {
    "matrix": {},
    "matrix that forgets to its start": {"forget_to": "initial"},
    "matrix from zero": {"initial": "zero"},
    "online": {"gradient": "online"},
    "two layers": {"depth": 2, "expansion": 2},
    "residual": {"depth": 2, "expansion": 2, "residual": True},
    "no convolution": {"conv_width": 1},
    "wide convolution": {"conv_width": 7},
    "first order": {"outer_gradient": "first_order"},
    "channel-wise forgetting": {"channel_forget": True, "depth": 2, "expansion": 2},
    "the delta rule by channel": {"channel_forget": True, "momentum": False, "gradient": "online"},
    "nothing forgotten": {"forgetting": False},
    "closing gates": {"gates": "closing"},
    "closing gates, online, by channel": {"gates": "closing", "gradient": "online", "channel_forget": True},
}
every_layer = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)


def make_layer(**options: Any) -> NeuralMemory:
    torch.manual_seed(0)
    layer = NeuralMemory(DIM, 2, chunk_size=4, **options).double()
    torch.nn.init.normal_(layer.conv.weight)
    torch.nn.init.normal_(layer.gates.weight, std=0.5)
    return layer


def make_x(length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, length, DIM, dtype=torch.float64, generator=generator)


def flags(length: int, share: float, seed: int) -> Tensor:
    return torch.rand(BATCH, length, generator=torch.Generator().manual_seed(seed)) < share


def all_of(y: Tensor, state: NeuralMemoryState) -> list[Tensor]:
    """List all tensors that a call returns."""
    return [*flatten(y, state.memory), state.conv]


def loss_by_row(results: list[Tensor], mask: Tensor) -> Tensor:
    """Sum of per-element losses, independent of other batch elements and of the positions of valid tokens."""
    y, *states = results
    rows = (loss_of([y[b : b + 1, mask[b]], *(s[b : b + 1] for s in states)]) for b in range(BATCH))
    return sum(rows, torch.zeros(()))


def with_gradients(layer: NeuralMemory, x: Tensor, results: list[Tensor], loss: Tensor) -> list[Tensor]:
    return [*results, *torch.autograd.grad(loss, [x, *layer.parameters()])]


def run(
    layer: NeuralMemory, x: Tensor, state: NeuralMemoryState | None, mask: Tensor, reset: Tensor | None = None
) -> list[Tensor]:
    """Run the whole batch with flags; return outputs, states and gradients."""
    x = x.clone().requires_grad_()
    y, after = layer(x, state, mask=mask, reset=reset)
    return with_gradients(layer, x, all_of(y, after), loss_by_row(all_of(y, after), mask))


def run_alone(layer: NeuralMemory, x: Tensor, mask: Tensor, reset: Tensor | None = None) -> list[Tensor]:
    """Run every sequence alone without flags, with masked tokens removed and no initial state; return the same."""
    x = x.clone().requires_grad_()
    y = torch.zeros_like(x)
    finals = []
    for b in range(BATCH):
        (valid,) = mask[b].nonzero(as_tuple=True)
        begins = [] if reset is None else reset[b, valid].nonzero().flatten().tolist()
        cuts = [0, *begins, len(valid)]
        for first, last in pairwise(cuts):
            tokens = valid[first:last]
            piece, after = layer(x[b : b + 1, tokens])
            y = y.index_put((torch.tensor([b]), tokens), piece[0])
        finals.append(all_of(piece, after)[1:])
    results = [y, *(torch.cat(group) for group in zip(*finals, strict=True))]
    return with_gradients(layer, x, results, loss_by_row(results, mask))


@every_layer
@pytest.mark.parametrize("length", [1, 2, 19])
def test_masked_equals_removed(options: dict[str, Any], length: int) -> None:
    layer = make_layer(**options)
    padded = torch.arange(length).expand(BATCH, length)
    shares = torch.tensor([[0.2], [0.5], [1.0]]) * length
    for mask in (flags(length, 0.6, 2), flags(length, 0.15, 3), padded < shares, padded >= length - shares):
        assert_same(run(layer, make_x(length), None, mask), run_alone(layer, make_x(length), mask))


@every_layer
def test_packed_sequences_with_gaps_equal_each_alone(options: dict[str, Any]) -> None:
    layer = make_layer(**options)
    x, everything = make_x(19), torch.ones(BATCH, 19, dtype=torch.bool)
    for kept_rate, start_rate in ((1.0, 0.2), (0.6, 0.3), (0.7, 1.0)):
        mask, reset = flags(19, kept_rate, 2), flags(19, start_rate, 4)
        assert_same(run(layer, x, None, mask, reset), run_alone(layer, x, mask, reset))
    expected = run_alone(layer, x, everything, reset)
    found = all_of(*layer(x, reset=reset))  # without a mask
    assert_same(found, expected[: len(found)])


@every_layer
@pytest.mark.parametrize(("kept_rate", "start_rate"), [(0.5, 0.0), (1.0, 0.2), (0.5, 0.2)])
def test_pieces_with_flags_continue_exactly(options: dict[str, Any], kept_rate: float, start_rate: float) -> None:
    """Batch elements have different numbers of valid tokens before the cut, some none."""
    layer = make_layer(**options)
    mask, reset = flags(11, kept_rate, 5), flags(11, start_rate, 6)
    mask[0, :4] = False
    whole = run(layer, make_x(11), None, mask, reset)
    for cut in range(12):
        x = make_x(11).requires_grad_()
        first, state = layer(x[:, :cut], mask=mask[:, :cut], reset=reset[:, :cut])
        second, after = layer(x[:, cut:], state, mask=mask[:, cut:], reset=reset[:, cut:])
        results = all_of(torch.cat([first, second], dim=1), after)
        assert_same(with_gradients(layer, x, results, loss_by_row(results, mask)), whole)


@every_layer
def test_a_masked_piece_keeps_the_state_bit_for_bit_whatever_it_contains(options: dict[str, Any]) -> None:
    layer = make_layer(**options)
    padding = torch.full((BATCH, 5, DIM), float("nan"))
    nothing = torch.zeros(BATCH, 5, dtype=torch.bool)
    for mask in (None, flags(7, 0.5, 2)):
        _, state = layer(make_x(7), mask=mask)
        y, after = layer(padding.double(), state, mask=nothing, reset=~nothing)
        assert not y.any()
        for before, now in zip(all_of(y, state), all_of(y, after), strict=True):
            assert torch.equal(before, now)
        assert (torch.as_tensor(state.memory.position) == torch.as_tensor(after.memory.position)).all()


def test_the_content_of_padding_reaches_no_gradient() -> None:
    layer, mask = make_layer(), flags(9, 0.5, 2)
    mask[0, 0] = False
    clean = make_x(9).masked_fill(~mask.unsqueeze(-1), 0)
    dirty = clean.masked_fill(~mask.unsqueeze(-1), float("nan"))
    for a, b in zip(run(layer, dirty, None, mask), run(layer, clean, None, mask), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_convolution_keeps_the_last_valid_inputs_of_each_row(width: int) -> None:
    conv = CausalConv(2, width).double()
    x = torch.randn(3, 5, 2, dtype=torch.float64)
    past = torch.randn(3, width - 1, 2, dtype=torch.float64)
    mask = torch.tensor([[0, 1, 0, 0, 0], [1, 1, 0, 1, 1], [1, 0, 1, 1, 0]], dtype=torch.bool)
    reset = torch.zeros(3, 5, dtype=torch.bool)
    reset[2, [1, 3]] = True  # the first of these tokens is masked
    y, after = conv(x, past, mask, reset)
    assert torch.equal(y, x * mask.unsqueeze(-1))  # the convolution is initialised as the identity
    blank = torch.zeros(width, 2, dtype=torch.float64)
    seen = [torch.cat([past[0], x[0, 1:2]]), torch.cat([past[1], x[1, mask[1]]]), torch.cat([blank, x[2, 3:4]])]
    for row, inputs in zip(after, seen, strict=True):
        assert torch.equal(row, inputs[len(inputs) - width + 1 :])


def test_trivial_flags_change_nothing() -> None:
    layer, x = make_layer(), make_x(13)
    nothing = torch.zeros(BATCH, 13, dtype=torch.bool)
    assert_same(all_of(*layer(x, mask=~nothing, reset=nothing)), all_of(*layer(x)))
    none = nothing[:, :0]
    y, state = layer(x[:, :0], mask=none, reset=none)
    assert y.shape == (BATCH, 0, DIM)
    assert_same(all_of(*layer(x, state)), all_of(*layer(x)))


def test_flags_of_wrong_shape_or_type_raise() -> None:
    layer, x = make_layer(), make_x(5)
    with pytest.raises(ValueError, match=r"mask must be bool, \(B, T\) = \(3, 5\); got torch.int64"):
        layer(x, mask=torch.ones(BATCH, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"reset must be bool, .* got torch.bool, \(3, 4\)"):
        layer(x, reset=torch.ones(BATCH, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask must be bool"):
        layer.conv(make_x(5).repeat(1, 1, 3), mask=torch.ones(BATCH, 4, dtype=torch.bool))


@pytest.mark.parametrize("masked", [False, True])
def test_stats_are_those_of_the_op_on_its_inputs(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from titans_seq.nn import memory as module

    layer, x = make_layer(), make_x(9)
    mask = flags(9, 0.5, 2) if masked else None
    plain = all_of(*layer(x, mask=mask))
    given: list[Any] = []
    op = module.run_memory

    def recording(tokens: Tokens, *rest: Any) -> Any:
        given.extend([tokens, op(tokens, *rest)])
        return given[1]

    monkeypatch.setattr(module, "run_memory", recording)
    y, state, stats = layer(x, mask=mask, return_stats=True)
    tokens, (_, _, of_op) = given
    for a, b in zip(all_of(y, state), plain, strict=True):
        assert torch.equal(a, b)
    valid = torch.ones(BATCH, 9, dtype=torch.bool) if mask is None else mask
    assert isinstance(stats, LayerStats)
    names = ("surprise", "update", "memory", "lr", "momentum", "forget")
    for name, used in zip(names, [*of_op, *tokens[3:6]], strict=True):
        found = getattr(stats, name)
        assert torch.equal(found, used * valid.unsqueeze(-1))
        assert not found.requires_grad
        assert stats.means()[name] == pytest.approx(used[valid].mean().item(), rel=1e-12)
    assert set(stats.means()) == set(names)


def test_initial_zero_is_no_parameter_and_learns_within_the_sequence() -> None:
    layer, x = make_layer(initial="zero"), make_x(9)
    assert not any("initial" in name or "zero" in name for name, _ in layer.named_parameters())
    assert not any("initial" in name or "zero" in name for name in layer.state_dict())
    _, state = layer(x[:, :0])
    assert not state.memory.weights[0].any()
    y, state = layer(x)
    assert state.memory.weights[0].any()
    learned = make_layer()
    learned.load_state_dict({**layer.state_dict(), "initial.0": torch.zeros(2, DIM // 2, DIM // 2)})
    assert_same(all_of(y, state), all_of(*learned(x)))


@pytest.mark.parametrize("options", [{"depth": 2}, {"residual": True}])
def test_initial_zero_requires_a_plain_matrix(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bound_lr requires a plain matrix memory"):
        NeuralMemory(DIM, 2, bound_lr=True, **options)
    with pytest.raises(ValueError, match=r'initial="zero" requires a plain matrix memory .* got depth=., residual='):
        NeuralMemory(DIM, 2, initial="zero", **options)
    with pytest.raises(ValueError, match=r"initial must be one of learned, zero; got 'none'"):
        NeuralMemory(DIM, 2, initial="none")  # type: ignore[arg-type]


def test_persistent_tokens_and_reset_exclude_each_other_even_with_a_state() -> None:
    layer, x = make_layer(num_persistent=2), make_x(5)
    _, state = layer(x)
    for before in (None, state):
        with pytest.raises(ValueError, match="reset is not supported with persistent tokens"):
            layer(x, before, reset=torch.zeros(BATCH, 5, dtype=torch.bool))


def test_the_configuration_reaches_the_layer() -> None:
    chosen: dict[str, Any] = {
        "num_heads": 3,
        "chunk_size": 5,
        "gradient": "online",
        "activation": "gelu",
        "forget_to": "initial",
        "outer_gradient": "first_order",
        "checkpoint_every": 2,
        "backend": "reference",
    }
    options = MemoryOptions(conv_width=2, initial="zero", **chosen)
    memory = build_backbone(BackboneOptions(dim=DIM, num_layers=1, memory=options)).blocks[0].memory
    reached = {"num_heads": memory.num_heads, "backend": memory.backend, **memory.options._asdict()}
    assert {name: reached[name] for name in chosen} == chosen
    assert memory.conv.width == 2
    assert memory.zero is not None
    options = BackboneOptions(dim=DIM, num_layers=1, memory=MemoryOptions(num_heads=2, residual=True))
    assert build_backbone(options).blocks[0].memory.options.residual


def test_layer_and_configuration_have_the_options_and_defaults_of_the_op() -> None:
    defaults = Options()._asdict()
    defaults.pop("return_stats")  # an argument of the call
    of_layer = inspect.signature(NeuralMemory).parameters
    of_schema = asdict(MemoryOptions())
    for name, default in defaults.items():
        assert (of_layer[name].default, of_schema[name]) == (default, default), name


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("width", [1, 4])
def test_a_state_goes_through_a_file_and_continues_exactly(tmp_path: Path, width: int, uneven: bool) -> None:
    layer = make_layer(depth=2, conv_width=width)
    _, state = layer(make_x(7), mask=flags(7, 0.6, 2) if uneven else None)
    assert state.conv.requires_grad
    assert not any(x.requires_grad for x in all_of(make_x(1), state.detach()))
    save_file(state.named_tensors(), tmp_path / "state.safetensors")
    loaded = NeuralMemoryState.from_named_tensors(load_file(tmp_path / "state.safetensors"))
    found, expected = (all_of(*layer(make_x(9), s)) for s in (loaded, state))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("change", ["missing", "foreign", "foreign inside", "missing inside"])
def test_tensors_of_something_else_raise(change: str) -> None:
    _, state = make_layer()(make_x(3))
    named = state.named_tensors()
    if change.startswith("missing"):
        del named["conv" if change == "missing" else "memory.surprise.0"]
    else:
        named["weights.0" if change == "foreign" else "memory.norm"] = torch.zeros(())
    with pytest.raises(ValueError, match=r"expected the tensors of a (Neural)?MemoryState; got "):
        NeuralMemoryState.from_named_tensors(named)
