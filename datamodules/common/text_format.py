"""How a text table is written: separator and encoding, set by its user or found from its first lines."""

import codecs
import csv
import gzip
import zlib
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from datamodules.common.reading import default_separator, is_parquet

_SEPARATORS = ";\t,|"
_LINES = 100  # first lines that tell the separator
_BYTES = 1 << 16  # that are read to find it
_BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TextFormat(NamedTuple):
    """How a CSV file is written. None: found from the file, where only one answer is possible."""

    separator: str | None = None  # between the columns
    encoding: str | None = None  # a codec of Python; not found, UTF-8, unless a byte order mark names another one
    decimal: str | None = None  # "." or ","
    thousands: str | None = None  # "," "." "space" or "apostrophe"


def find_text_format(path: Path, text_format: TextFormat) -> tuple[TextFormat, list[str]]:
    """Return the format with the separator and encoding of a file, and notes on what was found.

    What is set stays. What is usual, or cannot be told, is left to `read_frame`.
    """
    if is_parquet(path):
        return text_format, []
    try:
        beginning = _beginning(path)
    except (OSError, EOFError, zlib.error):  # `read_frame` says why
        return text_format, []
    notes = []
    marks = (name for mark, name in _BYTE_ORDER_MARKS.items() if beginning.startswith(mark))
    if text_format.encoding is None and (encoding := next(marks, None)):
        text_format = text_format._replace(encoding=encoding)
        notes.append(f"{path}: read as {encoding.upper()} (data.encoding)")
    if text_format.separator is None:
        text = beginning.decode(text_format.encoding or "utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        separator = _find_separator(text, default_separator(path))
        if separator is not None:
            text_format = text_format._replace(separator=separator)
            notes.append(f"{path}: columns are separated by {separator!r} (data.separator)")
    return text_format, notes


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                return unpacked.read(_BYTES)
        file.seek(0)
        return file.read(_BYTES)


def _find_separator(text: str, default: str) -> str | None:
    """Return the only separator other than the default that splits all lines alike; None if the default does."""
    if _splits_alike(text, default):
        return None
    found = [each for each in _SEPARATORS if each != default and _splits_alike(text, each)]
    return found[0] if len(found) == 1 else None


def _splits_alike(text: str, separator: str) -> bool:
    """Whether all first lines have the same number of fields, two or more."""
    whole = len(text) < _BYTES // 4  # in bytes at most four a character; else the last line may be cut
    counts = []
    try:
        for fields in csv.reader(StringIO(text), delimiter=separator):
            if fields:
                counts.append(len(fields))
            if len(counts) > _LINES:
                break
    except csv.Error:
        return False
    counts = counts if whole or len(counts) > _LINES else counts[:-1]
    return len(set(counts)) == 1 and counts[0] > 1
