"""A short depthwise convolution that sees the past only."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from titans_seq.ops.masking import check_flags, take_tokens

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

    def forward(
        self, x: Tensor, past: Tensor | None = None, mask: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, T, dim) and the last width - 1 inputs before it (zeros if None) to (B, T, dim) and the last inputs.

        Tokens where `mask` (B, T) is False are skipped: no other token sees them, their outputs are zero. No token sees
        past its sequence's start, where `reset` (B, T) is True; a masked token begins nothing. Raises ValueError when
        these are of another shape or not bool.
        """
        if past is None:
            past = x.new_zeros(x.shape[0], self.width - 1, x.shape[2])
        expected = (x.shape[0], self.width - 1, x.shape[2])
        if past.shape != expected:
            raise ValueError(f"the state's last inputs must be {expected}; got {tuple(past.shape)}")
        if mask is not None or reset is not None:
            return _ragged_conv(x, past, self.weight, mask, reset)
        y: Tensor = _DepthwiseConv.apply(x, past, self.weight)  # type: ignore[no-untyped-call]
        recent = x[:, max(0, x.shape[1] - self.width + 1) :]
        return y, torch.cat([past, recent], dim=1)[:, recent.shape[1] :]


def _ragged_conv(
    x: Tensor, past: Tensor, weight: Tensor, mask: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    check_flags(mask, reset, x.shape[:2])
    (width, _), length = weight.shape, x.shape[1]
    live = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    begins = torch.zeros_like(live) if reset is None else reset & live
    # Live tokens close ranks behind the past; masked ones come last, where no live one looks.
    order = torch.argsort(~live, dim=1, stable=True)
    inputs = torch.cat([past, take_tokens(x, order)], dim=1)  # (B, width - 1 + T, dim)
    sequence = F.pad(begins.gather(1, order).cumsum(1), (width - 1, 0))  # of each input; 0 goes on from the past
    y = torch.zeros_like(x)
    for lag in range(width):
        seen = slice(width - 1 - lag, width - 1 - lag + length)
        own = sequence[:, seen] == sequence[:, width - 1 :]
        y = y + _keep(inputs[:, seen], own) * weight[-1 - lag]
    y = _keep(take_tokens(y, (live.cumsum(1) - 1).clamp_min(0)), live)
    last = live.sum(1, keepdim=True) + torch.arange(width - 1, device=x.device)
    return y, _keep(take_tokens(inputs, last), sequence.gather(1, last) == sequence[:, -1:])


def _keep(x: Tensor, kept: Tensor) -> Tensor:
    """x (B, N, dim), zero where `kept` (B, N) is False."""
    return x.masked_fill(~kept.unsqueeze(-1), 0)


class _DepthwiseConv(torch.autograd.Function):
    """As `conv1d` with one group per channel, whose CPU kernels are several times slower than these few passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, past: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, past, weight)
        y = x * weight[-1]
        for lag, w in _lags(weight):
            y[:, lag:].addcmul_(x[:, :-lag], w)
            early = y[:, :lag]
            early.addcmul_(_before(past, lag, early.shape[1]), w)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, past, weight = ctx.saved_tensors
        grad_x, grad_past = grad_y * weight[-1], torch.zeros_like(past)
        # Summed over blocks: half precision would lose a block's share in the sum.
        grad_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        # Block by block, so that the passes over a block find it in the cache.
        for first in range(0, x.shape[1], _BLOCK):
            block = grad_y[:, first : first + _BLOCK]
            grad_weight[-1] += (block * x[:, first : first + _BLOCK]).sum((0, 1))
            for lag, w in _lags(weight):
                late = block[:, max(0, lag - first) :]  # its inputs lie in x, the others' in the past
                seen = slice(max(0, first - lag), max(0, first - lag) + late.shape[1])
                grad_x[:, seen].addcmul_(late, w)
                grad_weight[-1 - lag] += (late * x[:, seen]).sum((0, 1))
        for lag, w in _lags(weight):
            early = grad_y[:, :lag]
            _before(grad_past, lag, early.shape[1]).addcmul_(early, w)
            grad_weight[-1 - lag] += (early * _before(past, lag, early.shape[1])).sum((0, 1))
        return grad_x, grad_past, grad_weight.to(weight.dtype)


def _lags(weight: Tensor) -> list[tuple[int, Tensor]]:
    """Every lag but 0, with its weights."""
    return [(lag, weight[-1 - lag]) for lag in range(1, weight.shape[0])]


def _before(past: Tensor, lag: int, count: int) -> Tensor:
    """The inputs of the first `count` tokens at `lag`, which lie in the past."""
    first = past.shape[1] - lag
    return past[:, first : first + count]
