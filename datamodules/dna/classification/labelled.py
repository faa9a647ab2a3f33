"""Labelled sequences: as they are read, as they are kept, and what every source of them offers."""

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

_MISSING = {"NA", "N/A", "NaN", "nan", "null", "None", "<NA>"}  # as other programs write it


class Records(NamedTuple):
    """Labelled sequences as a file holds them."""

    source: str  # the file or folder
    place: Callable[[int], str]  # says where record i stands: `train.csv: line 7`
    texts: Sequence[str]
    labels: Sequence[str | None]
    groups: Sequence[str | None] | None = None  # records that no split may part share a name; None is in no group
    intervals: Intervals | None = None
    files: tuple[Path, ...] = ()  # all that were read


@dataclass(frozen=True)
class Rows:
    """The labelled sequences of one split."""

    sequences: Sequences
    labels: NDArray[np.int64]  # (n,) class numbers
    groups: NDArray[np.int64] | None = None  # (n,), see `Records`
    intervals: Intervals | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> "Rows":
        """The rows `index`, in that order."""
        return Rows(
            self.sequences.take(index),
            self.labels[index],
            None if self.groups is None else self.groups[index],
            None if self.intervals is None else self.intervals.take(index),
        )


@dataclass(frozen=True)
class IntervalRows:
    """The labelled intervals of one split, whose bases are not at hand."""

    intervals: Intervals
    labels: NDArray[np.int64]  # (n,) class numbers

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """A data set as its source splits it; what is None is left to be cut from the part before it."""

    name: str
    classes: Classes
    train: Rows
    validation: Rows | None = None
    test: Rows | None = None
    notes: tuple[str, ...] = ()  # what the user should be told once, a line each
    files: tuple[Path, ...] = ()  # that the sequences were read from


class IntervalSplits(NamedTuple):
    """Where the sequences of a data set are, without their bases."""

    name: str
    classes: Classes
    train: IntervalRows
    test: IntervalRows


class SequenceSource(Protocol):
    """Where labelled sequences come from."""

    def prepare(self) -> None:
        """Make the data available, on one process, before `load` runs on all."""

    def load(self) -> Splits:
        """Read the data; raises InputError when it is not what it should be."""


def read_splits(
    name: str,
    train: Records,
    validation: Records | None = None,
    test: Records | None = None,
    *,
    classes: Classes | None = None,
    rna: bool = False,
    notes: Sequence[str] = (),
) -> Splits:
    """Check and encode the records of a data set; `classes` are those of the training labels unless given."""
    if classes is None:
        classes = Classes.of(train.labels, train.source)
        if validation is None or test is None:  # there are rows to be cut
            classes.check_few(len(train.labels), train.source)
    given = {"train": train, "validation": validation, "test": test}
    there = {split: records for split, records in given.items() if records is not None}
    groups = dict(zip(there, _group_numbers([records.groups for records in there.values()]), strict=True))
    parts = {split: _rows(records, classes, groups[split], rna) for split, records in there.items()}
    ambiguous = sum(part.sequences.ambiguous for part in parts.values())
    notes = [*notes, *_crossing_notes(name, groups), *ambiguous_note(name, ambiguous)]
    notes += _missing_notes(name, [records.labels for records in there.values()], "class")
    notes += _missing_notes(name, [records.groups or () for records in there.values()], "group")
    alone = sum(not name for records in (train, validation, test) if records for name in records.groups or ())
    if alone:
        notes = [*notes, f"{name}: {alone} rows have no group: each is a group of its own"]
    files = tuple(path for records in (train, validation, test) if records is not None for path in records.files)
    return Splits(
        name, classes, parts["train"], parts.get("validation"), parts.get("test"), notes=tuple(notes), files=files
    )


def _rows(records: Records, classes: Classes, groups: NDArray[np.int64] | None, rna: bool) -> Rows:
    labels = classes.numbers(records.labels, records.place)
    return Rows(Sequences.read(records.texts, records.place, rna=rna), labels, groups, records.intervals)


def _group_numbers(parts: Sequence[Sequence[str | None] | None]) -> list[NDArray[np.int64] | None]:
    """A number for each group, the same in all parts; a row without a name gets one of its own."""
    names = [name or "" for part in parts for name in part or ()]
    numbers = np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    alone = [row for row, name in enumerate(names) if not name]
    numbers[alone] = len(names) + np.arange(len(alone))
    ends = np.cumsum([len(part or ()) for part in parts])[:-1]
    return [None if part is None else own for part, own in zip(parts, np.split(numbers, ends), strict=True)]


def _missing_notes(name: str, parts: Sequence[Sequence[str | None]], kind: str) -> Iterator[str]:
    """Says which words for what is missing are taken as they stand: NA is a segment of influenza's genome too."""
    counts = Counter(word for part in parts for word in part if word in _MISSING)
    for word, count in sorted(counts.items()):
        yield f"{name}: {count} rows have {word!r}, which is read as a {kind} of that name"


def _crossing_notes(name: str, groups: Mapping[str, NDArray[np.int64] | None]) -> Iterator[str]:
    """Says which splits that the source brings have rows of groups that train has too."""
    train = groups["train"]
    for split in ("validation", "test"):
        other = groups.get(split)
        if train is not None and other is not None and (count := int(np.isin(other, train).sum())):
            yield f"{name}: {count} of {len(other)} {split} rows are of groups that train has too"
