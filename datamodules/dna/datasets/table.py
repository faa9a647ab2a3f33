"""Labelled sequences in a table: CSV, TSV (either may be compressed) or Parquet, one sequence per row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from datamodules.common.messages import listed
from datamodules.common.reading import is_parquet, read_frame
from datamodules.dna.classification.labelled import RawRecords, Splits, read_splits
from datamodules.dna.intervals import Intervals
from titans_seq.errors import InputError

_INTERVAL_COLUMNS = {"region", "start", "end"}  # read as intervals if all are there
MISSING_VALUES = ("NA", "NaN", "nan")  # markers of other programs, whose letters would pass as DNA
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class SequenceTable:
    """A user's own tables.

    Args:
        train: the file to train on; the splits without a file of their own are cut from it.
        validation, test: files of these splits, None if there are none.
        sequence, label: names of these columns.
        group: name of the column of groups, which stay whole in every split; "auto" takes `group` if there is one.
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
        """No download is needed."""

    def load(self) -> Splits:
        """Read and check the files."""
        train = self._records(self.train)
        others = [None if path is None else self._records(path) for path in (self.validation, self.test)]
        return read_splits(Path(self.train).name, train, *others, rna=self.rna)

    def _records(self, path: str) -> RawRecords:
        sequence, label, group = self.columns
        return read_records(Path(path).expanduser(), sequence=sequence, label=label, group=group)


def read_records(
    path: Path,
    *,
    sequence: str = "sequence",
    label: str = "label",
    group: str | None = None,
    names: bool = False,
) -> RawRecords:
    """Read the records of a table; other columns are ignored. With `names` the column `sequence` has names, not bases.

    Columns `region`, `start` and `end` are read as intervals where all three are there. `group="auto"` takes a column
    `group` if there is one.
    """
    table = read_sequence_table(path)
    locate = locator(path)
    if group == "auto":
        group = "group" if "group" in table.columns else None
    text = sequence if names else "sequence"
    for column, key in ((sequence, text), (label, "label"), (group, "group")):
        if column is not None and column not in table.columns:
            hint = "" if names and key == text else f". Set data.{key} to one."
            raise InputError(f"{path}: no column {column!r}; found {listed(table.columns)}{hint}")
    interval_columns = sorted(_INTERVAL_COLUMNS) if _INTERVAL_COLUMNS.issubset(table.columns) else []
    check_text(table, path, sequence, label, *([] if group is None else [group]), *interval_columns)
    if not len(table):
        raise InputError(f"{path}: no rows below the header")
    texts = table[sequence].str.strip_chars()
    missing = texts.is_null() if names else texts.is_null() | texts.is_in(MISSING_VALUES)
    if missing.any():
        row = int(missing.arg_max() or 0)
        written = f" ({texts[row]})" if texts[row] else ""
        raise InputError(f"{locate(row)}: no {text}{written}; {missing.sum()} rows have none")
    return RawRecords(
        str(path),
        locate,
        texts.to_list(),
        table[label].str.strip_chars().to_list(),
        None if group is None else table[group].str.strip_chars().to_list(),
        read_intervals(table, locate) if interval_columns else None,
        (path,),
    )


def read_sequence_table(path: Path) -> pl.DataFrame:
    """Read a table with all columns as text, except columns of Parquet that cannot be converted, such as lists."""
    table = read_frame(path)
    return table.with_columns(_as_text(column) for column in table)


def check_text(table: pl.DataFrame, path: Path, *columns: str) -> None:
    """Raise InputError if one of the columns of a table could not be read as text."""
    for column in columns:
        if table[column].dtype != pl.String:
            raise InputError(f"{path}: column {column!r} holds {table[column].dtype}; expected text or numbers")


def _as_text(column: pl.Series) -> pl.Series:
    try:
        return (column.fill_nan(None) if column.dtype.is_float() else column).cast(pl.String)
    except pl.exceptions.PolarsError:
        return column


def locator(path: Path) -> Callable[[int], str]:
    """Return a function from row number to location, for messages: lines as in an editor, header included."""
    if is_parquet(path):
        return lambda row: f"{path}: row {row}"
    return lambda row: f"{path}: line {row + 2}"


def read_intervals(table: pl.DataFrame, locate: Callable[[int], str]) -> Intervals:
    """Read the columns `region`, `start`, `end` and, if there is one, `strand` of a table of text as intervals.

    An empty strand and `.` are read as `+`, as in the official code of GenomicBenchmarks.
    """
    edges = []
    for column in ("start", "end"):
        numbers = table[column].str.strip_chars().cast(pl.Int64, strict=False)
        if numbers.null_count():
            row = int(numbers.is_null().arg_max() or 0)
            raise InputError(f"{locate(row)}: {column} is {table[column][row]!r}; expected a whole number")
        edges.append(numbers.to_numpy())
    starts, ends = edges
    wrong = (starts < 0) | (ends <= starts)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{locate(row)}: interval from {starts[row]} to {ends[row]}; expected 0 <= start < end (0-based, end not "
            f"included); {wrong.sum()} such rows"
        )
    regions = table["region"].str.strip_chars().fill_null("")  # "chr8 " would not be held out with chr8
    if (regions == "").any():
        raise InputError(f"{locate(int((regions == '').arg_max() or 0))}: no region")
    minus = np.zeros(len(table), dtype=np.bool_)
    if "strand" in table.columns:
        strands = table["strand"].str.strip_chars().fill_null("")
        valid = strands.is_in(["+", "-", ".", ""])
        if not valid.all():
            row = int((~valid).arg_max() or 0)
            raise InputError(f"{locate(row)}: strand {strands[row]!r}; expected +, -, . or empty")
        minus = (strands == "-").to_numpy()
    return Intervals(regions.to_numpy().astype(np.str_), starts, ends, minus)
