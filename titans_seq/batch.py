"""The batches that datamodules give and tasks take: the contract between the two packages."""

from typing import NamedTuple

from torch import Tensor


class ForecastBatch(NamedTuple):
    """Windows of a multivariate series, z-scored; B windows, L steps of context, H of horizon, C channels."""

    context: Tensor  # (B, L, C) float: what the model sees
    target: Tensor  # (B, H, C) float: the steps right after it
    start: Tensor  # (B,) int64: row of the split's array at which each window's context begins


class CovariateInputs(NamedTuple):
    """What a forecaster sees besides the series: P past and K known-future covariates, S categories, N numbers.

    A kind that there is none of has width 0.
    """

    past: Tensor  # (B, L, P) float, z-scored
    known: Tensor  # (B, L + H, K) float: z-scores, and sines and cosines of the calendar
    categories: Tensor  # (B, S) int64: one value a series, by its number
    numbers: Tensor  # (B, N) float, z-scored: one value a series


class CovariateBatch(NamedTuple):
    """A `ForecastBatch` with covariates."""

    context: Tensor  # (B, L, C)
    target: Tensor  # (B, H, C)
    start: Tensor  # (B,)
    covariates: CovariateInputs


# The tokens of DNA. A base's token is its place in BASES, so that 3 - token is the complement of A, C, G and T.
BASES = "ACGTN"
PAD_TOKEN = 5
MASK_TOKEN = 6  # a hidden base: written by masked-base pre-training alone
NUM_TOKENS = 7
COMPLEMENT = (3, 2, 1, 0, 4, PAD_TOKEN, MASK_TOKEN)  # of every token


class SequenceBatch(NamedTuple):
    """DNA sequences of unequal lengths, one token per base; B sequences, T bases in the longest of them."""

    tokens: Tensor  # (B, T) int64: places in BASES, and PAD_TOKEN where the mask is False
    mask: Tensor  # (B, T) bool: True at bases, False at padding
    labels: Tensor  # (B,) int64: class numbers
    rows: Tensor  # (B,) int64: each sequence's row in its split


class StreamBatch(NamedTuple):
    """A segment of each of B stretches of unlabelled DNA, which are read side by side from their first base on.

    A window of W = left + L + right bases: the segment, and what lies before and after it in its stretch.
    """

    bases: Tensor  # (B, W) int64: places in BASES, and PAD_TOKEN where the mask is False
    mask: Tensor  # (B, W) bool: True at bases, False beyond the stretch
    left: int  # bases of the window before the segment
    length: int  # L, bases of the segment, a multiple of the model's stride
    number: int  # of the segment in its stretch; at 0 nothing has been read yet
    last: bool  # whether these stretches end with it
