"""Labelled sequences: raw records as read, encoded examples of a split, and the interface of their sources."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.common.messages import ambiguous_note
from datamodules.dna.classification.classes import Classes
from datamodules.dna.intervals import Intervals
from datamodules.dna.sequences import Sequences

_MISSING = {"NA", "N/A", "NaN", "nan", "null", "None", "<NA>"}  # markers for missing values that other programs write


class RawRecords(NamedTuple):
    """Labelled sequences as read from a file, before they are encoded."""

    source: str  # the file or folder
    locate: Callable[[int], str]  # returns the location of record i, for messages: `train.csv: line 7`
    texts: Sequence[str]
    labels: Sequence[str | None]
    groups: Sequence[str | None] | None = None  # records of one group stay in one split; None is in no group
    intervals: Intervals | None = None
    files: tuple[Path, ...] = ()  # that were read


@dataclass(frozen=True)
class Examples:
    """Labelled sequences of one split, one per row."""

    sequences: Sequences
    labels: NDArray[np.int64]  # (n,) class numbers
    groups: NDArray[np.int64] | None = None  # (n,), see `RawRecords`
    intervals: Intervals | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> "Examples":
        """The rows `index`, in that order."""
        return Examples(
            self.sequences.take(index),
            self.labels[index],
            None if self.groups is None else self.groups[index],
            None if self.intervals is None else self.intervals.take(index),
        )


@dataclass(frozen=True)
class IntervalExamples:
    """Labelled intervals of one split, without their bases."""

    intervals: Intervals
    labels: NDArray[np.int64]  # (n,) class numbers

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """A dataset as its source splits it; splits that are None are still to be cut from the training rows."""

    name: str
    classes: Classes
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None
    notes: tuple[str, ...] = ()  # messages for the user, one line each
    files: tuple[Path, ...] = ()  # that the sequences were read from


class IntervalSplits(NamedTuple):
    """Splits of a dataset as intervals on a genome, without their bases."""

    name: str
    classes: Classes
    train: IntervalExamples
    test: IntervalExamples


class SequenceSource(Protocol):
    """Source of labelled sequences."""

    def prepare(self) -> None:
        """Download the data if needed, in one process, before `load` runs in all."""

    def load(self) -> Splits:
        """Read the data; raises InputError if they are invalid."""


def read_splits(
    name: str,
    train: RawRecords,
    validation: RawRecords | None = None,
    test: RawRecords | None = None,
    *,
    classes: Classes | None = None,
    rna: bool = False,
    notes: Sequence[str] = (),
) -> Splits:
    """Check and encode the records of a dataset; by default, `classes` are those of the training labels."""
    if classes is None:
        classes = Classes.of(train.labels, train.source)
        if validation is None or test is None:  # splits will be cut from these rows
            classes.check_few(len(train.labels), train.source)
    given = {"train": train, "validation": validation, "test": test}
    there = {split: records for split, records in given.items() if records is not None}
    groups = dict(zip(there, _group_numbers([records.groups for records in there.values()]), strict=True))
    parts = {split: _encode(records, classes, groups[split], rna) for split, records in there.items()}
    ambiguous = sum(part.sequences.ambiguous for part in parts.values())
    notes = [*notes, *_crossing_notes(name, groups), *ambiguous_note(name, ambiguous)]
    notes += _missing_notes(name, [records.labels for records in there.values()], "class")
    notes += _missing_notes(name, [records.groups or () for records in there.values()], "group")
    alone = sum(not name for records in (train, validation, test) if records for name in records.groups or ())
    if alone:
        notes = [*notes, f"{name}: {alone} rows have no group; each is a group of its own"]
    files = tuple(path for records in (train, validation, test) if records is not None for path in records.files)
    return Splits(
        name, classes, parts["train"], parts.get("validation"), parts.get("test"), notes=tuple(notes), files=files
    )


def _encode(records: RawRecords, classes: Classes, groups: NDArray[np.int64] | None, rna: bool) -> Examples:
    labels = classes.numbers(records.labels, records.locate)
    return Examples(Sequences.read(records.texts, records.locate, rna=rna), labels, groups, records.intervals)


def _group_numbers(parts: Sequence[Sequence[str | None] | None]) -> list[NDArray[np.int64] | None]:
    """Number the groups, equally in all parts; a row without a group gets a number of its own."""
    names = [name or "" for part in parts for name in part or ()]
    numbers = np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    alone = [row for row, name in enumerate(names) if not name]
    numbers[alone] = len(names) + np.arange(len(alone))
    ends = np.cumsum([len(part or ()) for part in parts])[:-1]
    return [None if part is None else own for part, own in zip(parts, np.split(numbers, ends), strict=True)]


def _missing_notes(name: str, parts: Sequence[Sequence[str | None]], kind: str) -> Iterator[str]:
    """Notes on missing-value markers that are read as names: NA is also a segment of the influenza genome."""
    counts = Counter(word for part in parts for word in part if word in _MISSING)
    for word, count in sorted(counts.items()):
        yield f"{name}: {count} rows have {word!r}, which is read as a {kind} of that name"


def _crossing_notes(name: str, groups: Mapping[str, NDArray[np.int64] | None]) -> Iterator[str]:
    """Notes on groups that occur in train and in another split of the source."""
    train = groups["train"]
    for split in ("validation", "test"):
        other = groups.get(split)
        if train is not None and other is not None and (count := int(np.isin(other, train).sum())):
            yield f"{name}: {count} of {len(other)} {split} rows are of groups that also occur in train"
