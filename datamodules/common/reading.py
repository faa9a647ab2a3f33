"""Reading of text files and of CSV, TSV and Parquet tables, with errors that say why a file is unreadable."""

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
    """Return the text of a file, plain or gzip, with line feeds as line ends; bytes that are not UTF-8 become U+FFFD.

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
    """Read a table. CSV and TSV, which may be compressed, give every cell as text; Parquet keeps its types.

    Empty rows at the end are dropped. Raises InputError when the file is not a readable table.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a table, got a folder")
    try:
        if is_parquet(path):
            return pl.read_parquet(path, glob=False, hive_partitioning=False)
        _check_text(path)
        table = pl.read_csv(path, separator=_separator(path), infer_schema=False, glob=False)
        _check_separator(path, table.columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = "Parquet" if is_parquet(path) else "CSV"
        reason = str(error).partition("\n")[0] or type(error).__name__
        where = "" if is_parquet(path) or isinstance(error, OSError) else _too_many_fields(path)
        raise InputError(f"{path}: not a readable {kind} file: {where or reason}") from None
    filled = table.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    return table.head(int(np.flatnonzero(filled).max(initial=-1)) + 1)


def is_parquet(path: Path) -> bool:
    """Whether a file name has the suffix of Parquet."""
    return path.suffix.lower() == ".parquet"


def _separator(path: Path) -> str:
    return "\t" if ".tsv" in path.name.lower() else ","


def _check_text(path: Path) -> None:
    """Raise InputError for line ends or an encoding that polars would misread without an error."""
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8 text, got UTF-16")
    if beginning.isascii() and b"\r" in beginning and b"\n" not in beginning:  # compressed files are not ASCII
        raise InputError(f"{path}: lines must end with a line feed; got carriage returns alone")


def _check_separator(path: Path, header: list[str]) -> None:
    found = [each for each in _SEPARATORS if each in header[0]] if len(header) == 1 else []
    if found:
        raise InputError(f"{path}: columns must be separated by commas in .csv, tabs in .tsv; got {found[0]!r}")


def _too_many_fields(path: Path) -> str:
    """Return which line has more fields than the header, or an empty string if no line has."""
    try:
        rows = csv.reader(StringIO(read_text(path, "CSV")), delimiter=_separator(path))
        header = next(filter(None, rows), [""])
        _check_separator(path, header)
        for fields in rows:
            if len(fields) > len(header):
                return f"line {rows.line_num} has {len(fields)} fields; the header has {len(header)}"
    except csv.Error:  # a cell longer than the csv module allows
        pass
    return ""
