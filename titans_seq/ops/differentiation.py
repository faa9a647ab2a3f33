"""Rules of differentiation that torch leaves to the author of an autograd function."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the `backward` of an autograd function of the memory, whose gradient must not be differentiated again.

    `torch.autograd.function.once_differentiable` does this too, but where the incoming gradient is a constant, as that
    of a sum, it returns constants: a second derivative would silently lack its part.
    """

    def first_only(ctx: Any, *gradients: Tensor) -> Any:
        with torch.no_grad():
            results = backward(ctx, *gradients)
        if not torch.is_grad_enabled():  # enabled by create_graph=True
            return results
        tensors = [x for x in results if x is not None]
        # With the inputs among the arguments, no derivative with respect to them is computed without it.
        depends_on = [x for x in (*gradients, *ctx.saved_tensors) if x is not None]
        refusing = iter(_NoSecondDerivative.apply(len(tensors), *tensors, *depends_on))  # type: ignore[no-untyped-call]
        return tuple(None if x is None else next(refusing) for x in results)

    return first_only


class _NoSecondDerivative(torch.autograd.Function):
    """Identity of the first `count` tensors whose backward pass raises."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError('second derivatives of the memory require backend="reference"')


def transforming() -> bool:
    """Whether a transform of `torch.func` (grad, vmap, jvp, ...) is active; torch has no public query for it."""
    return torch._C._are_functorch_transforms_active()


def plain_torch() -> bool:
    """Whether to compute with differentiable torch functions instead of an autograd function of our own.

    A transform of `torch.func` needs them, and a compiler fuses them better than it does ours.
    """
    return torch.compiler.is_compiling() or transforming()


def differentiable_backward(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """Backward pass of an autograd function under create_graph=True, from a differentiable `function` equal to it."""
    with torch.enable_grad():
        # Views, since an input may be the graph's leaf, or require no gradient.
        views = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs]
        output = function(*views)
        return torch.autograd.grad(output, views, grad_output, create_graph=True)


def check_not_reentrant() -> None:
    """Raise RuntimeError in the repeated forward pass of reentrant activation checkpointing.

    `torch.utils.checkpoint.checkpoint(..., use_reentrant=True)` follows gradients through the tensors among its
    function's arguments and results, but not through those inside a state.
    """
    if torch.compiler.is_compiling():
        return
    node = torch._C._current_autograd_node()
    if node is not None and node.name() == "CheckpointFunctionBackward":
        raise RuntimeError("a carried state requires checkpoint(..., use_reentrant=False); got use_reentrant=True")
