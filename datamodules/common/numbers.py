"""Numbers as text: decimal comma, separators of thousands, and which of them a table uses."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from datamodules.common.messages import listed
from titans_seq.errors import InputError

_MARKS = {",": ",", ".": r"\.", "apostrophe": "['\u2019]", "space": "[ \u00a0\u202f]"}  # of thousands, as patterns
_LIKE_A_NUMBER = "^[+-]?[\\d.,'\u2019 \u00a0\u202f]*\\d[\\d.,'\u2019 \u00a0\u202f]*(?:[eE][+-]?\\d+)?$"


class NumberFormat(NamedTuple):
    """How numbers are written."""

    decimal: str = "."
    thousands: str = ""  # a key of `_MARKS`; empty: none

    def pattern(self) -> str:
        """Return the regular expression of such a number; groups of two digits are Indian."""
        point, whole = re.escape(self.decimal), r"\d+"
        if self.thousands:
            mark = _MARKS[self.thousands]
            whole = rf"(?:\d+|\d{{1,3}}(?:{mark}\d{{2,3}})*{mark}\d{{3}})"
        return rf"^[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?$"


PLAIN = NumberFormat()
_FORMATS = [PLAIN, NumberFormat(","), NumberFormat(".", ","), NumberFormat(",", ".")] + [
    NumberFormat(decimal, mark) for mark in ("space", "apostrophe") for decimal in (".", ",")
]


def plain_text(text: pl.Series, number_format: NumberFormat) -> pl.Series:
    """Return numbers in text as polars parses them; cells that are not written in the format become null."""
    if number_format == PLAIN:
        return text
    plain = text
    if number_format.thousands:
        plain = plain.str.replace_all(_MARKS[number_format.thousands], "")
    plain = plain.str.replace(number_format.decimal, ".", literal=True)
    return plain.set(~text.str.contains(number_format.pattern()).fill_null(False), None)


def find_number_format(
    columns: Iterable[pl.Series], place: str, decimal: str | None, thousands: str | None
) -> tuple[NumberFormat, list[str]]:
    """Return the format in which all numbers of the columns are written, and notes on what was found.

    Columns of other types than text, and those whose cells are mostly no numbers, are not considered. Where numbers are
    written in several ways, or in none, the plain format is returned; the cells that do not fit are for the caller.

    Args:
        columns: of a table.
        place: prefix of notes and errors.
        decimal, thousands: what is known, see `TextFormat`.

    Raises InputError where two formats fit all numbers and give different values, such as 1,234.
    """
    known = NumberFormat(decimal or ".", thousands or "")
    if decimal and thousands:
        return known, []
    texts = [column.str.strip_chars() for column in columns if column.dtype == pl.String]
    if not (decimal or thousands) and all(map(_is_plain, texts)):
        return PLAIN, []
    formats = [each for each in _FORMATS if decimal in (None, each.decimal) and thousands in (None, each.thousands)]
    cells = _numbers_of(texts, formats)
    fitting = [each for each in formats if cells.str.contains(each.pattern()).all()]
    if not fitting:
        return formats[0], []
    best = fitting[0]
    if best != PLAIN:
        _refuse_ambiguity(cells, fitting, place)
    return best, _notes(cells, best, place, decimal, thousands)


def _is_plain(text: pl.Series) -> bool:
    """Whether all cells are plain numbers, or empty."""
    empty = text.is_null() | (text == "")
    return bool((empty | text.cast(pl.Float64, strict=False).is_not_null()).all())


def _numbers_of(texts: Iterable[pl.Series], formats: Sequence[NumberFormat]) -> pl.Series:
    """Return the distinct numbers of all columns that hold numbers."""
    found = [pl.Series([], dtype=pl.String)]
    for text in texts:
        cells = text.drop_nulls().unique(maintain_order=True)
        cells = cells.filter(cells != "")
        numbers = cells.filter(cells.str.contains(_LIKE_A_NUMBER))
        if 2 * len(numbers) > len(cells) and any(numbers.str.contains(each.pattern()).all() for each in formats):
            found.append(numbers.alias(""))
    return pl.concat(found).unique(maintain_order=True)


def _refuse_ambiguity(cells: pl.Series, fitting: Sequence[NumberFormat], place: str) -> None:
    first, *others = (plain_text(cells, each).cast(pl.Float64, strict=False) for each in fitting)
    for other in others:
        differs = first != other
        if differs.any():
            row = int(differs.arg_max() or 0)
            readings = " or ".join(f"{value:.12g}" for value in (first[row], other[row]))
            raise InputError(
                f"{place}: {listed([repr(cells[row])])} is {readings}: set data.decimal=, or data.decimal=."
            )


def _notes(cells: pl.Series, found: NumberFormat, place: str, decimal: str | None, thousands: str | None) -> list[str]:
    parts, keys = [], []
    if decimal is None and found.decimal != ".":
        parts.append(f"a decimal {found.decimal!r}")
        keys.append("data.decimal")
    if thousands is None and found.thousands and cells.str.contains(_MARKS[found.thousands]).any():
        parts.append(f"{found.thousands!r} between thousands")
        keys.append("data.thousands")
    return [f"{place}: numbers are read with {' and '.join(parts)} ({', '.join(keys)})"] if parts else []
