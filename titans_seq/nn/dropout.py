"""Dropout."""

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """As `torch.nn.Dropout`, which on a CPU draws a Bernoulli number for every feature, at ten times a product's cost.

    There each feature has 16 bits of a generator's 64, so that `p` is rounded to a multiple of 1 / 65,536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x to the same shape; each entry is 0 with probability p, and else divided by 1 - p."""
        dropped = round(self.p * _LEVELS)
        drawn = self.training and 0 < dropped < _LEVELS
        if not drawn or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        count = x.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=x.device)
        bits = words.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[:count].view(x.shape)
        kept = bits >= dropped - _LEVELS // 2
        return x * kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))
