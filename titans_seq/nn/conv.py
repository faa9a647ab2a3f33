"""A short depthwise convolution that sees the past only."""

from typing import Any

import torch
from torch import Tensor, nn

_BLOCK = 128  # tokens


class CausalConv(nn.Module):
    """Depthwise causal convolution: every channel mixes its own last `width` tokens.

    It starts as the identity, so that a fresh layer reads the token at hand.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1; got {width}")
        self.width = width
        self.weight = nn.Parameter(torch.zeros(width, dim))  # (width, dim), the newest token last
        nn.init.ones_(self.weight[-1])

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, T, dim) and the last width - 1 inputs before it (zeros if None) to (B, T, dim) and the last inputs."""
        if past is None:
            past = x.new_zeros(x.shape[0], self.width - 1, x.shape[2])
        padded = torch.cat([past, x], dim=1)
        y: Tensor = _DepthwiseConv.apply(padded, self.weight)  # type: ignore[no-untyped-call]
        return y, padded[:, x.shape[1] :]


class _DepthwiseConv(torch.autograd.Function):
    """As `conv1d` with one group per channel, whose CPU kernels are several times slower than these few passes."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight)
        length = padded.shape[1] - weight.shape[0] + 1
        y = padded[:, :length] * weight[0]
        for lag in range(1, weight.shape[0]):
            y.addcmul_(padded[:, lag : lag + length], weight[lag])
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        padded, weight = ctx.saved_tensors
        grad_padded = torch.zeros_like(padded)
        grad_weight = torch.zeros_like(weight)
        # Block by block, so that the passes over a block find it in the cache.
        for first in range(0, grad_y.shape[1], _BLOCK):
            block = grad_y[:, first : first + _BLOCK]
            for lag in range(weight.shape[0]):
                seen = slice(first + lag, first + lag + block.shape[1])
                grad_padded[:, seen].addcmul_(block, weight[lag])
                grad_weight[lag] += (block * padded[:, seen]).sum((0, 1))
        return grad_padded, grad_weight
