"""Covariates of a forecaster: covariates with known future values, and static ones.

B windows, C channels, G of them in one token (1 or all), H steps, K known covariates, D inputs of the head, R effects.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class KnownFuture(nn.Module):
    """Effect of a future step's known covariates on the forecast of that step, scaled by the window's tokens.

    Each step's covariates give R effects; the window's tokens give a sensitivity to each of them (for example, how
    strongly this shop reacts to a discount). No step sees the covariates of another, so that steps may be left out.
    """

    def __init__(self, num_known: int, width: int, features: int, *, hidden: int = 32, effects: int = 8) -> None:
        super().__init__()
        self.effects = nn.Sequential(nn.Linear(num_known, hidden), nn.GELU(), nn.Linear(hidden, effects))
        self.sensitivity = nn.Linear(width, features * effects)

    def forward(self, tokens: Tensor, known: Tensor) -> Tensor:
        """Map tokens (B C / G, D) and known covariates (B, H, K) to the term added to the forecast, (B, C, H)."""
        effects_BHR = self.effects(known)
        batch, _, effects = effects_BHR.shape
        sensitivity_BCR = self.sensitivity(tokens).view(batch, -1, effects)
        return torch.einsum("bcr,bhr->bch", sensitivity_BCR, effects_BHR)

    def zero_initialise(self) -> None:
        """Set the sensitivities to zero, so that training starts without any effect."""
        nn.init.zeros_(self.sensitivity.weight)
        nn.init.zeros_(self.sensitivity.bias)


class StaticEmbedding(nn.Module):
    """Embedding of a series' static categories and numbers as one vector, shared by all of its tokens.

    Args:
        categories: number of codes of each category; the last one stands for unknown values if `dropout` is not 0.
        num_numbers: N.
        dim: features of the vector.
        dropout: probability with which training takes a category for an unknown one.
    """

    def __init__(self, categories: Sequence[int], num_numbers: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.unknown = [count - 1 for count in categories]
        tables = [nn.Embedding(count, dim) for count in categories]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)
        self.tables = nn.ModuleList(tables)
        self.numbers = nn.Linear(num_numbers, dim, bias=False) if num_numbers else None

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        """Map categories (B, S) int64 and numbers (B, N) to (B, dim)."""
        if self.training and self.dropout and self.tables:
            unknown = categories.new_tensor(self.unknown)
            dropped = torch.rand(categories.shape, device=categories.device) < self.dropout
            categories = torch.where(dropped, unknown, categories)
        parts = [table(codes) for table, codes in zip(self.tables, categories.unbind(1), strict=True)]
        if self.numbers is not None:
            parts.append(self.numbers(numbers))
        return torch.stack(parts).sum(0)
