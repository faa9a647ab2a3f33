"""Audit of a labelled dataset before any model is trained: shortcut features, duplicates and train/test leakage.

A model has learned only what it scores above these baselines: on some published datasets the length of a sequence, or
a similar training row, is enough for scores that look like a model's.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.dna.audit.shortcuts import (
    COMPOSITIONS,
    KmerCompositionClassifier,
    Shortcut,
    by_duplicates,
    by_length,
    score,
)
from datamodules.dna.classification.holdout import Holdout, cut_splits
from datamodules.dna.classification.labelled import Examples, IntervalExamples, IntervalSplits, SequenceSource, Splits
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
    """Duplicate rows within a split: the same bases on the same strand, or the same interval on the genome."""

    split: str  # or "all"
    rows: int
    repeated: int  # rows after the first of each set of duplicates
    contradictory: int  # sequences that occur with more than one class


@dataclass(frozen=True)
class Overlap:
    """Label leakage from the training rows into another split: duplicates and partial overlap."""

    split: str
    by: str  # unit of the overlap: "32-mers" on either strand, "intervals" on a genome
    rows: int
    identical: int  # rows that are also training rows
    identical_by_class: tuple[float, ...]  # share of each class's rows that are also training rows of this class
    contradictory: int  # rows that are also training rows of another class
    reverse_complements: (
        int  # rows whose reverse complement is a training row; 0 for intervals, which have no strand here
    )
    half_in_train: float  # share of rows of which at least half occurs in training rows
    any_in_train: float  # share of rows of which any part occurs in training rows


@dataclass(frozen=True)
class Audit:
    """All findings of an audit."""

    name: str
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # rows of each class, by split
    shortcuts: list[Shortcut]
    repeats: list[Repeats]
    overlaps: list[Overlap]
    notes: tuple[str, ...] = ()  # messages for the user, one line each

    def tables(self) -> dict[str, pl.DataFrame]:
        """Findings as tables: rows, shortcuts, repeats, overlaps."""
        rows = [
            {"split": split, "class": name, "rows": count}
            for split, counts in self.counts.items()
            for name, count in zip(self.classes, counts, strict=True)
        ]
        return {
            "rows": pl.DataFrame(rows),
            "shortcuts": pl.DataFrame([asdict(each) for each in self.shortcuts]),
            "repeats": pl.DataFrame([asdict(each) for each in self.repeats]),
            "overlaps": pl.DataFrame([asdict(each) for each in self.overlaps]),
        }


def audit(splits: Splits, *, k: int = 32, max_length: int | None = None) -> Audit:
    """Audit sequences, and their intervals on a genome if they have them.

    Args:
        splits: the dataset; validation and test are compared with train. Splits that are None are left out.
        k: bases of the k-mers that are compared, at most 32.
        max_length: also report the length baseline for sequences truncated to this length.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    there = {split: rows for split, rows in parts.items() if rows is not None}
    labels = {split: rows.labels for split, rows in there.items()}
    numbers = dict(zip(there, sequence_numbers([rows.sequences for rows in there.values()]), strict=True))
    shortcuts, overlaps = [], []
    compare = _TrainComparison(splits.train, len(splits.classes.names), k, max_length)
    for split, rows in there.items():
        if split != "train":
            new_shortcuts, new_overlaps = compare(split, rows)
            shortcuts += new_shortcuts
            overlaps += new_overlaps
    return Audit(
        splits.name,
        splits.classes.names,
        _counts(labels, len(splits.classes.names)),
        shortcuts,
        _repeats(labels, numbers),
        overlaps,
        splits.notes,
    )


def audit_intervals(splits: IntervalSplits, *, max_length: int | None = None) -> Audit:
    """Audit interval lists: all checks that need no bases."""
    train, test = splits.train, splits.test
    labels = {"train": train.labels, "test": test.labels}
    num_classes = len(splits.classes.names)
    lengths = train.intervals.lengths, test.intervals.lengths
    shortcuts = _length_shortcuts("test", lengths, (train.labels, test.labels), num_classes, max_length)
    interval_shortcuts, overlap = _compare_intervals("test", train, test, num_classes)
    numbers = dict(zip(labels, interval_numbers([train.intervals, test.intervals]), strict=True))
    repeats = _repeats(labels, numbers)
    return Audit(
        splits.name,
        splits.classes.names,
        _counts(labels, len(splits.classes.names)),
        [*shortcuts, *interval_shortcuts],
        repeats,
        [overlap],
    )


class _TrainComparison:
    """Comparison of other splits with the training rows."""

    def __init__(self, train: Examples, num_classes: int, k: int, max_length: int | None) -> None:
        self.train = train
        self.num_classes = num_classes
        self.max_length = max_length
        self.compositions = {
            name: KmerCompositionClassifier(train.sequences, train.labels, num_classes, k=size)
            for name, size in COMPOSITIONS.items()
        }
        self.kmers = KmerIndex(train.sequences, train.labels, num_classes, k=k)

    def __call__(self, split: str, rows: Examples) -> tuple[list[Shortcut], list[Overlap]]:
        """Shortcut scores on a split, and its overlap with the training rows."""
        train, num_classes = self.train, self.num_classes
        lengths = train.sequences.lengths, rows.sequences.lengths
        shortcuts = _length_shortcuts(split, lengths, (train.labels, rows.labels), num_classes, self.max_length)
        (in_train, in_train_reverse), (here, here_reverse) = numbers_by_strand([train.sequences, rows.sequences])
        # Rows shorter than a k-mer can still be duplicates as a whole.
        whole = match_numbers(np.minimum(in_train, in_train_reverse), train.labels, np.minimum(here, here_reverse))
        matches = self.kmers.match(rows.sequences).or_else(whole)
        predicted = {name: predict(rows.sequences) for name, predict in self.compositions.items()}
        by_kmers = f"half of the {self.kmers.k}-mers in training rows"
        predicted[by_kmers] = by_duplicates(matches, train.labels, num_classes)
        shortcuts += [score(split, name, rows.labels, classes, num_classes) for name, classes in predicted.items()]

        reverse_complements = int(np.isin(here_reverse, in_train).sum())
        train_classes = _train_classes(in_train, train.labels, here, num_classes)
        unit = f"{self.kmers.k}-mers"
        overlaps = [_overlap(split, unit, rows.labels, train_classes, matches, reverse_complements)]
        if train.intervals is not None and rows.intervals is not None:
            both = (IntervalExamples(train.intervals, train.labels), IntervalExamples(rows.intervals, rows.labels))
            interval_shortcuts, interval_overlap = _compare_intervals(split, *both, num_classes)
            shortcuts += interval_shortcuts
            overlaps.append(interval_overlap)
        return shortcuts, overlaps


def _compare_intervals(
    split: str, train: IntervalExamples, rows: IntervalExamples, num_classes: int
) -> tuple[list[Shortcut], Overlap]:
    """Shortcut scores from the training intervals on those of a split, and the overlap of both."""
    numbers = interval_numbers([train.intervals, rows.intervals])
    same = match_numbers(numbers[0], train.labels, numbers[1])
    covered = match_intervals(train.intervals, train.labels, rows.intervals)
    shortcuts = []
    for name, matches in (("the same interval in training rows", same), ("half covered by a training row", covered)):
        predicted = by_duplicates(matches, train.labels, num_classes)
        shortcuts.append(score(split, name, rows.labels, predicted, num_classes))
    train_classes = _train_classes(numbers[0], train.labels, numbers[1], num_classes)
    return shortcuts, _overlap(split, "intervals", rows.labels, train_classes, covered, 0)


def _length_shortcuts(
    split: str,
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]],
    num_classes: int,
    max_length: int | None,
) -> list[Shortcut]:
    """Scores of the length baseline; `lengths` and `labels` are those of the training rows and of the split."""
    shortcuts = []
    for limit, name in ((None, "length"), (max_length, f"length, cut at {max_length}")):
        if limit is not None or name == "length":
            predicted = by_length(lengths[0], labels[0], lengths[1], num_classes, limit)
            shortcuts.append(score(split, name, labels[1], predicted, num_classes))
    return shortcuts


def _train_classes(
    train: NDArray[np.int64], labels: NDArray[np.int64], numbers: NDArray[np.int64], num_classes: int
) -> NDArray[np.bool_]:
    """Whether each class has a training row with each of `numbers` (n,): (n, K)."""
    return np.column_stack([np.isin(numbers, train[labels == number]) for number in range(num_classes)])


def _overlap(
    split: str,
    by: str,
    labels: NDArray[np.int64],
    train_classes: NDArray[np.bool_],
    matches: Matches,
    reverse_complements: int,
) -> Overlap:
    own = np.zeros_like(train_classes)
    own[np.arange(len(labels)), labels] = True
    of_class = np.maximum(own.sum(axis=0), 1)
    return Overlap(
        split=split,
        by=by,
        rows=len(labels),
        identical=int(train_classes.any(axis=1).sum()),
        identical_by_class=tuple(((train_classes & own).sum(axis=0) / of_class).tolist()),
        contradictory=int((train_classes & ~own).any(axis=1).sum()),
        reverse_complements=reverse_complements,
        half_in_train=float((matches.share >= 0.5).mean()),
        any_in_train=float((matches.share > 0).mean()),
    )


def _counts(labels: _Numbers, num_classes: int) -> dict[str, tuple[int, ...]]:
    return {split: tuple(np.bincount(each, minlength=num_classes).tolist()) for split, each in labels.items()}


def _repeats(labels: _Numbers, numbers: _Numbers) -> list[Repeats]:
    """Count duplicates in each split, and in all splits together."""
    together = {"all": (np.concatenate(list(labels.values())), np.concatenate(list(numbers.values())))}
    each = {split: (labels[split], numbers[split]) for split in labels}
    found = []
    for split, (label, number) in {**each, **together}.items():
        pairs = np.unique(np.column_stack([number, label]), axis=0)
        classes = np.unique(pairs[:, 0], return_counts=True)[1]  # of each distinct sequence
        found.append(Repeats(split, len(number), len(number) - len(classes), int((classes > 1).sum())))
    return found


def audit_source(source: SequenceSource, holdout: Holdout, *, k: int = 32, max_length: int | None = None) -> Audit:
    """Audit the data of a source; see `audit`.

    A genomic benchmark whose sequences are not available is audited by its interval lists. If the source has no test
    rows, its splits are cut by `holdout`, as for a training run.
    """
    source.prepare()
    if isinstance(source, GenomicBenchmark) and source.within == "official" and not source.has_sequences():
        return audit_intervals(source.load_intervals(), max_length=max_length)
    splits = source.load()
    if splits.test is None:
        cut = cut_splits(splits, holdout)
        note = f"{splits.name}: no test rows; the splits are cut as in `fit`, by {holdout.unit}"
        splits = replace(cut, notes=(*cut.notes, note))
    return audit(splits, k=k, max_length=max_length)
