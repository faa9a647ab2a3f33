"""Short causal depthwise convolution."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.ops.differentiation import differentiable_backward, plain_torch
from titans_seq.ops.masking import check_flags, take_tokens

_BLOCK = 128  # tokens


class CausalConv(nn.Module):
    """Causal depthwise convolution over the last `width` tokens of every channel.

    It is initialised as the identity, so that an untrained layer sees only the current token.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1; got {width}")
        self.width = width
        self.weight = nn.Parameter(torch.empty(width, dim))  # (width, dim), the newest token last
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the convolution the identity."""
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.weight[-1])

    def forward(
        self, x: Tensor, past: Tensor | None = None, mask: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Convolve x (B, T, dim), preceded by `past`, the last width - 1 inputs (zeros if None).

        Tokens where `mask` (B, T) is False are skipped: no other token sees them, their outputs are zero. A sequence
        starts where `reset` (B, T) is True, and no token sees inputs before that; reset is ignored at masked tokens.

        Returns:
            (B, T, dim), and the last width - 1 inputs, to pass as `past` with the next tokens, in the wider of the
            types of x and `past`.

        Raises ValueError when a shape is wrong, or a mask is not bool.
        """
        if past is None:
            past = x.new_zeros(x.shape[0], self.width - 1, x.shape[2])
        expected = (x.shape[0], self.width - 1, x.shape[2])
        if past.shape != expected:
            raise ValueError(f"the state's last inputs must be {expected}; got {tuple(past.shape)}")
        if mask is not None or reset is not None:
            return _ragged_conv(x, past, self.weight, mask, reset)
        recent = x[:, max(0, x.shape[1] - self.width + 1) :]
        after = torch.cat([past, recent], dim=1)[:, recent.shape[1] :]
        past = past.to(x.dtype)
        if plain_torch():
            return _plain_conv(x, past, self.weight), after
        y: Tensor = _DepthwiseConv.apply(x, past, self.weight)  # type: ignore[no-untyped-call]
        return y, after


def _plain_conv(x: Tensor, past: Tensor, weight: Tensor) -> Tensor:
    """`_DepthwiseConv` in functions that torch can differentiate and transform."""
    width, length = weight.shape[0], x.shape[1]
    inputs = torch.cat([past, x], dim=1)
    y = x * weight[-1]
    for lag, w in _lags(weight):
        y = y + inputs[:, width - 1 - lag : width - 1 - lag + length] * w
    return y


def _ragged_conv(
    x: Tensor, past: Tensor, weight: Tensor, mask: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    check_flags(mask, reset, x.shape[:2])
    (width, _), length = weight.shape, x.shape[1]
    valid = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    starts = torch.zeros_like(valid) if reset is None else reset & valid
    # Valid tokens are compacted right after the past; masked tokens go last, where no valid token sees them.
    order = torch.argsort(~valid, dim=1, stable=True)
    inputs = torch.cat([past, take_tokens(x, order)], dim=1)  # (B, width - 1 + T, dim)
    sequence = F.pad(
        starts.gather(1, order).cumsum(1), (width - 1, 0)
    )  # number of each input's sequence; 0 continues the past
    y = torch.zeros_like(x)
    for lag in range(width):
        seen = slice(width - 1 - lag, width - 1 - lag + length)
        own = sequence[:, seen] == sequence[:, width - 1 :]
        y = y + _keep(inputs[:, seen], own) * weight[-1 - lag]
    y = _keep(take_tokens(y, (valid.cumsum(1) - 1).clamp_min(0)), valid).to(x.dtype)
    last = valid.sum(1, keepdim=True) + torch.arange(width - 1, device=x.device)
    return y, _keep(take_tokens(inputs, last), sequence.gather(1, last) == sequence[:, -1:])


def _keep(x: Tensor, kept: Tensor) -> Tensor:
    """Set x (B, N, dim) to zero where `kept` (B, N) is False."""
    return x.masked_fill(~kept.unsqueeze(-1), 0)


class _DepthwiseConv(torch.autograd.Function):
    """`conv1d` with one group per channel, several times faster than torch's CPU kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, past: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, past, weight)
        y = x * weight[-1]
        for lag, w in _lags(weight):
            y[:, lag:].addcmul_(x[:, :-lag], w)
            early = y[:, :lag]
            early.addcmul_(_past_inputs(past, lag, early.shape[1]), w)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
        x, past, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable_backward(_plain_conv, (x, past, weight), grad_y)
        grad_x, grad_past = grad_y * weight[-1], torch.zeros_like(past)
        # In float32 at least: a sum over blocks in half precision would lose small terms.
        grad_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        # Block by block, so that a block stays in the CPU cache for all passes over it.
        for first in range(0, x.shape[1], _BLOCK):
            block = grad_y[:, first : first + _BLOCK]
            grad_weight[-1] += (block * x[:, first : first + _BLOCK]).sum((0, 1))
            for lag, w in _lags(weight):
                late = block[:, max(0, lag - first) :]  # outputs whose input at this lag is in x, not in the past
                seen = slice(max(0, first - lag), max(0, first - lag) + late.shape[1])
                grad_x[:, seen].addcmul_(late, w)
                grad_weight[-1 - lag] += (late * x[:, seen]).sum((0, 1))
        for lag, w in _lags(weight):
            early = grad_y[:, :lag]
            _past_inputs(grad_past, lag, early.shape[1]).addcmul_(early, w)
            grad_weight[-1 - lag] += (early * _past_inputs(past, lag, early.shape[1])).sum((0, 1))
        return grad_x, grad_past, grad_weight.to(weight.dtype)


def _lags(weight: Tensor) -> list[tuple[int, Tensor]]:
    """Return every lag except 0, with its weights."""
    return [(lag, weight[-1 - lag]) for lag in range(1, weight.shape[0])]


def _past_inputs(past: Tensor, lag: int, count: int) -> Tensor:
    """Return the inputs at `lag` of the first `count` tokens, all of them in the past."""
    first = past.shape[1] - lag
    return past[:, first : first + count]
