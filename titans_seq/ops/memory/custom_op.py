"""The memory as an operator of torch's registry: one node for torch.compile and torch.export, with a fake kernel.

`titans_seq::memory` has a kernel (`run_backend`), a kernel for fake tensors, which computes shapes alone, and an
autograd formula. An operator maps tensors to new tensors, so that the backward pass cannot keep intermediate values of
the forward pass: it repeats the forward pass.
"""

import ast
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from titans_seq.ops.memory.arguments import Options, Tokens, state_chunk_size
from titans_seq.ops.memory.backends import Backend
from titans_seq.ops.memory.dispatch import BackendResult, position_after, run_backend, state_dtype
from titans_seq.ops.memory.state import MemoryState, MemoryStats

_DIFFERENTIATION_KEYS = (
    "AutogradFunctionality",
    "AutogradOther",
    "AutogradNestedTensor",
    "FuncTorchDynamicLayerFrontMode",
    "FuncTorchDynamicLayerBackMode",
    "FuncTorchGradWrapper",
    "FuncTorchVmapMode",
    "FuncTorchBatched",
)


class _Call(NamedTuple):
    """The operator's arguments, with everything that is not a tensor in one string."""

    tokens: list[Tensor]  # as `Tokens`
    weights: list[Tensor]
    carried: list[Tensor]  # the state's weights, surprise and chunk_start; empty without a state
    position: Tensor | None
    mask: Tensor | None
    reset: Tensor | None
    settings: str  # the options and the backend as Python literals, name=value, ...

    def options(self) -> Options:
        return Options.from_fields(self.named_settings())

    def named_settings(self) -> dict[str, Any]:
        pairs = (setting.split("=") for setting in self.settings.split(", "))
        return {name: ast.literal_eval(value) for name, value in pairs}

    def state(self) -> MemoryState | None:
        if self.position is None:
            return None
        return _state(self.carried, self.position, self.options())

    def run(self) -> BackendResult:
        backend: Backend = self.named_settings()["backend"]
        tokens, options = Tokens(*self.tokens), self.options()
        return run_backend(tokens, self.weights, self.state(), options, self.mask, self.reset, backend)


def needs_operator(tokens: Tokens, state: MemoryState | None, flagged: bool, backend: Backend) -> bool:
    """Whether a call must be a single node: when it is traced, and where its tensors have no values to decide by.

    An exported program with backend="chunked" consists of torch's own operators, and a sequence on the meta device runs
    operator by operator, so that they can be counted.
    """
    if torch.compiler.is_exporting() and backend == "chunked":
        return False
    if torch.compiler.is_compiling() or isinstance(tokens.q, FakeTensor):
        return True
    one_position = state is None or isinstance(state.position, int) or state.position.ndim == 0
    return tokens.q.is_meta and (flagged or backend == "reference" or not one_position)


def run_as_operator(
    tokens: Tokens,
    weights: list[Tensor],
    state: MemoryState | None,
    options: Options,
    mask: Tensor | None,
    reset: Tensor | None,
    backend: Backend,
) -> BackendResult:
    """`run_backend` as a single node."""
    carried = [] if state is None else [x for group in state[:3] for x in group]
    position = None if state is None else torch.as_tensor(state.position)
    settings = ", ".join(f"{name}={value!r}" for name, value in (*options._asdict().items(), ("backend", backend)))
    y, *results = _memory(list(tokens), weights, carried, position, mask, reset, settings)
    count = 3 * len(weights)
    after = _state(results[:count], results[count], options)
    stats = MemoryStats(*(x.detach() for x in results[count + 1 :])) if options.return_stats else None
    return y, after, stats


@torch.library.custom_op("titans_seq::memory", mutates_args=())
def _memory(
    tokens: list[Tensor],
    weights: list[Tensor],
    carried: list[Tensor],
    position: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    settings: str,
) -> list[Tensor]:
    """Return the outputs, the state's tensors, its position and, on request, the stats."""
    call = _Call(tokens, weights, carried, position, mask, reset, settings)
    with _autograd(), torch.no_grad():  # the token loop calls torch.func.grad
        y, state, stats = call.run()
    results = [y, *(x for group in state[:3] for x in group), torch.as_tensor(state.position), *(stats or ())]
    return _new_tensors(results, [x for x in (*tokens, *weights, *carried, position) if x is not None])


@_memory.register_fake
def _(*arguments: Any) -> list[Tensor]:
    call = _Call(*arguments)
    q, _, v, lr, *_ = call.tokens
    batch, length, options = q.shape[0], q.shape[1], call.options()
    dtype = state_dtype(Tokens(*call.tokens), call.weights, call.state())
    groups = [q.new_empty(batch, *w.shape, dtype=dtype) for w in call.weights] * 3
    if call.mask is None and call.reset is None:
        after = position_after(0 if call.position is None else call.position, length, options)
    else:
        after = torch.empty(batch, dtype=torch.int64, device="cpu")
    stats = [lr.new_empty(lr.shape, dtype=dtype) for _ in MemoryStats._fields] if options.return_stats else []
    return [q.new_empty(v.shape), *(torch.empty_like(x) for x in groups), after, *stats]


@torch.library.custom_op("titans_seq::memory_backward", mutates_args=())
def _memory_backward(
    gradients: list[Tensor],
    tokens: list[Tensor],
    weights: list[Tensor],
    carried: list[Tensor],
    position: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    settings: str,
) -> list[Tensor]:
    """Return the gradients of tokens, weights and carried from those of the outputs and of the state's tensors."""
    inputs = [*tokens, *weights, *carried]
    with _autograd(), torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        parts = leaves[:6], leaves[6 : 6 + len(weights)], leaves[6 + len(weights) :]
        y, state, _ = _Call(*parts, position, mask, reset, settings).run()
        results = [y, *(x for group in state[:3] for x in group)]
        found = torch.autograd.grad(results, leaves, gradients, allow_unused=True, materialize_grads=True)
    return _new_tensors(found, [*gradients, *inputs])


@_memory_backward.register_fake
def _(gradients: list[Tensor], *arguments: Any) -> list[Tensor]:
    call = _Call(*arguments)
    return [x.new_empty(x.shape) for x in (*call.tokens, *call.weights, *call.carried)]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tokens, weights, carried, position, mask, reset, settings = inputs
    ctx.depth, ctx.settings = len(weights), settings
    ctx.save_for_backward(position, mask, reset, *tokens, *weights, *carried)


def _differentiate(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    position, mask, reset, *tensors = ctx.saved_tensors
    tokens, weights, carried = tensors[:6], tensors[6 : 6 + ctx.depth], tensors[6 + ctx.depth :]
    needed = gradients[: 1 + 3 * ctx.depth]  # those of the position and of the stats are none
    found = _memory_backward(needed, tokens, weights, carried, position, mask, reset, ctx.settings)
    parts = found[:6], found[6 : 6 + ctx.depth], found[6 + ctx.depth :]
    return *parts, None, None, None, None


_memory.register_autograd(_differentiate, setup_context=_set_up)


def _state(tensors: list[Tensor], position: Tensor, options: Options) -> MemoryState:
    """Assemble a state from its weights, surprise and chunk_start in one list."""
    depth = len(tensors) // 3
    weights, surprise, chunk_start = (tensors[i : i + depth] for i in range(0, 3 * depth, depth))
    return MemoryState(weights, surprise, chunk_start, position, state_chunk_size(options))


def _new_tensors(results: Iterable[Tensor], inputs: Iterable[Tensor]) -> list[Tensor]:
    """Return contiguous results of which none shares memory with an input or with another result."""
    used = {x.untyped_storage().data_ptr() for x in inputs}
    separate = []
    for x in results:
        new = x.detach().contiguous()
        if new.untyped_storage().data_ptr() in used:
            new = new.clone(memory_format=torch.contiguous_format)
        used.add(new.untyped_storage().data_ptr())
        separate.append(new)
    return separate


@contextlib.contextmanager
def _autograd() -> Iterator[None]:
    """Make autograd and torch.func available inside an operator's kernel, where torch dispatches below them."""
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for name in _DIFFERENTIATION_KEYS:
        excluded = excluded.remove(getattr(torch._C.DispatchKey, name))
    with torch._C._ForceDispatchKeyGuard(included, excluded):
        yield
