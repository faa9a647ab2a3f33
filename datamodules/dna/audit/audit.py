"""What a data set's labels give away before any model is trained, and what its splits share.

A model's score is worth what it exceeds these by: on some published sets the length of a sequence, or having seen a
training row like it, is enough for scores that look like a model's.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.dna.audit.shortcuts import COMPOSITIONS, Composition, Shortcut, by_duplicates, by_length, score
from datamodules.dna.classification.holdout import Holdout, cut_splits
from datamodules.dna.classification.labelled import IntervalRows, IntervalSplits, Rows, SequenceSource, Splits
from datamodules.dna.datasets.genomic_benchmarks import GenomicBenchmark
from datamodules.dna.overlap import (
    KmerIndex,
    Matches,
    interval_numbers,
    match_intervals,
    match_numbers,
    numbers_by_strand,
    sequence_numbers,
)

_Numbers = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Repeats:
    """Rows that are there more than once: the same bases on the same strand, or the same place on the genome."""

    split: str  # or "all"
    rows: int
    repeated: int  # rows beyond the first of each
    contradictory: int  # sequences that have rows of more than one class


@dataclass(frozen=True)
class Shared:
    """What training rows give away of another split."""

    split: str
    by: str  # what makes two rows alike: "32-mers" on either strand, "intervals" on a genome
    rows: int
    identical: int  # rows that are training rows too
    identical_by_class: tuple[float, ...]  # share of each class's rows that are training rows of the same class
    contradictory: int  # rows that are training rows of another class
    reverse_complements: (
        int  # rows whose reverse complement is a training row; 0 for intervals, which have no strand here
    )
    half_found: float  # share of rows of which at least half is found in training rows
    any_found: float  # share of rows of which anything is


@dataclass(frozen=True)
class Audit:
    """All that was found."""

    name: str
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # rows of each class, by split
    clues: list[Shortcut]
    repeats: list[Repeats]
    shared: list[Shared]
    notes: tuple[str, ...] = ()  # what the user should be told once, a line each

    def tables(self) -> dict[str, pl.DataFrame]:
        """The findings as tables: rows, clues, repeats, shared."""
        rows = [
            {"split": split, "class": name, "rows": count}
            for split, counts in self.counts.items()
            for name, count in zip(self.classes, counts, strict=True)
        ]
        return {
            "rows": pl.DataFrame(rows),
            "clues": pl.DataFrame([asdict(clue) for clue in self.clues]),
            "repeats": pl.DataFrame([asdict(each) for each in self.repeats]),
            "shared": pl.DataFrame([asdict(each) for each in self.shared]),
        }


def audit(splits: Splits, *, k: int = 32, max_length: int | None = None) -> Audit:
    """Audit sequences, and their places on a genome where they have them.

    Args:
        splits: the data set; validation and test are judged by train. Splits that are None are left out.
        k: bases of a stretch that makes two rows alike, at most 32.
        max_length: tell also what length gives away when longer sequences are cut to this.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    there = {split: rows for split, rows in parts.items() if rows is not None}
    labels = {split: rows.labels for split, rows in there.items()}
    numbers = dict(zip(there, sequence_numbers([rows.sequences for rows in there.values()]), strict=True))
    clues, shared = [], []
    judge = _Judge(splits.train, len(splits.classes.names), k, max_length)
    for split, rows in there.items():
        if split != "train":
            new_clues, new_shared = judge(split, rows)
            clues += new_clues
            shared += new_shared
    return Audit(
        splits.name,
        splits.classes.names,
        _counts(labels, len(splits.classes.names)),
        clues,
        _repeats(labels, numbers),
        shared,
        splits.notes,
    )


def audit_intervals(splits: IntervalSplits, *, max_length: int | None = None) -> Audit:
    """Audit interval lists: what is known of the test rows without a single base."""
    train, test = splits.train, splits.test
    labels = {"train": train.labels, "test": test.labels}
    num_classes = len(splits.classes.names)
    lengths = train.intervals.lengths, test.intervals.lengths
    clues = _length_clues("test", lengths, (train.labels, test.labels), num_classes, max_length)
    place_clues, shared = _judge_places("test", train, test, num_classes)
    numbers = dict(zip(labels, interval_numbers([train.intervals, test.intervals]), strict=True))
    repeats = _repeats(labels, numbers)
    return Audit(
        splits.name,
        splits.classes.names,
        _counts(labels, len(splits.classes.names)),
        [*clues, *place_clues],
        repeats,
        [shared],
    )


class _Judge:
    """What training rows tell of the rows of other splits."""

    def __init__(self, train: Rows, num_classes: int, k: int, max_length: int | None) -> None:
        self.train = train
        self.num_classes = num_classes
        self.max_length = max_length
        self.compositions = {
            name: Composition(train.sequences, train.labels, num_classes, k=size) for name, size in COMPOSITIONS.items()
        }
        self.kmers = KmerIndex(train.sequences, train.labels, num_classes, k=k)

    def __call__(self, split: str, rows: Rows) -> tuple[list[Shortcut], list[Shared]]:
        """Scores on a split, and what it shares with the training rows."""
        train, num_classes = self.train, self.num_classes
        lengths = train.sequences.lengths, rows.sequences.lengths
        clues = _length_clues(split, lengths, (train.labels, rows.labels), num_classes, self.max_length)
        (known, known_other), (asked, asked_other) = numbers_by_strand([train.sequences, rows.sequences])
        # Rows shorter than a stretch can still be recognised whole.
        whole = match_numbers(np.minimum(known, known_other), train.labels, np.minimum(asked, asked_other))
        matches = self.kmers.match(rows.sequences).or_else(whole)
        predicted = {name: predict(rows.sequences) for name, predict in self.compositions.items()}
        by_kmers = f"half of the {self.kmers.k}-mers in training rows"
        predicted[by_kmers] = by_duplicates(matches, train.labels, num_classes)
        clues += [score(split, name, rows.labels, answer, num_classes) for name, answer in predicted.items()]

        opposite = int(np.isin(asked_other, known).sum())
        holders = _holders(known, train.labels, asked, num_classes)
        shared = [_shared(split, f"{self.kmers.k}-mers", rows.labels, holders, matches, opposite)]
        if train.intervals is not None and rows.intervals is not None:
            places = (IntervalRows(train.intervals, train.labels), IntervalRows(rows.intervals, rows.labels))
            place_clues, place_shared = _judge_places(split, *places, num_classes)
            clues += place_clues
            shared.append(place_shared)
        return clues, shared


def _judge_places(
    split: str, train: IntervalRows, rows: IntervalRows, num_classes: int
) -> tuple[list[Shortcut], Shared]:
    """What training intervals tell of the intervals of a split."""
    numbers = interval_numbers([train.intervals, rows.intervals])
    same = match_numbers(numbers[0], train.labels, numbers[1])
    overlap = match_intervals(train.intervals, train.labels, rows.intervals)
    clues = []
    for name, matches in (("the same interval in training rows", same), ("half covered by a training row", overlap)):
        predicted = by_duplicates(matches, train.labels, num_classes)
        clues.append(score(split, name, rows.labels, predicted, num_classes))
    holders = _holders(numbers[0], train.labels, numbers[1], num_classes)
    return clues, _shared(split, "intervals", rows.labels, holders, overlap, 0)


def _length_clues(
    split: str,
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]],
    num_classes: int,
    max_length: int | None,
) -> list[Shortcut]:
    """Scores by length; `lengths` and `labels` are those of the training rows and of the split."""
    clues = []
    for limit, name in ((None, "length"), (max_length, f"length, cut at {max_length}")):
        if limit is not None or name == "length":
            predicted = by_length(lengths[0], labels[0], lengths[1], num_classes, limit)
            clues.append(score(split, name, labels[1], predicted, num_classes))
    return clues


def _holders(
    train: NDArray[np.int64], labels: NDArray[np.int64], numbers: NDArray[np.int64], num_classes: int
) -> NDArray[np.bool_]:
    """Which classes have a training row of each of `numbers` (n,): (n, K)."""
    return np.column_stack([np.isin(numbers, train[labels == number]) for number in range(num_classes)])


def _shared(
    split: str,
    by: str,
    labels: NDArray[np.int64],
    holders: NDArray[np.bool_],
    matches: Matches,
    reverse_complements: int,
) -> Shared:
    own = np.zeros_like(holders)
    own[np.arange(len(labels)), labels] = True
    of_class = np.maximum(own.sum(axis=0), 1)
    return Shared(
        split=split,
        by=by,
        rows=len(labels),
        identical=int(holders.any(axis=1).sum()),
        identical_by_class=tuple(((holders & own).sum(axis=0) / of_class).tolist()),
        contradictory=int((holders & ~own).any(axis=1).sum()),
        reverse_complements=reverse_complements,
        half_found=float((matches.share >= 0.5).mean()),
        any_found=float((matches.share > 0).mean()),
    )


def _counts(labels: _Numbers, num_classes: int) -> dict[str, tuple[int, ...]]:
    return {split: tuple(np.bincount(each, minlength=num_classes).tolist()) for split, each in labels.items()}


def _repeats(labels: _Numbers, numbers: _Numbers) -> list[Repeats]:
    """For each split, and for all together."""
    together = {"all": (np.concatenate(list(labels.values())), np.concatenate(list(numbers.values())))}
    each = {split: (labels[split], numbers[split]) for split in labels}
    found = []
    for split, (label, number) in {**each, **together}.items():
        pairs = np.unique(np.column_stack([number, label]), axis=0)
        classes = np.unique(pairs[:, 0], return_counts=True)[1]  # of each distinct sequence
        found.append(Repeats(split, len(number), len(number) - len(classes), int((classes > 1).sum())))
    return found


def audit_source(source: SequenceSource, holdout: Holdout, *, k: int = 32, max_length: int | None = None) -> Audit:
    """Audit what a source holds, see `audit`.

    A genomic benchmark whose sequences are not at hand is audited by its interval lists. From what has no test rows the
    splits are cut by `holdout`, as for a training.
    """
    source.prepare()
    if isinstance(source, GenomicBenchmark) and source.within == "official" and not source.has_sequences():
        return audit_intervals(source.load_intervals(), max_length=max_length)
    splits = source.load()
    if splits.test is None:
        cut = cut_splits(splits, holdout)
        note = f"{splits.name}: no test rows: splits are cut as `fit` cuts them, by {holdout.unit}"
        splits = replace(cut, notes=(*cut.notes, note))
    return audit(splits, k=k, max_length=max_length)
