"""Shortcut baselines: classify a split by length, by k-mer composition, or by its overlap with training rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.audit.logistic import Logistic
from datamodules.dna.kmers import counts
from datamodules.dna.overlap import Matches
from datamodules.dna.sequences import Sequences

Labels = NDArray[np.int64]

_DUPLICATE_SHARE = 0.5  # of a row that must occur in training rows for it to count as their duplicate


@dataclass(frozen=True)
class Shortcut:
    """Score of a classifier that uses a single shortcut feature."""

    split: str  # the classified split
    name: str
    accuracy: float
    mcc: float  # Matthews correlation, of K classes (Gorodkin 2004); 0 for a constant
    constant: float  # accuracy of the best constant prediction on this split, the majority baseline
    standard_error: float  # of the accuracy


def score(split: str, name: str, labels: Labels, predicted: Labels, num_classes: int) -> Shortcut:
    """Score predictions (n,) against labels (n,)."""
    table = np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
    count, correct = table.sum(), np.trace(table)
    true, guessed = table.sum(axis=1).astype(np.float64), table.sum(axis=0).astype(np.float64)
    spread = np.sqrt((count**2 - guessed @ guessed) * (count**2 - true @ true))
    accuracy = float(correct / count)
    return Shortcut(
        split=split,
        name=name,
        accuracy=accuracy,
        mcc=float((correct * count - true @ guessed) / spread) if spread else 0.0,
        constant=float(true.max() / count),
        standard_error=float(np.sqrt(accuracy * (1 - accuracy) / count)),
    )


def by_length(train: Labels, labels: Labels, other: Labels, num_classes: int, max_length: int | None = None) -> Labels:
    """Predict the class of sequences of lengths `other`: the most common class of the nearest training length.

    Args:
        train: lengths of the training rows.
        labels: their classes.
        other: lengths to classify.
        num_classes: K.
        max_length: longer sequences count as having this length.
    """
    if max_length is not None:
        train, other = np.minimum(train, max_length), np.minimum(other, max_length)
    lengths, which = np.unique(train, return_inverse=True)
    votes = np.bincount(which * num_classes + labels, minlength=len(lengths) * num_classes)
    majority: Labels = votes.reshape(len(lengths), num_classes).argmax(axis=1)
    above = np.minimum(np.searchsorted(lengths, other), len(lengths) - 1)
    below = np.maximum(above - 1, 0)
    return majority[np.where(other - lengths[below] <= lengths[above] - other, below, above)]


COMPOSITIONS = {"frequencies of bases": 1, "frequencies of pairs of bases": 2}  # k of each


class KmerCompositionClassifier:
    """Logistic regression on k-mer frequencies, fitted to the training rows."""

    def __init__(self, train: Sequences, labels: Labels, num_classes: int, *, k: int, ridge: float = 1.0) -> None:
        self.k = k
        self.model = Logistic(_frequencies(train, k), labels, num_classes, ridge=ridge)

    def __call__(self, other: Sequences) -> Labels:
        """Most likely class of each sequence, (n,)."""
        return self.model.predict(_frequencies(other, self.k))


def by_duplicates(matches: Matches, labels: Labels, num_classes: int) -> Labels:
    """Predict the class of the matching training rows for rows of which at least half occurs in training rows.

    All other rows get the most common class among the training rows that are not duplicates of other training rows:
    if one class has many duplicates, a row without a match is likely of another class.
    """
    unmatched = labels[matches.train_share < _DUPLICATE_SHARE]
    default = np.bincount(unmatched if len(unmatched) else labels, minlength=num_classes).argmax()
    return np.where((matches.share >= _DUPLICATE_SHARE) & (matches.label >= 0), matches.label, default)


def _frequencies(sequences: Sequences, k: int) -> NDArray[np.float64]:
    table = counts(sequences, k)
    frequencies: NDArray[np.float64] = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return frequencies
