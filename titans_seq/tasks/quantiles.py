"""Loss and metrics of quantile forecasts.

The last dimension of a forecast holds Q quantiles at levels q.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


def pinball(quantiles: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Return the pinball loss max(q (y - f), (q - 1) (y - f)), (..., Q), of quantiles f (..., Q) for target y (...)."""
    error = target.unsqueeze(-1) - quantiles
    return torch.maximum(levels * error, (levels - 1) * error)


def central_pairs(levels: Sequence[float]) -> dict[float, tuple[int, int]]:
    """Return the central intervals of `levels`: nominal coverage to the indices of the lower and upper quantile."""
    pairs = {}
    for low, level in enumerate(levels):
        for high, other in enumerate(levels):
            if level < 0.5 and abs(level + other - 1) < 1e-9:
                pairs[round(other - level, 9)] = (low, high)
    return dict(sorted(pairs.items()))


class CRPS(Metric):
    """Quantile approximation of the CRPS: twice the pinball loss, averaged over levels, windows, horizon and channels.

    With more evenly spaced levels it approaches the continuous ranked probability score.
    """

    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.levels = list(levels)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, quantiles: Tensor, target: Tensor) -> None:
        """Add quantiles (..., Q) and their target (...)."""
        losses = pinball(quantiles, target, quantiles.new_tensor(self.levels))
        self.total += 2 * losses.sum()
        self.count += losses.numel()

    def compute(self) -> Tensor:
        """Return the mean of all updates."""
        return self.total / self.count


class Coverage(Metric):
    """Empirical coverage: the fraction of targets between two of the quantiles, ends included."""

    full_state_update = False
    inside: Tensor
    count: Tensor

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.add_state("inside", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, quantiles: Tensor, target: Tensor) -> None:
        """Add quantiles (..., Q) and their target (...)."""
        within = (quantiles[..., self.low] <= target) & (target <= quantiles[..., self.high])
        self.inside += within.sum()
        self.count += within.numel()

    def compute(self) -> Tensor:
        """Return the fraction over all updates."""
        return self.inside / self.count
