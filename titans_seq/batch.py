"""The batches that datamodules give and tasks take: the contract between the two packages."""

from typing import NamedTuple

from torch import Tensor


class ForecastBatch(NamedTuple):
    """Windows of a multivariate series, z-scored; B windows, L steps of context, H of horizon, C channels."""

    context: Tensor  # (B, L, C) float: what the model sees
    target: Tensor  # (B, H, C) float: the steps right after it
    start: Tensor  # (B,) int64: row of the split's array at which each window's context begins
