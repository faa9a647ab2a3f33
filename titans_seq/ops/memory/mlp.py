"""The memory's own network M: an MLP without biases, y = act(act(x @ W1) @ W2) @ W3."""

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["silu", "gelu", "relu"]


class _Function(NamedTuple):
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]  # written out, so that autograd can differentiate through the inner gradient


def _silu_slope(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 + z * (1 - gate))


def _gelu_slope(z: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z * z) / sqrt(2 * pi)
    return 0.5 * (1 + torch.erf(z / sqrt(2))) + z * density


ACTIVATIONS: dict[str, _Function] = {
    "silu": _Function(F.silu, _silu_slope),
    "gelu": _Function(F.gelu, _gelu_slope),
    "relu": _Function(F.relu, lambda z: (z > 0).to(z.dtype)),
}


def mlp(weights: Sequence[Tensor], x: Tensor, activation: str) -> Tensor:
    """M(x) for x (..., d_in) and weights (..., d_in, d_out); as many leading dimensions as matmul broadcasts."""
    act = ACTIVATIONS[activation].value
    for weight in weights[:-1]:
        x = act(x @ weight)
    return x @ weights[-1]


def write_factors(
    weights: Sequence[Tensor], k: Tensor, v: Tensor, activation: str
) -> tuple[list[Tensor], list[Tensor]]:
    """The two factors of every token's gradient, per layer: grad_W ||M_W(k) - v||^2 = x (outer) delta (eq 12).

    k (..., c, d_k), v (..., c, d_v), weights (..., d_in, d_out). Returns the layers' inputs x, each (..., c, d_in), and
    the errors delta that reach their outputs, each (..., c, d_out).
    """
    act = ACTIVATIONS[activation]
    inputs, hidden = [k], []
    for weight in weights[:-1]:
        hidden.append(inputs[-1] @ weight)
        inputs.append(act.value(hidden[-1]))
    errors = [2 * (inputs[-1] @ weights[-1] - v)]
    for weight, z in zip(reversed(weights[1:]), reversed(hidden), strict=True):
        errors.append((errors[-1] @ weight.transpose(-1, -2)) * act.slope(z))
    return inputs, errors[::-1]
