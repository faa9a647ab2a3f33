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
    pull: Callable[[Tensor, Tensor], Tensor]  # of a gradient g and z: g times the slope at z, in one pass
    curvature: Callable[[Tensor], Tensor]


def _silu_curvature(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    twist = torch.rsub(gate, 1, alpha=2).mul_(z).add_(2)  # 2 + z (1 - 2 gate)
    return twist.mul_(gate).mul_(gate.neg_().add_(1))


def _gelu_curvature(z: Tensor) -> Tensor:
    square = z * z
    density = torch.exp_(square * -0.5)
    return density.mul_(square.neg_().add_(2)).div_(sqrt(2 * pi))


def _relu_pull(g: Tensor, z: Tensor) -> Tensor:
    return g.masked_fill(z <= 0, 0)


ACTIVATIONS: dict[str, ActivationFunction] = {
    "silu": ActivationFunction(F.silu, torch.ops.aten.silu_backward, _silu_curvature),
    "gelu": ActivationFunction(F.gelu, torch.ops.aten.gelu_backward, _gelu_curvature),
    "relu": ActivationFunction(F.relu, _relu_pull, torch.zeros_like),
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
