"""What two splits have in common: the same sequences, the same stretches of bases, the same places on a genome."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.dna.intervals import Intervals
from datamodules.dna.kmers import kmers
from datamodules.dna.sequences import Sequences

_PAIRS = 5_000_000  # of intervals that are compared at a time


class Matches(NamedTuple):
    """Which rows of a split are recognised by the training rows, and as what."""

    share: NDArray[np.float64]  # (n,): how much of each row is found in training rows, 0 to 1
    label: NDArray[np.int64]  # (n,): class of what was found; -1 where nothing was
    train_share: NDArray[np.float64]  # (training rows,): how much of each is found in other training rows

    def or_else(self, other: "Matches") -> "Matches":
        """These, and of rows that are not found at all what `other` finds."""
        lost, lost_train = self.share == 0, self.train_share == 0
        return Matches(
            np.where(lost, other.share, self.share),
            np.where(lost, other.label, self.label),
            np.where(lost_train, other.train_share, self.train_share),
        )


def sequence_numbers(parts: list[Sequences]) -> list[NDArray[np.int64]]:
    """A number for each sequence of each part, the same for the same bases."""
    letters = [[part[row].tobytes() for row in range(len(part))] for part in parts]
    column = pl.Series([each for part in letters for each in part], dtype=pl.Binary)
    numbers = column.rank("dense").to_numpy().astype(np.int64)
    return np.split(numbers, np.cumsum([len(part) for part in parts])[:-1])


def numbers_by_strand(parts: list[Sequences]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each part a number for each sequence and for its reverse complement, the same for the same bases."""
    numbers = sequence_numbers([*parts, *(part.reverse_complement() for part in parts)])
    return [(numbers[i], numbers[len(parts) + i][::-1]) for i in range(len(parts))]


def strandless_numbers(parts: list[Sequences]) -> list[NDArray[np.int64]]:
    """A number for each sequence of each part, the same for the same bases on either strand."""
    return [np.minimum(*both) for both in numbers_by_strand(parts)]


def match_numbers(train: NDArray[np.int64], labels: NDArray[np.int64], other: NDArray[np.int64]) -> Matches:
    """Rows that are the same as a training row: `train` and `other` number what is to be the same."""
    known, first, count = np.unique(train, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(known, other), len(known) - 1)
    same = known[place] == other
    again = count[np.searchsorted(known, train)] > 1
    return Matches(same.astype(np.float64), np.where(same, labels[first[place]], -1), again.astype(np.float64))


class KmerIndex:
    """The stretches of k bases of all training rows, a stretch and its reverse complement counting as one.

    Args:
        train: the training rows' sequences.
        labels: their classes.
        num_classes: K.
        k: bases of a stretch, at most 32.
    """

    def __init__(self, train: Sequences, labels: NDArray[np.int64], num_classes: int, *, k: int) -> None:
        self.k = k
        self.codes, rows = _distinct(train, k)
        again = np.zeros(len(self.codes), dtype=np.bool_)
        again[1:] = self.codes[1:] == self.codes[:-1]
        again[:-1] |= again[1:]
        self.train_share = _share(again, rows, len(train))
        holders = labels[rows]
        # How many entries before each are of each class, (K, entries + 1).
        counter = np.int32 if len(rows) < 2**31 else np.int64
        self._before = np.zeros((num_classes, len(rows) + 1), dtype=counter)
        for number in range(num_classes):
            np.cumsum(holders == number, out=self._before[number, 1:])

    def match(self, other: Sequences) -> Matches:
        """Rows recognised by shared stretches; each votes for the classes of the training rows that hold it."""
        codes, rows = _distinct(other, self.k)
        first, end = (np.searchsorted(self.codes, codes, side=side) for side in ("left", "right"))
        votes = self._before[:, end] - self._before[:, first]
        ballots = np.stack([np.bincount(rows, weights=each, minlength=len(other)) for each in votes], axis=1)
        label = np.where(ballots.any(axis=1), ballots.argmax(axis=1), -1)
        return Matches(_share(end > first, rows, len(other)), label, self.train_share)


def match_intervals(train: Intervals, labels: NDArray[np.int64], other: Intervals) -> Matches:
    """By how much of a row's interval one training interval covers, on either strand."""
    share, best = _coverage(other, train, same=False)
    train_share, _ = _coverage(train, train, same=True)
    return Matches(share, np.where(share > 0, labels[best], -1), train_share)


def interval_numbers(parts: list[Intervals]) -> list[NDArray[np.int64]]:
    """A number for each interval of each part, the same for the same place."""
    joined = Intervals.joined(parts)
    table = pl.DataFrame({"region": joined.regions, "start": joined.starts, "end": joined.ends})
    numbers = table.to_struct().rank("dense").to_numpy().astype(np.int64)
    return np.split(numbers, np.cumsum([len(part.starts) for part in parts])[:-1])


def _distinct(sequences: Sequences, k: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """The k-mers of all sequences, sorted, with the sequence each is from; each once a sequence."""
    codes, rows = kmers(sequences, k, both_strands=True)
    order = np.argsort(codes, kind="stable")  # stable: of equal codes, those of one sequence lie together
    codes, rows = codes[order], rows[order]
    new = np.ones(len(codes), dtype=np.bool_)
    new[1:] = (codes[1:] != codes[:-1]) | (rows[1:] != rows[:-1])
    return codes[new], rows[new]


def _share(which: NDArray[np.bool_], rows: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """The share of each row's entries that are `which`, (count,); 0 for a row without entries."""
    total = np.bincount(rows, minlength=count)
    return np.bincount(rows, weights=which, minlength=count) / np.maximum(total, 1)


def _coverage(queries: Intervals, targets: Intervals, *, same: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The largest share of each query that one target covers, and that target; `same`: a row is no target of itself."""
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
    # Only targets that begin before the query's end, and no further before it than the longest is long, can overlap.
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
        best[query[reached]] = order[target[reached]]  # reversed: of equals, the first remains
    return share, best
