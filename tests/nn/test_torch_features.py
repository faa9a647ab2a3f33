"""The memory layer with torch's own machinery: deferred initialisation, torch.func, export, checkpointing, DDP."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from tests.nn.test_memory import BATCH, DIM, all_of, flags, make_layer, make_x
from tests.ops.test_chunked import assert_same
from titans_seq.backbone import build_backbone
from titans_seq.nn import NeuralMemory, NeuralMemoryState
from titans_seq.nn.norm import RMSNorm, unit_norm
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions

LENGTH = 9


@pytest.mark.parametrize("variant", ["lmm", "mal", "mag", "mac", "delta", "transformer", "cnn"])
def test_deferred_initialisation(variant: Any) -> None:
    """Built on the meta device and filled: every value is drawn, and those with a purpose are as in a usual build."""
    options = BackboneOptions(
        variant=variant,
        dim=16,
        num_layers=1,
        num_persistent=2,
        memory=MemoryOptions(num_heads=2),
        attention=AttentionOptions(num_heads=2),
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        model = build_backbone(options)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    model.to_empty(device="cpu")
    for x in model.parameters():
        x.data.fill_(torch.nan)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    usual = build_backbone(options).state_dict()
    for name, x in model.state_dict().items():
        assert x.isfinite().all(), name
        deviation = usual[name].std()
        assert deviation == 0 or 0.3 < x.std() / deviation < 3, name
        if name.endswith(("gates.bias", "conv.weight")) or deviation == 0:
            torch.testing.assert_close(x, usual[name])
    assert model(torch.randn(2, 5, 16))[0].isfinite().all()


def test_a_buffer_of_zeros_is_refilled() -> None:
    with torch.device("meta"):
        layer = NeuralMemory(DIM, 2, initial="zero")
    layer.to_empty(device="cpu")
    assert layer.zero is not None
    layer.zero.fill_(torch.nan)
    layer.reset_parameters()
    assert not layer.zero.any()


@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_a_layer_without_values_gives_the_shapes_of_a_real_one(kind: str) -> None:
    layer, x = NeuralMemory(DIM, 2, depth=2), torch.randn(BATCH, LENGTH, DIM)
    real = all_of(*layer(x))
    if kind == "meta":
        shapes = all_of(*layer.to("meta")(x.to("meta")))
    else:
        with FakeTensorMode() as mode:
            fake = NeuralMemory(DIM, 2, depth=2)
            y, state = fake(mode.from_tensor(x))
            shapes = all_of(y, state)
            fake(mode.from_tensor(x), state)
    for a, b in zip(shapes, real, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_transforms_of_torch_func_through_the_layer() -> None:
    layer, x = make_layer(backend="reference", depth=2), make_x(5)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x,))[0].square().sum()

    expected = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    assert_same(list(grad(loss)(parameters, x).values()), list(expected))
    by_sample = vmap(lambda one: grad(loss)(parameters, one[None]))(x)
    assert_same([g.sum(0) for g in by_sample.values()], list(expected))
    assert_same([vmap(lambda one: layer(one[None])[0][0])(x)], [layer(x)[0]])
    direction = make_x(5, seed=2)
    step = 1e-6
    difference = (layer(x + step * direction)[0] - layer(x - step * direction)[0]) / (2 * step)
    torch.testing.assert_close(jvp(lambda x: layer(x)[0], (x,), (direction,))[1], difference, rtol=1e-6, atol=1e-6)
    layers = [make_layer(backend="reference", depth=2) for _ in range(2)]
    nn.init.normal_(layers[1].qkv.weight)
    stacked = stack_module_state(layers)
    ensemble = vmap(lambda p, b: functional_call(layers[0], (p, b), (x,))[0])(*stacked)
    assert_same(list(ensemble), [one(x)[0] for one in layers])


def test_transforms_with_another_backend_name_the_one_that_has_them() -> None:
    layer = make_layer()
    with pytest.raises(ValueError, match=r'torch\.func transforms .* require backend="reference"; got \'chunked\''):
        vmap(lambda one: layer(one[None])[0])(make_x(5))


def test_second_derivatives() -> None:
    x = make_x(4)[:1].requires_grad_()
    layer = make_layer(backend="reference", depth=2)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,))
    norm = RMSNorm(DIM).double()
    assert torch.autograd.gradgradcheck(lambda x, w: functional_call(norm, {"weight": w}, (x,)), (x, norm.weight))
    assert torch.autograd.gradgradcheck(unit_norm, (x,))
    past = torch.randn(1, 3, 3 * DIM, dtype=torch.float64, requires_grad=True)
    wide = torch.randn(1, 4, 3 * DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, past: layer.conv(x, past)[0], (wide, past))


@pytest.mark.parametrize("options", [{}, {"channel_forget": True}])
@pytest.mark.parametrize("wanted", ["x", "parameters"])
def test_second_derivatives_with_another_backend_raise(options: dict[str, Any], wanted: str) -> None:
    """Even where the incoming gradient is a constant, and for other inputs than the first derivative's."""
    layer, x = make_layer(**options), make_x(5).requires_grad_()
    (first,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    inputs = [x] if wanted == "x" else list(layer.parameters())
    with pytest.raises(RuntimeError, match='second derivatives of the memory require backend="reference"'):
        torch.autograd.grad(first.square().sum(), inputs, allow_unused=True)


def test_a_compiled_layer_trains_like_an_eager_one() -> None:
    torch._dynamo.reset()
    layer, x = make_layer(depth=2, num_persistent=2), make_x(LENGTH)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")

    def results(run: Any) -> list[Tensor]:
        first, state = run(x[:, :4])
        second, after = run(x[:, 4:], state)
        found = all_of(torch.cat([first, second], dim=1), after)
        loss = torch.stack([r.square().sum() for r in found]).sum()
        return [*found, *torch.autograd.grad(loss, list(layer.parameters()))]

    assert_same(results(compiled), results(layer))


def export(layer: nn.Module, *arguments: Any) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(layer, arguments)


def test_a_layer_exports_with_gradients_enabled_and_its_decode_step_repeats(tmp_path: Path) -> None:
    layer, x = make_layer().eval(), make_x(LENGTH)
    program = export(layer, x)
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    assert_same(all_of(*loaded(x)), all_of(*layer(x)))
    y, state = layer(x[:, :1])
    step, outputs = export(layer, x[:, 1:2], state).module(), [y]
    for t in range(1, LENGTH):
        y, state = step(x[:, t : t + 1], state)
        outputs.append(y)
    assert_same(all_of(torch.cat(outputs, dim=1), state), all_of(*layer(x)))


def test_a_program_of_the_chunked_backend_has_operators_of_torch_alone() -> None:
    layer, x = make_layer(backend="chunked").eval().requires_grad_(False), make_x(LENGTH)
    program = export(layer, x)
    assert not [node for node in program.graph.nodes if "titans_seq" in str(node.target)]
    assert_same(all_of(*program.module()(x)), all_of(*layer(x)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_with_a_carried_state_is_right_or_refused(reentrant: bool) -> None:
    layer, x = make_layer(), make_x(LENGTH)

    def gradients(run: Any) -> list[Tensor]:
        first, state = run(x[:, :4].requires_grad_(), None)
        second, _ = run(x[:, 4:].requires_grad_(), state)
        layer.zero_grad()
        torch.cat([first, second], dim=1).square().sum().backward()
        return [p.grad for p in layer.parameters() if p.grad is not None]

    def checkpointed(x: Tensor, state: NeuralMemoryState | None) -> Any:
        return checkpoint(layer, x, state, use_reentrant=reentrant)

    if reentrant:
        with pytest.raises(RuntimeError, match=r"a carried state requires checkpoint\(\.\.\., use_reentrant=False\)"):
            gradients(checkpointed)
    else:
        assert_same(gradients(checkpointed), gradients(layer))


def test_ddp_with_a_carried_state_and_unused_parameters_allowed(tmp_path: Path) -> None:
    """With a state the initial memory and the persistent tokens get no gradient; docs/memory_layer.md."""
    layer, x = make_layer(num_persistent=2), make_x(LENGTH)
    _, state = layer(x[:, :4])
    state = state.detach()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(layer, find_unused_parameters=True)
        for _ in range(2):
            layer.zero_grad()
            parallel(x[:, 4:], state)[0].square().sum().backward()
        found = [None if p.grad is None else p.grad.clone() for p in layer.parameters()]
    finally:
        torch.distributed.destroy_process_group()
    expected = torch.autograd.grad(
        layer(x[:, 4:], state)[0].square().sum(), list(layer.parameters()), allow_unused=True
    )
    assert [g is None for g in expected].count(True) == 2
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            assert a is not None
            assert_same([a], [b])


@pytest.mark.parametrize("uneven", [False, True])
def test_states_as_batches(uneven: bool) -> None:
    layer, x = make_layer(depth=2), make_x(6)
    more = make_x(5, seed=3)
    _, state = layer(x, mask=flags(6, 0.6, 2) if uneven else None)
    whole = all_of(*layer(more, state))
    parts = [all_of(*layer(more[b : b + 1], state.select(b))) for b in range(BATCH)]
    assert_same([torch.cat(rows) for rows in zip(*parts, strict=True)], whole)
    assert_same(all_of(*layer(more, NeuralMemoryState.cat([state.select(b) for b in range(BATCH)]))), whole)
    beams = state.index_select(torch.tensor([2, 0, 2]))
    assert_same(all_of(*layer(more[[2, 0, 2]], beams)), [r[[2, 0, 2]] for r in whole])
    repeated = state.select(1).expand(4)
    assert_same(all_of(*layer(more[1:2].expand(4, -1, -1), repeated)), [r[[1] * 4] for r in whole])
    half = state.to(torch.float32)
    assert {x.dtype for x in all_of(more, half)[1:]} == {torch.float32}
    assert {x.dtype for x in all_of(more, half.to("cpu", torch.float64))[1:]} == {torch.float64}
    assert {x.device.type for x in all_of(more, state.to("meta"))[1:]} == {"meta"}


def test_states_of_different_lengths_join() -> None:
    layer, more = make_layer(), make_x(5, seed=3)
    lengths = (2, 5, 7)
    states = [layer(make_x(n)[b : b + 1])[1] for b, n in enumerate(lengths)]
    joined = all_of(*layer(more, NeuralMemoryState.cat(states)))
    alone = [all_of(*layer(more[b : b + 1], state)) for b, state in enumerate(states)]
    assert_same(joined, [torch.cat(rows) for rows in zip(*alone, strict=True)])
    _, other = NeuralMemory(DIM, 2, chunk_size=8).double()(make_x(2))
    with pytest.raises(ValueError, match=r"must have one chunk_size; got \[4, 8\]"):
        NeuralMemoryState.cat([states[0], other])


def test_a_state_in_float64_keeps_its_precision_in_a_layer_in_float32() -> None:
    layer = make_layer()
    _, state = layer(make_x(6))
    single = make_layer().float()
    y, after = single(make_x(3).float(), state)
    assert y.dtype == torch.float32
    assert {x.dtype for x in all_of(y, after)[1:]} == {torch.float64}
    _, unchanged = single(make_x(3)[:, :0].float(), state)
    assert_same(all_of(y, unchanged)[1:], all_of(y, state)[1:])
    _, masked = single(make_x(3).float(), state, mask=torch.zeros(BATCH, 3, dtype=torch.bool))
    assert_same(all_of(y, masked)[1:], all_of(y, state)[1:])


@pytest.mark.parametrize("length", [4, 6])
def test_a_state_refuses_another_chunk_size_whatever_its_length(length: int) -> None:
    layer, other = make_layer(), NeuralMemory(DIM, 2, chunk_size=8).double()
    _, state = layer(make_x(length))
    with pytest.raises(ValueError, match=r"the state is of chunk_size=4 .*; got 8: use the chunk_size"):
        other(make_x(3), state)
    loaded = NeuralMemoryState.from_named_tensors(state.named_tensors())
    with pytest.raises(ValueError, match=r"the state is of chunk_size=4 "):
        other(make_x(3), loaded)
    old = {name: x for name, x in state.named_tensors().items() if name != "memory.chunk_size"}
    assert_same(all_of(*layer(make_x(3), NeuralMemoryState.from_named_tensors(old))), all_of(*layer(make_x(3), state)))


@pytest.mark.parametrize("chunk_size", [1, 4, 16])
@pytest.mark.parametrize("options", [{}, {"gradient": "online"}, {"channel_forget": True}])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_later_nan_reaches_no_earlier_output(
    options: dict[str, Any], chunk_size: int, masked: bool, wrong: float
) -> None:
    torch.manual_seed(0)
    layer = NeuralMemory(DIM, 2, chunk_size=chunk_size, **options).double()
    mask = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    mask[1, 3] = False
    clean = make_x(LENGTH)
    dirty = clean.clone()
    firsts = (5, 2, LENGTH)  # in the last sequence there is none
    for b, first in enumerate(firsts[:2]):
        dirty[b, first, 0] = wrong
    expected, _ = layer(clean, mask=mask if masked else None)
    found, state = layer(dirty, mask=mask if masked else None)
    for b, first in enumerate(firsts):
        assert_same([found[b, :first]], [expected[b, :first]])
    assert not found[:2, -1].isfinite().any()
    assert not state.memory.weights[0][:2].isfinite().any()


def test_arguments_of_a_wrong_kind_are_named() -> None:
    for name, value in (("num_heads", 0), ("dim", 0), ("depth", 0), ("conv_width", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
            NeuralMemory(**{"dim": DIM, "num_heads": 2, name: value})
    with pytest.raises(ValueError, match=r"chunk_size must be an integer; got 16\.0"):
        NeuralMemory(DIM, 2, chunk_size=16.0)  # type: ignore[arg-type]
    for x in (torch.randn(5, DIM), torch.randn(BATCH, 5, DIM + 1)):
        with pytest.raises(ValueError, match=r"x must be \(B, T, dim\) = \(B, T, 6\); got \("):
            NeuralMemory(DIM, 2)(x)
