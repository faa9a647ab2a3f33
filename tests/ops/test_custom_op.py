"""The memory as a registered operator: compiled and exported calls against eager ones, shapes on fake tensors."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from tests.ops.test_chunked import assert_same, flatten, loss_of, make_inputs
from titans_seq.ops import MemoryState, titans_memory

LENGTH = 11

CALLS: dict[str, dict[str, Any]] = {
    "matrix": {},
    "two layers that forget to their start": {"depth": 2, "forget_to": "initial"},
    "online": {"gradient": "online"},
    "first order": {"outer_gradient": "first_order"},
    "flags": {"flagged": True},
    "the token loop": {"backend": "reference"},
}
every_call = pytest.mark.parametrize("options", CALLS.values(), ids=CALLS)


def make_call(
    depth: int = 1, flagged: bool = False, **options: Any
) -> tuple[list[Tensor], list[Tensor], Callable[..., Any]]:
    """Tokens, initial weights and a function of both and of a state that returns all results and the position."""
    tokens, weights = make_inputs(LENGTH, depth)
    if flagged:
        flags = torch.rand(2, 2, LENGTH, generator=torch.Generator().manual_seed(1))
        options |= {"mask": flags[0] < 0.7, "reset": flags[1] < 0.3}

    def call(tokens: list[Tensor], weights: list[Tensor], state: MemoryState | None) -> Any:
        y, after, stats = titans_memory(*tokens, weights, state, chunk_size=4, return_stats=True, **options)
        return flatten(y, after), after.position, after, list(stats)

    return tokens, weights, call


@every_call
def test_compiled_training_equals_eager(options: dict[str, Any]) -> None:
    """In one graph, with and without a state; backend="aot_eager" traces both passes and needs no compiler."""
    torch._dynamo.reset()
    tokens, weights, call = make_call(**options)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    state = None
    for _ in range(2):
        found, expected = compiled(tokens, weights, state), call(tokens, weights, state)
        assert_same([*found[0], *found[3]], [*expected[0], *expected[3]])
        assert torch.equal(found[1], expected[1])
        assert not any(x.requires_grad for x in found[3])
        gradients = (
            torch.autograd.grad(loss_of(results[0]), [*tokens, *weights], materialize_grads=True)
            for results in (found, expected)
        )
        assert_same(*map(list, gradients))
        state = expected[2].detach()


@every_call
def test_gradients_reach_a_carried_state_through_the_operator(options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    tokens, weights, call = make_call(**options)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")

    def gradients(second: Callable[..., Any]) -> list[Tensor]:
        state = call(tokens, weights, None)[2]
        results = second(tokens, weights, state)[0]
        return list(torch.autograd.grad(loss_of(results), [*tokens, *weights]))

    assert_same(gradients(compiled), gradients(call))


@every_call
def test_fake_tensors_have_the_shapes_types_and_strides_of_real_ones(options: dict[str, Any]) -> None:
    tokens, weights, call = make_call(**options)
    real = call(tokens, weights, None)
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # the flags
    with mode:
        fake_tokens, fake_weights = ([mode.from_tensor(x) for x in group] for group in (tokens, weights))
        first = call(fake_tokens, fake_weights, None)
        second = call(fake_tokens, fake_weights, first[2])
    for fake in (first, second):
        for a, b in zip((*fake[0], fake[1], *fake[3]), (*real[0], real[1], *real[3]), strict=True):
            assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)


def test_the_registration_passes_the_checks_of_torch() -> None:
    tokens, weights = make_inputs(5, depth=2)
    settings = "chunk_size=4, gradient='chunk', activation='silu', forget_to='zero', backend='chunked'"
    _, state = titans_memory(*tokens, weights, chunk_size=4)
    carried = [x.detach().contiguous().requires_grad_() for group in state[:3] for x in group]
    for arguments in ((tokens, weights, [], None), (tokens, weights, carried, torch.tensor(1))):
        torch.library.opcheck(torch.ops.titans_seq.memory.default, (*arguments, None, None, settings))


def test_an_exported_decode_step_repeats() -> None:
    """The position in the chunk is an input of the program, so that one step continues from every place."""

    class Step(torch.nn.Module):
        def forward(self, tokens: list[Tensor], weights: list[Tensor], state: MemoryState) -> Any:
            return titans_memory(*tokens, weights, state, chunk_size=4)

    tokens, weights = make_inputs(LENGTH)
    whole, end = titans_memory(*tokens, weights, chunk_size=4)
    y, state = titans_memory(*(x[:, :1] for x in tokens), weights, chunk_size=4)
    outputs = [y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Step(), ([x[:, :1] for x in tokens], weights, state))
    assert [n.target for n in program.graph.nodes if "titans_seq" in str(n.target)] == [
        torch.ops.titans_seq.memory.default
    ]
    step = program.module()
    for t in range(1, LENGTH):
        y, state = step([x[:, t : t + 1] for x in tokens], weights, state)
        outputs.append(y)
    assert_same(flatten(torch.cat(outputs, dim=1), state), flatten(whole, end))
    assert torch.equal(state.position, torch.as_tensor(end.position))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("flagged", [False, True])
def test_meta_tensors(backend: Any, flagged: bool) -> None:
    tokens, weights = make_inputs(LENGTH, depth=2)
    meta = [x.to("meta") for x in tokens]
    flag = torch.ones(2, LENGTH, dtype=torch.bool)
    for mask in (None, flag.to("meta")) if flagged else (None,):
        y, state = titans_memory(*meta, [w.to("meta") for w in weights], backend=backend, mask=mask)
        real = titans_memory(*tokens, weights, mask=None if mask is None else flag)
        for a, b in zip(flatten(y, state), flatten(*real), strict=True):
            assert (a.shape, a.dtype, a.device.type) == (b.shape, b.dtype, "meta")
        y, _ = titans_memory(*meta, [w.to("meta") for w in weights], state, backend=backend)
        assert y.shape == real[0].shape
