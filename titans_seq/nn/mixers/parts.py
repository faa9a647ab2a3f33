"""Parts that several mixers share: short convolution, decay, gated output, masking."""

from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.conv import CausalConv
from titans_seq.nn.norm import RMSNorm

_STEP_RANGE = (0.001, 0.1)  # of the step sizes at initialisation, as in Mamba


class ShortConv(nn.Module):
    """SiLU of a causal depthwise convolution, initialised at random like `nn.Conv1d`, as in the mixers' papers."""

    def __init__(self, channels: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.conv = CausalConv(channels, width)
        nn.init.uniform_(self.conv.weight, -(width**-0.5), width**-0.5)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor, past: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map x (B, T, channels) to the same shape and the last inputs, as `CausalConv` does."""
        y, recent = self.conv(x, None if past is None else past.to(x.dtype), mask)
        return F.silu(y if self.bias is None else y + self.bias), recent


class HeadDecay(nn.Module):
    """Mamba's decay, one per head: log a = -exp(log_rate) softplus(x W + step_bias)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.step = nn.Linear(dim, num_heads, bias=False)
        self.step_bias = nn.Parameter(initial_step_bias(num_heads))
        self.log_rate = nn.Parameter(torch.empty(num_heads).uniform_(0, 16).clamp_min(1e-3).log())

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, dim) to log decays (B, T, H), in float32 at least."""
        step = F.softplus(full_precision(self.step(x)) + self.step_bias)
        return -full_precision(self.log_rate).exp() * step


class GatedOutput(nn.Module):
    """RMSNorm of every head, gated by SiLU of a projection of the token, and projected to the token's width."""

    def __init__(self, dim: int, value_width: int, num_heads: int) -> None:
        super().__init__()
        self.norm = RMSNorm(value_width // num_heads, eps=1e-5)
        self.gate = nn.Linear(dim, value_width, bias=False)
        self.out = nn.Linear(value_width, dim, bias=False)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Map heads y (B, T, H, V) of tokens x (B, T, dim) to (B, T, dim)."""
        out: Tensor = self.out(self.norm(y).flatten(2) * F.silu(self.gate(x)))
        return out


def initial_step_bias(count: int) -> Tensor:
    """Return biases (count,) whose softplus is log-uniform in _STEP_RANGE."""
    low, high = (log(bound) for bound in _STEP_RANGE)
    step = torch.empty(count).uniform_(low, high).exp()
    return step + (-torch.expm1(-step)).log()  # the inverse of softplus


def full_precision(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it is that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def fill_masked(x: Tensor, mask: Tensor | None, value: float = 0.0) -> Tensor:
    """Fill the tokens of x (B, T, ...) where mask (B, T) is False."""
    return x if mask is None else x.masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), value)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Reshape x (B, T, width) to (B, T, H, width / H)."""
    return torch.unflatten(x, -1, (num_heads, -1))
