"""Overlap between two splits: identical sequences, shared k-mers, overlapping intervals on a genome."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.dna.intervals import Intervals
from datamodules.dna.kmers import kmers
from datamodules.dna.sequences import Sequences

_PAIRS = 5_000_000  # of intervals compared at a time


class Matches(NamedTuple):
    """Overlap of each row of a split with the training rows, and the class of the matching training rows."""

    share: NDArray[np.float64]  # (n,): share of each row that occurs in training rows, 0 to 1
    label: NDArray[np.int64]  # (n,): class of the match; -1 if there is none
    train_share: NDArray[np.float64]  # (training rows,): share of each that occurs in other training rows

    def or_else(self, other: "Matches") -> "Matches":
        """Take the matches of `other` for rows that have none here."""
        unmatched, unmatched_train = self.share == 0, self.train_share == 0
        return Matches(
            np.where(unmatched, other.share, self.share),
            np.where(unmatched, other.label, self.label),
            np.where(unmatched_train, other.train_share, self.train_share),
        )


def sequence_numbers(parts: list[Sequences]) -> list[NDArray[np.int64]]:
    """Number the sequences of each part; equal sequences have equal numbers, across parts too."""
    letters = [[part[row].tobytes() for row in range(len(part))] for part in parts]
    column = pl.Series([each for part in letters for each in part], dtype=pl.Binary)
    numbers = column.rank("dense").to_numpy().astype(np.int64)
    return np.split(numbers, np.cumsum([len(part) for part in parts])[:-1])


def numbers_by_strand(parts: list[Sequences]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Number the sequences of each part, and their reverse complements; equal bases have equal numbers."""
    numbers = sequence_numbers([*parts, *(part.reverse_complement() for part in parts)])
    return [(numbers[i], numbers[len(parts) + i][::-1]) for i in range(len(parts))]


def strandless_numbers(parts: list[Sequences]) -> list[NDArray[np.int64]]:
    """Number the sequences of each part; a sequence and its reverse complement have equal numbers."""
    return [np.minimum(*both) for both in numbers_by_strand(parts)]


def match_numbers(train: NDArray[np.int64], labels: NDArray[np.int64], other: NDArray[np.int64]) -> Matches:
    """Match rows that equal a training row: rows with equal numbers in `train` and `other` are equal."""
    distinct, first, count = np.unique(train, return_index=True, return_counts=True)
    nearest = np.minimum(np.searchsorted(distinct, other), len(distinct) - 1)
    same = distinct[nearest] == other
    repeated = count[np.searchsorted(distinct, train)] > 1
    return Matches(same.astype(np.float64), np.where(same, labels[first[nearest]], -1), repeated.astype(np.float64))


class KmerIndex:
    """Index of the k-mers of all training rows; a k-mer and its reverse complement count as one.

    Args:
        train: the training rows' sequences.
        labels: their classes.
        num_classes: K.
        k: bases of a k-mer, at most 32.
    """

    def __init__(self, train: Sequences, labels: NDArray[np.int64], num_classes: int, *, k: int) -> None:
        self.k = k
        self.codes, rows = _distinct(train, k)
        repeated = np.zeros(len(self.codes), dtype=np.bool_)
        repeated[1:] = self.codes[1:] == self.codes[:-1]
        repeated[:-1] |= repeated[1:]
        self.train_share = _share(repeated, rows, len(train))
        classes = labels[rows]
        # Number of entries of each class before each entry, (K, entries + 1).
        counter = np.int32 if len(rows) < 2**31 else np.int64
        self._before = np.zeros((num_classes, len(rows) + 1), dtype=counter)
        for number in range(num_classes):
            np.cumsum(classes == number, out=self._before[number, 1:])

    def match(self, other: Sequences) -> Matches:
        """Match rows by shared k-mers; each k-mer votes for the classes of the training rows that contain it."""
        codes, rows = _distinct(other, self.k)
        first, end = (np.searchsorted(self.codes, codes, side=side) for side in ("left", "right"))
        votes = self._before[:, end] - self._before[:, first]
        ballots = np.stack([np.bincount(rows, weights=each, minlength=len(other)) for each in votes], axis=1)
        label = np.where(ballots.any(axis=1), ballots.argmax(axis=1), -1)
        return Matches(_share(end > first, rows, len(other)), label, self.train_share)


def match_intervals(train: Intervals, labels: NDArray[np.int64], other: Intervals) -> Matches:
    """Match rows by the largest share of an interval that a single training interval covers, on either strand."""
    share, best = _coverage(other, train, same=False)
    train_share, _ = _coverage(train, train, same=True)
    return Matches(share, np.where(share > 0, labels[best], -1), train_share)


def interval_numbers(parts: list[Intervals]) -> list[NDArray[np.int64]]:
    """Number the intervals of each part; equal intervals have equal numbers, across parts too."""
    joined = Intervals.joined(parts)
    table = pl.DataFrame({"region": joined.regions, "start": joined.starts, "end": joined.ends})
    numbers = table.to_struct().rank("dense").to_numpy().astype(np.int64)
    return np.split(numbers, np.cumsum([len(part.starts) for part in parts])[:-1])


def _distinct(sequences: Sequences, k: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Sorted k-mers of all sequences and the row of each one's sequence; each k-mer once per sequence."""
    codes, rows = kmers(sequences, k, both_strands=True)
    order = np.argsort(codes, kind="stable")  # stable: equal codes of one sequence stay adjacent
    codes, rows = codes[order], rows[order]
    new = np.ones(len(codes), dtype=np.bool_)
    new[1:] = (codes[1:] != codes[:-1]) | (rows[1:] != rows[:-1])
    return codes[new], rows[new]


def _share(which: NDArray[np.bool_], rows: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Share of each row's entries where `which` is True, (count,); 0 for a row without entries."""
    total = np.bincount(rows, minlength=count)
    return np.bincount(rows, weights=which, minlength=count) / np.maximum(total, 1)


def _coverage(queries: Intervals, targets: Intervals, *, same: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest share of each query that one target covers, and that target; with `same` a row does not cover itself."""
    names, region = np.unique(np.concatenate([queries.regions, targets.regions]), return_inverse=True)
    span = int(max(queries.ends.max(), targets.ends.max())) + int(targets.lengths.max()) + 1
    assert len(names) * span < 2**62
    offset = region * span
    query_start, target_start = (
        offset[: len(queries.starts)] + queries.starts,
        offset[len(queries.starts) :] + targets.starts,
    )
    order = np.argsort(target_start, kind="stable")
    sorted_start = target_start[order]
    sorted_end = sorted_start + targets.lengths[order]
    # Only targets that start before the query's end, and at most the longest target's length before its start, overlap.
    first = np.searchsorted(sorted_start, query_start - targets.lengths.max(), side="right")
    end = np.searchsorted(sorted_start, query_start + queries.lengths)
    share, best = np.zeros(len(query_start)), np.zeros(len(query_start), dtype=np.int64)
    number = np.cumsum(end - first)
    blocks = np.searchsorted(number, np.arange(0, number[-1] + 1, _PAIRS), side="left").tolist()
    for low, high in zip(blocks, [*blocks[1:], len(first)], strict=True):
        pairs = end[low:high] - first[low:high]
        query = np.repeat(np.arange(low, high), pairs)
        target = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs) + first[query]
        left = np.maximum(query_start[query], sorted_start[target])
        right = np.minimum(query_start[query] + queries.lengths[query], sorted_end[target])
        covered = np.maximum(right - left, 0) / queries.lengths[query]
        if same:
            covered[order[target] == query] = 0.0
        np.maximum.at(share, query, covered)
        reached = np.flatnonzero((covered > 0) & (covered == share[query]))[::-1]
        best[query[reached]] = order[target[reached]]  # reversed: the first of equal targets is kept
    return share, best
