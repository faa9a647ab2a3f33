"""Labelled sequences in a table: CSV, TSV (either may be compressed) or Parquet, one row a sequence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from datamodules.common.messages import listed
from datamodules.common.reading import is_parquet, read_frame
from datamodules.dna.classification.labelled import Records, Splits, read_splits
from datamodules.dna.intervals import Intervals
from titans_seq.errors import InputError

_PLACES = {"region", "start", "end"}  # columns that are read as intervals where all are there
NOTHING = ("NA", "NaN", "nan")  # what other programs write where there is none, and would be read as DNA
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class SequenceTable:
    """A user's own tables.

    Args:
        train: the file that is trained on, and split if there is no other.
        validation, test: further files, if there are any.
        sequence, label: names of these columns.
        group: name of the column of groups that no split may part; "auto" takes `group` if there is one.
        rna: read U as T.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        *,
        sequence: str = "sequence",
        label: str = "label",
        group: str | None = None,
        rna: bool = False,
    ) -> None:
        self.train = train
        self.validation = validation
        self.test = test
        self.columns = (sequence, label, group)
        self.rna = rna

    def prepare(self) -> None:
        """Nothing to fetch."""

    def load(self) -> Splits:
        """Read and check the files."""
        train = self._records(self.train)
        others = [None if path is None else self._records(path) for path in (self.validation, self.test)]
        return read_splits(Path(self.train).name, train, *others, rna=self.rna)

    def _records(self, path: str) -> Records:
        sequence, label, group = self.columns
        return read_records(Path(path).expanduser(), sequence=sequence, label=label, group=group)


def read_records(
    path: Path,
    *,
    sequence: str = "sequence",
    label: str = "label",
    group: str | None = None,
    names: bool = False,
) -> Records:
    """The records of a table, whatever other columns it has; with `names` the column `sequence` holds names, not bases.

    Columns `region`, `start` and `end` are read as intervals where all three are there. `group="auto"` takes a column
    `group` if there is one.
    """
    table = read_table(path)
    place = locator(path)
    if group == "auto":
        group = "group" if "group" in table.columns else None
    text = sequence if names else "sequence"
    for column, key in ((sequence, text), (label, "label"), (group, "group")):
        if column is not None and column not in table.columns:
            hint = "" if names and key == text else f". Set data.{key} to one."
            raise InputError(f"{path}: no column {column!r}; found {listed(table.columns)}{hint}")
    placed = sorted(_PLACES) if _PLACES.issubset(table.columns) else []
    check_text(table, path, sequence, label, *([] if group is None else [group]), *placed)
    if not len(table):
        raise InputError(f"{path}: no rows below the header")
    texts = table[sequence].str.strip_chars()
    missing = texts.is_null() if names else texts.is_null() | texts.is_in(NOTHING)
    if missing.any():
        row = int(missing.arg_max() or 0)
        written = f" ({texts[row]})" if texts[row] else ""
        raise InputError(f"{place(row)}: no {text}{written}; {missing.sum()} rows have none")
    return Records(
        str(path),
        place,
        texts.to_list(),
        table[label].str.strip_chars().to_list(),
        None if group is None else table[group].str.strip_chars().to_list(),
        read_intervals(table, place) if placed else None,
        (path,),
    )


def read_table(path: Path) -> pl.DataFrame:
    """All columns of a table, as text; those of Parquet that are none, such as lists, as they are."""
    table = read_frame(path)
    return table.with_columns(_as_text(column) for column in table)


def check_text(table: pl.DataFrame, path: Path, *columns: str) -> None:
    """Raise InputError for one of the columns of a table that could not be read as text."""
    for column in columns:
        if table[column].dtype != pl.String:
            raise InputError(f"{path}: column {column!r} holds {table[column].dtype}; needed: text or numbers")


def _as_text(column: pl.Series) -> pl.Series:
    try:
        return (column.fill_nan(None) if column.dtype.is_float() else column).cast(pl.String)
    except pl.exceptions.PolarsError:
        return column


def locator(path: Path) -> Callable[[int], str]:
    """Says where row `i` of a table stands: lines as an editor counts them, header included."""
    if is_parquet(path):
        return lambda row: f"{path}: row {row}"
    return lambda row: f"{path}: line {row + 2}"


def read_intervals(table: pl.DataFrame, place: Callable[[int], str]) -> Intervals:
    """Intervals of the columns `region`, `start`, `end` and, if it is there, `strand` of a table of text.

    An empty strand and `.` are read as `+`, as the official lists want it.
    """
    edges = []
    for column in ("start", "end"):
        numbers = table[column].str.strip_chars().cast(pl.Int64, strict=False)
        if numbers.null_count():
            row = int(numbers.is_null().arg_max() or 0)
            raise InputError(f"{place(row)}: {column} is {table[column][row]!r}, which is no whole number")
        edges.append(numbers.to_numpy())
    starts, ends = edges
    wrong = (starts < 0) | (ends <= starts)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{place(row)}: an interval from {starts[row]} to {ends[row]}; needed: 0 <= start < end (0-based, end not "
            f"included); {wrong.sum()} such rows"
        )
    regions = table["region"].str.strip_chars().fill_null("")  # "chr8 " would not be held out with chr8
    if (regions == "").any():
        raise InputError(f"{place(int((regions == '').arg_max() or 0))}: no region")
    minus = np.zeros(len(table), dtype=np.bool_)
    if "strand" in table.columns:
        strands = table["strand"].str.strip_chars().fill_null("")
        known = strands.is_in(["+", "-", ".", ""])
        if not known.all():
            row = int((~known).arg_max() or 0)
            raise InputError(f"{place(row)}: strand {strands[row]!r}; needed: +, - or empty")
        minus = (strands == "-").to_numpy()
    return Intervals(regions.to_numpy().astype(np.str_), starts, ends, minus)
