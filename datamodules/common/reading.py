"""Tables as others wrote them, CSV, TSV or Parquet, and what is wrong with one that cannot be read."""

import csv
import gzip
import zlib
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl

from titans_seq.errors import InputError

_GZIP = b"\x1f\x8b"


def read_text(path: Path, kind: str) -> str:
    """The text of a file, its lines ended by a line feed alone; a byte that is no UTF-8 becomes U+FFFD.

    Raises InputError, naming the `kind` of file, when it cannot be read.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable {kind} file: {error}") from None
    return content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")


_SEPARATORS = ";\t,|"


def read_frame(path: Path) -> pl.DataFrame:
    """The table in a file: of CSV and TSV, either may be compressed, every cell as text; Parquet as it is.

    Empty lines at the end of a CSV file are dropped. Raises InputError when it is no such file.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; needed: a table")
    try:
        if is_parquet(path):
            return pl.read_parquet(path, glob=False, hive_partitioning=False)
        _check_text(path)
        table = pl.read_csv(path, separator=_separator(path), infer_schema=False, glob=False)
        _check_separator(path, table.columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = "Parquet" if is_parquet(path) else "CSV"
        reason = str(error).partition("\n")[0] or type(error).__name__
        where = "" if is_parquet(path) or isinstance(error, OSError) else _what_is_wrong(path)
        raise InputError(f"{path}: not a readable {kind} file: {where or reason}") from None
    filled = table.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    return table.head(int(np.flatnonzero(filled).max(initial=-1)) + 1)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its name."""
    return path.suffix.lower() == ".parquet"


def _separator(path: Path) -> str:
    return "\t" if ".tsv" in path.name.lower() else ","


def _check_text(path: Path) -> None:
    """Raise InputError for text that polars would take for one row, or for letters of no alphabet."""
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: is text in UTF-16; needed: UTF-8")
    if beginning.isascii() and b"\r" in beginning and b"\n" not in beginning:  # what is compressed is not ASCII
        raise InputError(f"{path}: its lines end with a carriage return alone; needed: line feeds")


def _check_separator(path: Path, header: list[str]) -> None:
    found = [each for each in _SEPARATORS if each in header[0]] if len(header) == 1 else []
    if found:
        raise InputError(f"{path}: its columns look separated by {found[0]!r}; needed: commas in .csv, tabs in .tsv")


def _what_is_wrong(path: Path) -> str:
    """Says which line has more fields than the header; empty where something else is wrong."""
    try:
        rows = csv.reader(StringIO(read_text(path, "CSV")), delimiter=_separator(path))
        header = next(filter(None, rows), [""])
        _check_separator(path, header)
        for fields in rows:
            if len(fields) > len(header):
                return f"line {rows.line_num} has {len(fields)} fields, the header {len(header)}"
    except csv.Error:  # a cell too long for this module
        pass
    return ""
