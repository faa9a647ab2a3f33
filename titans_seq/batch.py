"""Batch types: the interface between the data modules and the tasks."""

from typing import NamedTuple

from torch import Tensor


class ForecastBatch(NamedTuple):
    """Z-scored windows of a multivariate series; B windows, L context steps, H horizon steps, C channels."""

    context: Tensor  # (B, L, C) float: input of the model
    target: Tensor  # (B, H, C) float: the steps right after it
    start: Tensor  # (B,) int64: row of the split's array at which each window's context begins
    floor: Tensor | None = None  # (B, 1, C), z-scored: least value of forecasts


class CovariateInputs(NamedTuple):
    """Covariates of a forecaster: P past and K known-future ones, S static categories, N static numbers.

    A kind that is not used has width 0.
    """

    past: Tensor  # (B, L, P) float, z-scored
    known: Tensor  # (B, L + H, K) float: z-scores, and sines and cosines of the calendar
    categories: Tensor  # (B, S) int64: category codes, one value per series
    numbers: Tensor  # (B, N) float, z-scored: one value per series


class CovariateBatch(NamedTuple):
    """A `ForecastBatch` with covariates."""

    context: Tensor  # (B, L, C)
    target: Tensor  # (B, H, C)
    start: Tensor  # (B,)
    covariates: CovariateInputs
    floor: Tensor | None = None  # (B, 1, C)


class SeriesBatch(NamedTuple):
    """Univariate series in their own units; B series, L steps."""

    values: Tensor  # (B, L) float32, NaN where missing
    period: Tensor  # (B,) int64: a seasonal period in steps that is known beforehand, right or wrong; 0: none


# DNA tokens. The token of a base is its index in BASES, so that 3 - token is the complement of A, C, G and T.
BASES = "ACGTN"
PAD_TOKEN = 5
MASK_TOKEN = 6  # a masked base: used by masked-base pre-training only
NUM_TOKENS = 7
COMPLEMENT = (3, 2, 1, 0, 4, PAD_TOKEN, MASK_TOKEN)  # complement of each token


class SequenceBatch(NamedTuple):
    """DNA sequences of unequal lengths, one token per base; B sequences, T bases in the longest one."""

    tokens: Tensor  # (B, T) int64: indices into BASES, and PAD_TOKEN where the mask is False
    mask: Tensor  # (B, T) bool: True at bases, False at padding
    labels: Tensor  # (B,) int64: class numbers
    rows: Tensor  # (B,) int64: row of each sequence in its split


class StreamBatch(NamedTuple):
    """One segment of each of B streams of unlabelled DNA, which are read in parallel from their first base on.

    The window has W = left + L + right bases: the segment with its left and right neighbours in the stream.
    """

    bases: Tensor  # (B, W) int64: indices into BASES, and PAD_TOKEN where the mask is False
    mask: Tensor  # (B, W) bool: True at bases, False beyond the stream
    left: int  # bases of the window before the segment
    length: int  # L, bases of the segment, a multiple of the model's stride
    number: int  # of the segment in its stream; 0 is the first segment
    last: bool  # whether it is the last segment of these streams
