"""What every forecaster must beat: naive forecasts, and the published linear one.

Each is a module from (B, L, C) to (B, H, C), so that it is measured on the same windows by the same code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LastValue(nn.Module):
    """Every future step equals the last one seen."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        return context[:, -1:].expand(-1, self.horizon, -1)


class SeasonalNaive(nn.Module):
    """The last season seen, repeated; a context shorter than a season repeats as a whole.

    Args:
        horizon: H.
        season: steps of a season; kept as a buffer, so that a checkpoint knows it.
    """

    season: Tensor

    def __init__(self, horizon: int, season: int = 1) -> None:
        super().__init__()
        self.horizon = horizon
        self.register_buffer("season", torch.tensor(season))

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        last = context[:, -int(self.season) :]
        steps = torch.arange(self.horizon, device=context.device) % last.shape[1]
        return last[:, steps]


class DLinear(nn.Module):
    """DLinear (Zeng et al., AAAI 2023): a linear map of the trend and one of the rest, shared by all channels.

    Args:
        context_length: L.
        horizon: H.
        width: steps of the moving average that is the trend; odd. The series' ends are repeated for it.
    """

    def __init__(self, context_length: int, horizon: int, width: int = 25) -> None:
        super().__init__()
        self.width = width
        self.trend = nn.Linear(context_length, horizon)
        self.rest = nn.Linear(context_length, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        series = context.transpose(1, 2)  # (B, C, L)
        padded = F.pad(series, (self.width // 2, self.width // 2), mode="replicate")
        trend = F.avg_pool1d(padded, self.width, stride=1)
        forecast: Tensor = self.trend(trend) + self.rest(series - trend)
        return forecast.transpose(1, 2)
