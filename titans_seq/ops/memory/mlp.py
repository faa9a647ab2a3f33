"""The memory's own network M: an MLP without biases, y = act(act(x @ W1) @ W2) @ W3."""

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["silu", "gelu", "relu"]


class ActivationFunction(NamedTuple):
    """An activation with the derivatives that the inner gradient (slope) and its own gradient (curvature) need."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]


def _silu_slope(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 + z * (1 - gate))


def _silu_curvature(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 - gate) * (2 + z * (1 - 2 * gate))


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z * z) / sqrt(2 * pi)


def _gelu_slope(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / sqrt(2))) + z * _normal_density(z)


ACTIVATIONS: dict[str, ActivationFunction] = {
    "silu": ActivationFunction(F.silu, _silu_slope, _silu_curvature),
    "gelu": ActivationFunction(F.gelu, _gelu_slope, lambda z: (2 - z * z) * _normal_density(z)),
    "relu": ActivationFunction(F.relu, lambda z: (z > 0).to(z.dtype), torch.zeros_like),
}


NORM_EPS = 1e-5  # of the residual memory's layer norm


def layer_norm(x: Tensor) -> Tensor:
    """x over its last dimension to mean 0 and deviation 1, without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def read_memory(weights: Sequence[Tensor], x: Tensor, activation: str, residual: bool) -> Tensor:
    """M(x): the MLP, or x + LayerNorm(MLP(x)) with `residual`."""
    y = mlp(weights, x, activation)
    return x + layer_norm(y) if residual else y


def mlp(weights: Sequence[Tensor], x: Tensor, activation: str) -> Tensor:
    """M(x) for x (..., d_in) and weights (..., d_in, d_out); as many leading dimensions as matmul broadcasts."""
    act = ACTIVATIONS[activation].value
    for weight in weights[:-1]:
        x = act(x @ weight)
    return x @ weights[-1]
