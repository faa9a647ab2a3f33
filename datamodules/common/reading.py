"""Reading of text files and of CSV, TSV and Parquet tables, with errors that say why a file is unreadable."""

import csv
import gzip
import zlib
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import polars as pl

from titans_seq.errors import InputError

_GZIP = b"\x1f\x8b"


class NotUtf8Error(InputError):
    """A text table is not UTF-8."""


def read_text(path: Path, kind: str, encoding: str | None = None) -> str:
    """Return the text of a file, plain or gzip, with line feeds as line ends.

    Bytes that are not UTF-8 become U+FFFD; those that are not of a given `encoding` are an error. Raises InputError,
    naming the `kind` of file, when it cannot be read.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        text = content.decode(encoding) if encoding else content.decode("utf-8-sig", "replace")
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise InputError(f"{path}: not a readable {kind} file: {error}") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


_SEPARATORS = ";\t,|"


def read_frame(path: Path, separator: str | None = None, encoding: str | None = None) -> pl.DataFrame:
    """Read a table. CSV and TSV, which may be compressed, give every cell as text; Parquet keeps its types.

    Empty rows at the end are dropped. Raises InputError when the file is not a readable table.

    Args:
        path: the file.
        separator: of the columns; None is a tab for .tsv, else a comma.
        encoding: a codec of Python; None is UTF-8.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a table, got a folder")
    separator = separator or default_separator(path)
    try:
        if is_parquet(path):
            return pl.read_parquet(path, glob=False, hive_partitioning=False)
        source: Path | BytesIO = path
        if encoding is None:
            _check_text(path)
        else:
            source = BytesIO(read_text(path, "CSV", encoding).encode())
        table = pl.read_csv(source, separator=separator, infer_schema=False, glob=False)
        _check_header(path, table.columns, separator)
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = "Parquet" if is_parquet(path) else "CSV"
        reason = str(error).partition("\n")[0] or type(error).__name__
        if kind == "CSV" and "utf-8" in reason:
            raise NotUtf8Error(f"{path}: expected UTF-8 text, got bytes that are not") from None
        where = "" if kind == "Parquet" or isinstance(error, OSError) else _too_many_fields(path, separator, encoding)
        raise InputError(f"{path}: not a readable {kind} file: {where or reason}") from None
    filled = table.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    return table.head(int(np.flatnonzero(filled).max(initial=-1)) + 1)


def is_parquet(path: Path) -> bool:
    """Whether a file name has the suffix of Parquet."""
    return path.suffix.lower() == ".parquet"


def default_separator(path: Path) -> str:
    """Return the separator that a file name stands for: a tab for .tsv, else a comma."""
    return "\t" if ".tsv" in path.name.lower() else ","


def _check_text(path: Path) -> None:
    """Raise InputError for line ends or an encoding that polars would misread without an error."""
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8 text, got UTF-16")
    if beginning.isascii() and b"\r" in beginning and b"\n" not in beginning:  # compressed files are not ASCII
        raise InputError(f"{path}: lines must end with a line feed; got carriage returns alone")


def _check_header(path: Path, header: list[str], separator: str) -> None:
    """Raise InputError for another separator, and for names that are not UTF-8: polars replaces their bytes."""
    found = [each for each in _SEPARATORS if each in header[0]] if len(header) == 1 else []
    if found and separator == default_separator(path):
        raise InputError(f"{path}: columns must be separated by commas in .csv, tabs in .tsv; got {found[0]!r}")
    if found:
        raise InputError(f"{path}: columns must be separated by {separator!r}; got {found[0]!r}")
    if any("\ufffd" in name for name in header):
        raise NotUtf8Error(f"{path}: expected UTF-8 text, got a header with bytes that are not")


def _too_many_fields(path: Path, separator: str, encoding: str | None) -> str:
    """Return which line has more fields than the header, or an empty string if no line has."""
    try:
        rows = csv.reader(StringIO(read_text(path, "CSV", encoding)), delimiter=separator)
        header = next(filter(None, rows), [""])
        _check_header(path, header, separator)
        for fields in rows:
            if len(fields) > len(header):
                return f"line {rows.line_num} has {len(fields)} fields; the header has {len(header)}"
    except csv.Error:  # a cell longer than the csv module allows
        pass
    return ""
