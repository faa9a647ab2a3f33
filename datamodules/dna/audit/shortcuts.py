"""How well a split is classified without any model of DNA: by length, by composition, by recognising training rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.audit.logistic import Logistic
from datamodules.dna.kmers import counts
from datamodules.dna.overlap import Matches
from datamodules.dna.sequences import Sequences

Labels = NDArray[np.int64]

_ENOUGH = 0.5  # of a row must be found in training rows for it to count as recognised


@dataclass(frozen=True)
class Shortcut:
    """The score of a classifier that knows one thing."""

    split: str  # that was classified
    clue: str
    accuracy: float
    mcc: float  # Matthews correlation, of K classes (Gorodkin 2004); 0 for a constant
    constant: float  # accuracy of the best constant answer on this split: what means nothing
    standard_error: float  # of the accuracy


def score(split: str, clue: str, labels: Labels, predicted: Labels, num_classes: int) -> Shortcut:
    """Judge predictions (n,) by labels (n,)."""
    table = np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
    count, right = table.sum(), np.trace(table)
    truly, said = table.sum(axis=1).astype(np.float64), table.sum(axis=0).astype(np.float64)
    spread = np.sqrt((count**2 - said @ said) * (count**2 - truly @ truly))
    accuracy = float(right / count)
    return Shortcut(
        split=split,
        clue=clue,
        accuracy=accuracy,
        mcc=float((right * count - truly @ said) / spread) if spread else 0.0,
        constant=float(truly.max() / count),
        standard_error=float(np.sqrt(accuracy * (1 - accuracy) / count)),
    )


def by_length(train: Labels, labels: Labels, other: Labels, num_classes: int, max_length: int | None = None) -> Labels:
    """Predictions for sequences of lengths `other`: the commonest class of the nearest training length.

    Args:
        train: lengths of the training rows.
        labels: their classes.
        other: lengths to be classified.
        num_classes: K.
        max_length: longer ones count as this long.
    """
    if max_length is not None:
        train, other = np.minimum(train, max_length), np.minimum(other, max_length)
    lengths, which = np.unique(train, return_inverse=True)
    votes = np.bincount(which * num_classes + labels, minlength=len(lengths) * num_classes)
    answer: Labels = votes.reshape(len(lengths), num_classes).argmax(axis=1)
    above = np.minimum(np.searchsorted(lengths, other), len(lengths) - 1)
    below = np.maximum(above - 1, 0)
    return answer[np.where(other - lengths[below] <= lengths[above] - other, below, above)]


COMPOSITIONS = {"frequencies of bases": 1, "frequencies of pairs of bases": 2}  # k of each


class Composition:
    """Predictions from the frequencies of all stretches of k bases, by logistic regression on the training rows."""

    def __init__(self, train: Sequences, labels: Labels, num_classes: int, *, k: int, ridge: float = 1.0) -> None:
        self.k = k
        self.model = Logistic(_frequencies(train, k), labels, num_classes, ridge=ridge)

    def __call__(self, other: Sequences) -> Labels:
        """The likeliest class of each sequence, (n,)."""
        return self.model.predict(_frequencies(other, self.k))


def by_duplicates(matches: Matches, labels: Labels, num_classes: int) -> Labels:
    """Predictions by what is found in training rows, where at least half of a row is.

    All others get the class that is commonest among training rows that other training rows do not give away either:
    where one class repeats itself, an unknown row is likely of another.
    """
    unknown = labels[matches.train_share < _ENOUGH]
    default = np.bincount(unknown if len(unknown) else labels, minlength=num_classes).argmax()
    return np.where((matches.share >= _ENOUGH) & (matches.label >= 0), matches.label, default)


def _frequencies(sequences: Sequences, k: int) -> NDArray[np.float64]:
    table = counts(sequences, k)
    frequencies: NDArray[np.float64] = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return frequencies
