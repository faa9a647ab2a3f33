"""Heads that say more than one number a step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QuantileSpread(nn.Module):
    """Quantiles around a median that cannot cross: running sums of positive steps upwards and downwards.

    It starts at the quantiles of a normal variable of deviation `std`, whatever the input.

    Args:
        width: D, inputs.
        features: F, channels that one row of tokens speaks for (1 or all of C), and horizon, H.
        levels: Q ascending probabilities, 0.5 among them.
    """

    def __init__(self, width: int, features: int, horizon: int, levels: Sequence[float], std: float = 0.5) -> None:
        super().__init__()
        if 0.5 not in levels or list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"levels must ascend within (0, 1) and hold 0.5; got {list(levels)}")
        self.middle = list(levels).index(0.5)
        self.steps = nn.Linear(width, features * horizon * (len(levels) - 1))
        ends = torch.erfinv(2 * torch.tensor(levels) - 1) * 2**0.5 * std
        with torch.no_grad():
            self.steps.weight.zero_()
            self.steps.bias.view(features, horizon, -1).copy_(ends.diff().expm1().log())  # softplus undone

    def forward(self, tokens: Tensor, median: Tensor) -> Tensor:
        """tokens (B C / F, D) and median (B, C, H) to quantiles (B, C, H, Q), ascending."""
        steps = F.softplus(self.steps(tokens)).view(*median.shape, -1)
        down, up = steps[..., : self.middle], steps[..., self.middle :]
        middle = median.unsqueeze(-1)
        below = middle - down.flip(-1).cumsum(-1).flip(-1)
        return torch.cat([below, middle, middle + up.cumsum(-1)], dim=-1)
