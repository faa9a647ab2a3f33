"""What every forecaster must beat: forecasts without training, and the best linear map.

Each is a module from (B, L, C) to (B, H, C), so that it is measured on the same windows by the same code.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from titans_seq.batch import CovariateBatch, ForecastBatch


class LastValue(nn.Module):
    """Every future step equals the last one seen."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        return context[:, -1:].expand(-1, self.horizon, -1)


class SeasonalNaive(nn.Module):
    """The last season seen, repeated; a context shorter than a season repeats as a whole."""

    def __init__(self, horizon: int, season: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.season = season

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        last = context[:, -self.season :]
        steps = torch.arange(self.horizon, device=context.device) % last.shape[1]
        return last[:, steps]


class LinearForecaster(nn.Module):
    """NLinear (Zeng et al., AAAI 2023): one linear map from context to horizon for all channels, around the last value.

    It starts as the last-value forecast; `solve_linear` gives the least-squares one.
    """

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(context_length, horizon))
        self.bias = nn.Parameter(torch.zeros(horizon))

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        last = context[:, -1:]
        forecast = (context - last).transpose(1, 2) @ self.weight + self.bias
        return forecast.transpose(1, 2) + last


def solve_linear(
    batches: Iterable[ForecastBatch | CovariateBatch], penalties: Iterable[float]
) -> list[LinearForecaster]:
    """The least-squares `LinearForecaster` for each ridge penalty, relative to the mean square of the inputs.

    The sums run in float64, one pass over the batches serves all penalties; the bias is not penalised.
    """
    gram: Tensor | None = None
    for batch in batches:
        last = batch.context[:, -1:]
        x = (batch.context - last).transpose(1, 2).flatten(0, 1).double()  # (B C, L)
        y = (batch.target - last).transpose(1, 2).flatten(0, 1).double()  # (B C, H)
        z = torch.cat([x, torch.ones_like(x[:, :1]), y], dim=1)
        gram = z.T @ z if gram is None else gram.addmm_(z.T, z)
    assert gram is not None, "no batches"
    inputs = batch.context.shape[1] + 1
    xx, xy = gram[:inputs, :inputs], gram[:inputs, inputs:]
    scale = xx.diagonal()[:-1].mean()
    models = []
    for penalty in penalties:
        ridge = torch.full((inputs,), float(penalty), dtype=xx.dtype) * scale
        ridge[-1] = 0
        # The last input is zero by construction; the floor keeps its row solvable.
        solution = torch.linalg.solve(xx + torch.diag(ridge.clamp_min(1e-9 * scale)), xy).float()
        model = LinearForecaster(inputs - 1, solution.shape[1])
        model.load_state_dict({"weight": solution[:-1], "bias": solution[-1]})
        models.append(model)
    return models
