"""Causal convolution over tokens that mixes all features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.ops.masking import check_flags, take_tokens


class DenseCausalConv(nn.Module):
    """Dense causal convolution: every output is a linear map of all features of the last `width` tokens."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1; got {width}")
        self.width = width
        self.map = nn.Linear(width * dim, dim)  # input features: the oldest token's first

    def forward(self, x: Tensor, past: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Convolve x (B, T, dim), preceded by `past`, the last width - 1 inputs (zeros if None).

        Tokens where `mask` (B, T) is False are skipped: no other token sees them, their outputs are zero.

        Returns:
            (B, T, dim), and the last width - 1 inputs, to pass as `past` with the next tokens.

        Raises ValueError when a shape is wrong, or the mask is not bool.
        """
        batch, length, dim = x.shape
        expected = (batch, self.width - 1, dim)
        if past is None:
            past = x.new_zeros(expected)
        if past.shape != expected:
            raise ValueError(f"the state's last inputs must be {expected}; got {tuple(past.shape)}")
        past = past.to(x.dtype)  # the state may come from a model in another precision
        check_flags(mask, None, x.shape[:2])
        if mask is None:
            inputs = torch.cat([past, x], dim=1)
            return self._map(inputs), inputs[:, length:]
        # Valid tokens are compacted right after the past; masked tokens go last, where no valid token sees them.
        order = torch.argsort(~mask, dim=1, stable=True)
        valid = x.masked_fill(~mask.unsqueeze(-1), 0)
        inputs = torch.cat([past, take_tokens(valid, order)], dim=1)
        y = take_tokens(self._map(inputs), (mask.cumsum(1) - 1).clamp_min(0))
        last = mask.sum(1, keepdim=True) + torch.arange(self.width - 1, device=x.device)
        return y.masked_fill(~mask.unsqueeze(-1), 0), take_tokens(inputs, last)

    def _map(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, width - 1 + T, dim) to (B, T, dim), tap by tap, to avoid a copy `width` times their size."""
        length = inputs.shape[1] - self.width + 1
        taps = self.map.weight.chunk(self.width, dim=1)
        y = F.linear(inputs[:, :length], taps[0], self.map.bias)
        for tap in range(1, self.width):
            y = y + F.linear(inputs[:, tap : tap + length], taps[tap])
        return y
