"""Network M of the memory: an MLP without biases, y = act(act(x @ W1) @ W2) @ W3."""

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["silu", "gelu", "relu"]


class ActivationFunction(NamedTuple):
    """Activation with its VJP, for the inner gradient, and its second derivative, for the outer gradient."""

    value: Callable[[Tensor], Tensor]
    vjp: Callable[[Tensor, Tensor], Tensor]  # (g, z): g times the derivative at z, in one pass
    second_derivative: Callable[[Tensor], Tensor]


def _silu_second_derivative(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    factor = torch.rsub(gate, 1, alpha=2).mul_(z).add_(2)  # 2 + z (1 - 2 gate)
    return factor.mul_(gate).mul_(gate.neg_().add_(1))


def _gelu_second_derivative(z: Tensor) -> Tensor:
    square = z * z
    density = torch.exp_(square * -0.5)
    return density.mul_(square.neg_().add_(2)).div_(sqrt(2 * pi))


def _relu_vjp(g: Tensor, z: Tensor) -> Tensor:
    return g.masked_fill(z <= 0, 0)


ACTIVATIONS: dict[str, ActivationFunction] = {
    "silu": ActivationFunction(F.silu, torch.ops.aten.silu_backward, _silu_second_derivative),
    "gelu": ActivationFunction(F.gelu, torch.ops.aten.gelu_backward, _gelu_second_derivative),
    "relu": ActivationFunction(F.relu, _relu_vjp, torch.zeros_like),
}


NORM_EPS = 1e-5  # of the residual memory's layer norm


def layer_norm(x: Tensor) -> Tensor:
    """Normalise x over its last dimension to mean 0 and standard deviation 1, without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def read_memory(weights: Sequence[Tensor], x: Tensor, activation: str, residual: bool) -> Tensor:
    """Return M(x): the MLP, or x + LayerNorm(MLP(x)) with `residual`."""
    y = mlp(weights, x, activation)
    return x + layer_norm(y) if residual else y


def mlp(weights: Sequence[Tensor], x: Tensor, activation: str) -> Tensor:
    """Apply the MLP to x (..., d_in) with weights (..., d_in, d_out); leading dimensions broadcast as in matmul."""
    act = ACTIVATIONS[activation].value
    for weight in weights[:-1]:
        x = act(x @ weight)
    return x @ weights[-1]


class Normalised(NamedTuple):
    """LayerNorm of o (..., O), with the values that its gradient needs."""

    value: Tensor  # n, (..., O)
    scale: Tensor  # s, (..., 1)


def normalise(o: Tensor) -> Normalised:
    """LayerNorm without parameters."""
    variance, mean = torch.var_mean(o, dim=-1, keepdim=True, correction=0)
    scale = (variance + NORM_EPS).rsqrt()
    return Normalised((o - mean) * scale, scale)


def vjp(g: Tensor, at: Normalised) -> Tensor:
    """Gradient of o from the gradient g of LayerNorm(o). The map is linear in g and self-adjoint."""
    n, s = at
    return s * (g - g.mean(-1, keepdim=True) - n * (g * n).mean(-1, keepdim=True))


def residual_error(x: Tensor, o: Tensor, v: Tensor) -> Tensor:
    """Gradient of ||x + LayerNorm(o) - v||^2 with respect to o."""
    at = normalise(o)
    return vjp(2 * (x + at.value - v), at)


def residual_error_backward(d_error: Tensor, x: Tensor, o: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `residual_error` with respect to x (that of v is its negative) and o."""
    at = normalise(o)
    n, s = at
    g = 2 * (x + n - v)
    d_x = 2 * vjp(d_error, at)
    projection = (d_error * n).mean(-1, keepdim=True)
    d_n = d_x - s * ((g * n).mean(-1, keepdim=True) * d_error + projection * g)
    # s depends on o as well: ds = -s^2 n / O.
    d_log_scale = (d_error * vjp(g, at)).sum(-1, keepdim=True)
    return d_x, vjp(d_n, at) - d_log_scale * s * n / o.shape[-1]
