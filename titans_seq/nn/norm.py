"""Normalisation layers: unit norm, RMSNorm, and reversible instance normalisation (RevIN)."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.ops.differentiation import differentiable_backward, plain_torch


class _UnitNorm(torch.autograd.Function):
    """`torch.nn.functional.normalize` with a backward of four passes over the data instead of eight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(eps).reciprocal_()
        y: Tensor = x * inverse
        ctx.save_for_backward(x, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *differentiable_backward(lambda x: _plain_unit_norm(x, ctx.eps), (x,), grad_y), None
        y = x * inverse
        along = (grad_y * y).sum(-1, keepdim=True)
        grad_x: Tensor = torch.addcmul(grad_y, y, along, value=-1).mul_(inverse)
        return grad_x, None


def _plain_unit_norm(x: Tensor, eps: float) -> Tensor:
    """`_UnitNorm` in functions that torch can differentiate and transform."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.clamp_min(eps)


def unit_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x (..., D) divided by its norm over D, or by eps where that is larger; in float16 eps is at least 1e-3."""
    if x.dtype == torch.float16:  # 1 / 1e-6 exceeds its maximum of 65,504, and infinity times a row of zeros is NaN
        eps = max(eps, 1e-3)
    if plain_torch():
        return _plain_unit_norm(x, eps)
    y: Tensor = _UnitNorm.apply(x, eps)  # type: ignore[no-untyped-call]
    return y


class _RootMeanSquare(torch.autograd.Function):
    """`torch.nn.functional.rms_norm` with fewer passes: on a CPU torch runs one for every step of the equation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        ctx.eps = eps
        y: Tensor = (x * inverse).mul_(weight)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, None]:
        x, inverse, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            grad_x, grad_weight = differentiable_backward(
                lambda x, weight: F.rms_norm(x, weight.shape, weight, ctx.eps), (x, weight), grad_y
            )
            return grad_x, grad_weight, None
        unit = x * inverse
        along = grad_y * unit
        share = (along * weight).sum(-1, keepdim=True).div_(len(weight))  # a matrix product would be autocast
        grad_x = (grad_y * weight).addcmul_(unit, share, value=-1).mul_(inverse)
        return grad_x, along.reshape(-1, len(weight)).sum(0), None


class RMSNorm(nn.RMSNorm):
    """RMSNorm: x / sqrt(mean(x^2)) over D features, times a learned weight (Zhang & Sennrich, NeurIPS 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to (..., D)."""
        plain = x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64)
        if x.device.type != "cpu" or not plain or plain_torch():
            return super().forward(x)
        y: Tensor = _RootMeanSquare.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return y


Centre = Literal["mean", "last"]


class InstanceStatistics(NamedTuple):
    """Centre and standard deviation that were removed from each window and channel, both (B, 1, C)."""

    centre: Tensor
    std: Tensor


class ReversibleInstanceNorm(nn.Module):
    """Reversible instance normalisation with a learned scale and shift per channel (RevIN, Kim et al., ICLR 2022).

    The logarithm of the scale is learned: the scale stays positive and the inverse never divides by zero.

    Args:
        num_channels: C.
        centre: value subtracted from the window: its mean (RevIN), or its last value (NLinear), which follows drift.
        eps: added to the variance, so that a constant window stays finite.
    """

    def __init__(self, num_channels: int, centre: Centre = "mean", eps: float = 1e-5) -> None:
        super().__init__()
        self.centre = centre
        self.eps = eps
        self.log_scale = nn.Parameter(torch.empty(num_channels))
        self.shift = nn.Parameter(torch.empty(num_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set scale to 1 and shift to 0."""
        nn.init.zeros_(self.log_scale)
        nn.init.zeros_(self.shift)

    def normalise(self, x: Tensor) -> tuple[Tensor, InstanceStatistics]:
        """Normalise x (B, L, C) to centre 0 and standard deviation 1 over L, then scale and shift it."""
        variance, mean = torch.var_mean(x.detach(), dim=1, keepdim=True, correction=0)
        centre = mean if self.centre == "mean" else x[:, -1:].detach()
        statistics = InstanceStatistics(centre, (variance + self.eps).sqrt())
        return (x - centre) / statistics.std * self.log_scale.exp() + self.shift, statistics

    def restore(self, y: Tensor, statistics: InstanceStatistics) -> Tensor:
        """Undo the normalisation of y (B, H, C) with the statistics of its window."""
        return (y - self.shift) * torch.exp(-self.log_scale) * statistics.std + statistics.centre
