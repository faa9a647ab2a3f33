"""Output heads with more than one value per step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QuantileSpread(nn.Module):
    """Quantile head without crossing: cumulative sums of positive steps above and below a median.

    At initialisation it returns the quantiles of a normal distribution of standard deviation `std` for any input.

    Args:
        width: D, input features.
        features: F, channels that one row of tokens predicts (1 or all of C).
        horizon: H, steps.
        levels: Q ascending probabilities, including 0.5.
        std: standard deviation of the quantiles at initialisation.

    Raises ValueError for other levels.
    """

    def __init__(self, width: int, features: int, horizon: int, levels: Sequence[float], std: float = 0.5) -> None:
        super().__init__()
        if 0.5 not in levels or list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"levels must be ascending, within (0, 1) and include 0.5; got {list(levels)}")
        self.middle = list(levels).index(0.5)
        self.steps = nn.Linear(width, features * horizon * (len(levels) - 1))
        ends = torch.erfinv(2 * torch.tensor(levels) - 1) * 2**0.5 * std
        with torch.no_grad():
            self.steps.weight.zero_()
            self.steps.bias.view(features, horizon, -1).copy_(ends.diff().expm1().log())  # inverse of softplus

    def forward(self, tokens: Tensor, median: Tensor) -> Tensor:
        """Map tokens (B C / F, D) and a median (B, C, H) to ascending quantiles (B, C, H, Q)."""
        steps = F.softplus(self.steps(tokens)).view(*median.shape, -1)
        down, up = steps[..., : self.middle], steps[..., self.middle :]
        middle = median.unsqueeze(-1)
        below = middle - down.flip(-1).cumsum(-1).flip(-1)
        return torch.cat([below, middle, middle + up.cumsum(-1)], dim=-1)
