"""Baseline forecasters: naive forecasts and DLinear.

Each is a module from (B, L, C) to (B, H, C), so that it is evaluated on the same windows by the same code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LastValue(nn.Module):
    """Naive (persistence) forecast: every future step equals the last value of the context."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, context: Tensor) -> Tensor:
        """Return the forecast (B, H, C) of context (B, L, C)."""
        return context[:, -1:].expand(-1, self.horizon, -1)


class SeasonalNaive(nn.Module):
    """Seasonal naive forecast: the last seasonal period of the context, repeated.

    A context shorter than the period is repeated as a whole.

    Args:
        horizon: H.
        seasonal_period: steps of a period; kept as the buffer `season`, so that checkpoints contain it.
    """

    season: Tensor

    def __init__(self, horizon: int, seasonal_period: int = 1) -> None:
        super().__init__()
        self.horizon = horizon
        self.register_buffer("season", torch.tensor(seasonal_period))

    def forward(self, context: Tensor) -> Tensor:
        """Return the forecast (B, H, C) of context (B, L, C)."""
        last = context[:, -int(self.season) :]
        steps = torch.arange(self.horizon, device=context.device) % last.shape[1]
        return last[:, steps]


class DLinear(nn.Module):
    """DLinear (Zeng et al., AAAI 2023): linear maps of the trend and of the remainder, shared by all channels.

    Args:
        context_length: L.
        horizon: H.
        width: steps of the moving average that defines the trend, odd; the ends of the series are replicated for it.
    """

    def __init__(self, context_length: int, horizon: int, width: int = 25) -> None:
        super().__init__()
        self.width = width
        self.trend = nn.Linear(context_length, horizon)
        self.rest = nn.Linear(context_length, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """Return the forecast (B, H, C) of context (B, L, C)."""
        series = context.transpose(1, 2)  # (B, C, L)
        padded = F.pad(series, (self.width // 2, self.width // 2), mode="replicate")
        trend = F.avg_pool1d(padded, self.width, stride=1)
        forecast: Tensor = self.trend(trend) + self.rest(series - trend)
        return forecast.transpose(1, 2)
