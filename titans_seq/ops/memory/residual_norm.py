"""The residual memory M(x) = x + LayerNorm(MLP(x)) of the camera-ready: what its norm does to gradients.

With n = LayerNorm(o) and s its inverse deviation, a gradient g of n becomes s (g - mean(g) - n mean(g n)) for o. Inside
the memory this map is applied by the inner gradient, so the outer gradient has to pass through it in turn.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.mlp import NORM_EPS


class Normalised(NamedTuple):
    """LayerNorm of o (..., O), with what its gradient needs."""

    value: Tensor  # n, (..., O)
    scale: Tensor  # s, (..., 1)


def normalise(o: Tensor) -> Normalised:
    """LayerNorm without parameters."""
    variance, mean = torch.var_mean(o, dim=-1, keepdim=True, correction=0)
    scale = (variance + NORM_EPS).rsqrt()
    return Normalised((o - mean) * scale, scale)


def pull(g: Tensor, at: Normalised) -> Tensor:
    """The gradient of o from the gradient g of LayerNorm(o). The map is linear in g and its own transpose."""
    n, s = at
    return s * (g - g.mean(-1, keepdim=True) - n * (g * n).mean(-1, keepdim=True))


def residual_error(x: Tensor, o: Tensor, v: Tensor) -> Tensor:
    """The gradient of ||x + LayerNorm(o) - v||^2 with respect to o."""
    at = normalise(o)
    return pull(2 * (x + at.value - v), at)


def residual_error_backward(d_error: Tensor, x: Tensor, o: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Back through `residual_error`: the gradients of x (that of v is its negative) and of o."""
    at = normalise(o)
    n, s = at
    g = 2 * (x + n - v)
    d_x = 2 * pull(d_error, at)
    alike = (d_error * n).mean(-1, keepdim=True)
    d_n = d_x - s * ((g * n).mean(-1, keepdim=True) * d_error + alike * g)
    # s depends on o as well: ds = -s^2 n / O.
    d_log_scale = (d_error * pull(g, at)).sum(-1, keepdim=True)
    return d_x, pull(d_n, at) - d_log_scale * s * n / o.shape[-1]
