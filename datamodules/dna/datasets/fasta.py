"""A user's own sequences: FASTA files with labels in a table or in the headers, or windows of a genome from BED."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datamodules.common.reading import read_text
from datamodules.dna.classification.labelled import RawRecords, Splits, read_splits
from datamodules.dna.datasets.table import read_records
from datamodules.dna.genome import Genome, OutOfBounds
from datamodules.dna.intervals import Intervals
from titans_seq.errors import InputError

_STRANDS = {"+", "-", "1", "-1"}  # 1 and -1 are Ensembl's notation
HEADER_LABEL = r"\blabel=(\S+)"  # default pattern of a label in a header


class LabelledFasta:
    """FASTA files, one sequence per record.

    Args:
        train: the file to train on; the splits without a file of their own are cut from it.
        validation, test: files of these splits, None if there are none.
        labels: a table of the records of all files: columns `id` (the header up to its first blank), `label` and, to
            split by them, a group or region, start and end; see `read_records`. None takes the labels from the headers.
        header_label: regular expression whose first group is the label of a header.
        label, group: names of these columns; see `SequenceTable`.
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
        label: str = "label",
        group: str | None = None,
        rna: bool = False,
    ) -> None:
        self.train = train
        self.validation = validation
        self.test = test
        self.labels = labels
        self.columns = (label, group)
        try:
            self.pattern = re.compile(header_label)
        except re.error as error:
            raise InputError(f"data.header_label={header_label!r} is not a valid regular expression: {error}") from None
        if not self.pattern.groups:
            raise InputError(f"data.header_label={header_label!r} has no group: put the label in (parentheses)")
        self.rna = rna

    def prepare(self) -> None:
        """No download is needed."""

    def load(self) -> Splits:
        """Read and check the files."""
        table = None if self.labels is None else _LabelTable(Path(self.labels).expanduser(), *self.columns)
        train = self._records(self.train, table)
        others = [None if path is None else self._records(path, table) for path in (self.validation, self.test)]
        return read_splits(Path(self.train).name, train, *others, rna=self.rna)

    def _records(self, file: str, table: "_LabelTable | None") -> RawRecords:
        path = Path(file).expanduser()
        headers, texts = read_fasta(path)
        names = [header.split(maxsplit=1)[0] for header in headers]
        records = RawRecords(str(path), lambda row: f"{path}: record {names[row]!r}", texts, [], files=(path,))
        return (
            records._replace(labels=self._header_labels(path, headers)) if table is None else table.join(records, names)
        )

    def _header_labels(self, path: Path, headers: list[str]) -> list[str]:
        """Label in each header."""
        found = [self.pattern.search(header) for header in headers]
        wrong = [header for header, match in zip(headers, found, strict=True) if not (match and match[1])]
        if wrong:
            raise InputError(
                f"{path}: header {wrong[0]!r} has no label that matches data.header_label={self.pattern.pattern!r}; "
                f"{len(wrong)} of {len(headers)} headers. Change the pattern, or set data.labels to a table of labels."
            )
        return [match[1] for match in found if match]


class _LabelTable:
    """Labels, groups and intervals of FASTA records, from a table by record name."""

    def __init__(self, path: Path, label: str, group: str | None) -> None:
        self.table = read_records(path, sequence="id", label=label, group=group, names=True)
        self.rows: dict[str, int] = {}
        intervals = [":".join(map(str, each)) for each in zip(*self.table.intervals or (), strict=True)]
        for row, name in enumerate(self.table.texts):
            before = self.rows.setdefault(name, row)
            for column in (self.table.labels, self.table.groups or (), intervals):
                if column and column[row] != column[before]:
                    raise InputError(
                        f"{self.table.locate(row)}: duplicate id {name!r} with {column[row]!r}; an earlier row has "
                        f"{column[before]!r}"
                    )

    def join(self, records: RawRecords, names: list[str]) -> RawRecords:
        """Add the labels, groups and intervals of the table to the records of these names."""
        missing = [name for name in names if name not in self.rows]
        if missing:
            raise InputError(
                f"{records.source}: record {missing[0]!r} has no row in {self.table.source}; {len(missing)} of "
                f"{len(names)} records"
            )
        rows = [self.rows[name] for name in names]
        groups, intervals = self.table.groups, self.table.intervals
        return records._replace(
            labels=[self.table.labels[row] for row in rows],
            groups=None if groups is None else [groups[row] for row in rows],
            intervals=None if intervals is None else intervals.take(np.array(rows)),
            files=(*records.files, *self.table.files),
        )


class BedWindows:
    """Windows of a genome, labelled by BED files; to be split by chromosome.

    Args:
        fasta: the genome, uncompressed.
        bed: one file whose fourth column (name) is the label, or a file per class.
        length: bases of every window, around the middle of its interval; None takes the intervals as they are.
        out_of_bounds: what to do with windows that extend past a chromosome's ends; see `Genome.texts`.
        aliases: see `Genome`; regions then get the names that the genome has.
        rna: read U as T.
    """

    def __init__(
        self,
        fasta: str,
        bed: str | Mapping[str, str],
        *,
        length: int | None = None,
        out_of_bounds: OutOfBounds = "refuse",
        aliases: bool = False,
        rna: bool = False,
    ) -> None:
        if length is not None and length < 1:
            raise InputError(f"data.length must be at least 1; got {length}")
        self.fasta = fasta
        self.beds = {None: bed} if isinstance(bed, str) else dict(bed)
        self.length = length
        self.out_of_bounds: OutOfBounds = out_of_bounds
        self.aliases = aliases
        self.rna = rna

    def prepare(self) -> None:
        """No download is needed."""

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
        texts = genome.texts(intervals, places.__getitem__, out_of_bounds=self.out_of_bounds, rna=self.rna)
        # One chromosome must not be held out under one name and trained on under another.
        intervals = intervals._replace(regions=genome.own_names(intervals.regions))
        source = ", ".join(map(str, self.beds.values()))
        files = tuple(Path(file).expanduser() for file in (self.fasta, *self.beds.values()))
        records = RawRecords(source, places.__getitem__, texts, labels, None, intervals, files)
        return read_splits(Path(self.fasta).name, records, rna=self.rna)


def read_fasta(path: Path) -> tuple[list[str], list[str]]:
    """Read headers (without `>`) and sequences of a FASTA file, which may be gzipped.

    Raises InputError for text before the first header, a header without a name and a record without a sequence.
    """
    text = read_text(path, "FASTA").lstrip()
    if not text.startswith(">"):
        raise InputError(f"{path}: begins with {text[:20]!r}; expected '>' and a name")
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
    """Read locations in the file, intervals and names (None if missing) of a BED file, which may be gzipped.

    Raises InputError for a line that is not an interval, and with `labelled` for one without a name.
    """
    places, regions, edges, strands = [], [], [], []
    names: list[str | None] = []
    for number, line in enumerate(read_text(path, "BED").split("\n"), 1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        place = f"{path}: line {number}"
        fields = line.split("\t") if "\t" in line else line.split()
        start, end = (int(f) if f.strip().isdecimal() else -1 for f in (*fields[1:3], "", "")[:2])
        if not 0 <= start < end:
            raise InputError(
                f"{place}: expected chromosome, start, end with 0 <= start < end (0-based); got {line[:60]!r}"
            )
        if labelled and len(fields) < 4:
            raise InputError(
                f"{place}: no fourth column (name) for the label; add it, or set data.bed to one file per class"
            )
        places.append(place)
        regions.append(fields[0])
        edges.append((start, end))
        names.append(fields[3].strip() if len(fields) > 3 else None)
        strands.append(fields[5].strip() if len(fields) > 5 else "")
    if not places:
        raise InputError(f"{path}: no intervals")
    if _STRANDS & set(strands):  # otherwise the sixth column is not a strand
        wrong = [row for row, strand in enumerate(strands) if strand not in ("+", "-", ".", "")]
        if wrong:
            raise InputError(
                f"{places[wrong[0]]}: strand {strands[wrong[0]]!r} in the sixth column; expected +, - or ."
            )
    starts, ends = np.array(edges, dtype=np.int64).T
    return places, Intervals(np.array(regions), starts, ends, np.array(strands) == "-"), names
