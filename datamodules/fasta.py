"""A user's own sequences: FASTA files with labels in a table or in the headers, or windows of a genome named in BED."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from datamodules.genome import Beyond, Genome
from datamodules.labelled import Intervals, Records, Splits, read_splits
from datamodules.messages import shown
from datamodules.tables import placer, read_table
from datamodules.text_files import read_text
from titans_seq.errors import InputError

HEADER_LABEL = r"\blabel=(\S+)"  # a label in a header, unless told otherwise


class LabelledFasta:
    """FASTA files, a record a sequence.

    Args:
        train: the file that is trained on, and split if there is no other.
        validation, test: further files, if there are any.
        labels: a table with columns `id` (the header up to its first blank) and `label`, of all files; None takes the
            labels from the headers.
        header_label: regular expression whose first group is the label of a header.
        rna: read U as T.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        *,
        labels: str | None = None,
        header_label: str = HEADER_LABEL,
        rna: bool = False,
    ) -> None:
        self.train = train
        self.validation = validation
        self.test = test
        self.labels = labels
        try:
            self.pattern = re.compile(header_label)
        except re.error as error:
            raise InputError(f"data.header_label={header_label!r} is no regular expression: {error}") from None
        if not self.pattern.groups:
            raise InputError(f"data.header_label={header_label!r} has no group: put the label's part in (brackets)")
        self.rna = rna

    def prepare(self) -> None:
        """Nothing to fetch."""

    def load(self) -> Splits:
        """Read and check the files."""
        table = None if self.labels is None else _label_table(Path(self.labels).expanduser())
        train = self._records(self.train, table)
        others = [None if path is None else self._records(path, table) for path in (self.validation, self.test)]
        return read_splits(Path(self.train).name, train, *others, rna=self.rna)

    def _records(self, file: str, table: dict[str, str | None] | None) -> Records:
        path = Path(file).expanduser()
        headers, texts = read_fasta(path)
        names = [header.split(maxsplit=1)[0] for header in headers]
        labels: list[str | None] = []
        if table is not None:
            missing = [name for name in names if name not in table]
            if missing:
                raise InputError(
                    f"{path}: record {missing[0]!r} has no row in {self.labels}; {len(missing)} of {len(names)} records"
                )
            labels = [table[name] for name in names]
        else:
            found = [self.pattern.search(header) for header in headers]
            wrong = [header for header, match in zip(headers, found, strict=True) if not (match and match[1])]
            if wrong:
                raise InputError(
                    f"{path}: header {wrong[0]!r} has no label by data.header_label={self.pattern.pattern!r}; "
                    f"{len(wrong)} of {len(headers)} headers. Or name a table of labels in data.labels."
                )
            labels = [match[1] for match in found if match]
        files = (path,) if self.labels is None else (path, Path(self.labels).expanduser())
        return Records(str(path), lambda row: f"{path}: record {names[row]!r}", texts, labels, files=files)


class BedWindows:
    """Windows of a genome, labelled by BED files; split them by chromosome.

    Args:
        fasta: the genome, not compressed.
        bed: one file whose fourth column (name) is the label, or a file for every class.
        length: bases of every window, around the middle of its interval; None takes the intervals as they are.
        beyond: what to do with windows that reach over a chromosome's ends.
        aliases: see `Genome`; regions are then called as the genome calls them.
        rna: read U as T.
    """

    def __init__(
        self,
        fasta: str,
        bed: str | Mapping[str, str],
        *,
        length: int | None = None,
        beyond: Beyond = "refuse",
        aliases: bool = False,
        rna: bool = False,
    ) -> None:
        if length is not None and length < 1:
            raise InputError(f"data.length must be at least 1; got {length}")
        self.fasta = fasta
        self.beds = {None: bed} if isinstance(bed, str) else dict(bed)
        self.length = length
        self.beyond: Beyond = beyond
        self.aliases = aliases
        self.rna = rna

    def prepare(self) -> None:
        """Nothing to fetch."""

    def load(self) -> Splits:
        """Read and check the intervals, then their bases."""
        places: list[str] = []
        labels: list[str | None] = []
        parts = []
        for label, file in self.beds.items():
            lines, intervals, names = read_bed(Path(file).expanduser(), labelled=label is None)
            places += lines
            labels += names if label is None else [label] * len(names)
            parts.append(intervals)
        intervals = Intervals.joined(parts)
        if self.length is not None:
            starts = (intervals.starts + intervals.ends) // 2 - self.length // 2
            intervals = intervals._replace(starts=starts, ends=starts + self.length)
        genome = Genome(Path(self.fasta).expanduser(), aliases=self.aliases)
        texts = genome.texts(intervals, places.__getitem__, beyond=self.beyond)
        # One chromosome must not be held out under one name and trained on under another.
        intervals = intervals._replace(regions=genome.own_names(intervals.regions))
        source = ", ".join(map(str, self.beds.values()))
        files = tuple(Path(file).expanduser() for file in (self.fasta, *self.beds.values()))
        records = Records(source, places.__getitem__, texts, labels, None, intervals, files)
        return read_splits(Path(self.fasta).name, records, rna=self.rna)


def read_fasta(path: Path) -> tuple[list[str], list[str]]:
    """Headers (without `>`) and sequences of a FASTA file, which may be compressed by gzip.

    Raises InputError for text before the first header, a header without a name and a record without a sequence.
    """
    text = read_text(path, "FASTA").lstrip()
    if not text.startswith(">"):
        raise InputError(f"{path}: begins with {text[:20]!r}; a FASTA file begins with '>' and a name")
    headers, texts = [], []
    for number, record in enumerate(text[1:].split("\n>"), 1):
        header, _, body = record.partition("\n")
        sequence = "".join(body.split())
        if not header.strip():
            raise InputError(f"{path}: record {number}: '>' without a name")
        if not sequence:
            raise InputError(f"{path}: record {number}, {header.strip()!r}: a header without a sequence. Remove it.")
        headers.append(header.strip())
        texts.append(sequence)
    return headers, texts


def read_bed(path: Path, *, labelled: bool) -> tuple[list[str], Intervals, list[str | None]]:
    """Places in the file, intervals, and names (None where there is none) of the lines of a BED file, gzipped or not.

    Raises InputError for a line that is no interval, and for one without a name if they are to be `labelled`.
    """
    places, regions, edges, minus = [], [], [], []
    names: list[str | None] = []
    for number, line in enumerate(read_text(path, "BED").split("\n"), 1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        place = f"{path}: line {number}"
        fields = line.split("\t") if "\t" in line else line.split()
        start, end = (int(f) if f.strip().isdecimal() else -1 for f in (*fields[1:3], "", "")[:2])
        if not 0 <= start < end:
            raise InputError(f"{place}: {line[:60]!r}; needed: chromosome, start, end with 0 <= start < end (0-based)")
        if labelled and len(fields) < 4:
            raise InputError(
                f"{place}: no fourth column (name), which is the label. Or set data.bed to a file a class."
            )
        places.append(place)
        regions.append(fields[0])
        edges.append((start, end))
        names.append(fields[3].strip() if len(fields) > 3 else None)
        minus.append(len(fields) > 5 and fields[5].strip() == "-")
    if not places:
        raise InputError(f"{path}: no intervals")
    starts, ends = np.array(edges, dtype=np.int64).T
    return places, Intervals(np.array(regions), starts, ends, np.array(minus)), names


def _label_table(path: Path) -> dict[str, str | None]:
    """Label of every id."""
    table, place = read_table(path), placer(path)
    missing = {"id", "label"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}; found {shown(table.columns)}")
    labels: dict[str, str | None] = {}
    for row, (name, label) in enumerate(table.select(pl.col("id", "label").str.strip_chars()).iter_rows()):
        if labels.get(name, label) != label:
            raise InputError(f"{place(row)}: id {name!r} again, as {label!r}; before it was {labels[name]!r}")
        labels[name] = label
    return labels
