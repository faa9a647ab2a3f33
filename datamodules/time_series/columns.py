"""Column roles of a user's table, and parsing of its cells."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from datamodules.common.messages import listed
from datamodules.common.numbers import PLAIN, NumberFormat, plain_text
from datamodules.common.reading import NotUtf8Error, read_frame
from datamodules.common.text_format import TextFormat, find_text_format
from datamodules.time_series.timestamps import timestamp_text
from titans_seq.errors import InputError

Fill = Literal["none", "ffill", "interpolate", "missing"]  # missing: empty cells stay missing, as NaN


class ColumnRoles(NamedTuple):
    """The role of each column; the fields are named as the keys of the configuration section `data`."""

    time: str = "date"
    target: tuple[str, ...] = ()  # values to forecast
    id: str | None = None  # name of each row's series
    past: tuple[str, ...] = ()  # past covariates: observed up to the forecast origin
    known: tuple[str, ...] = ()  # future covariates: known for the horizon too
    static: tuple[str, ...] = ()  # static covariates: one value per series

    def named(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of each key."""
        id_ = () if self.id is None else (self.id,)
        return {"time": (self.time,), "target": self.target, "id": id_, **self._covariates()}

    def timed(self) -> tuple[str, ...]:
        """Return the columns that hold a value for every timestamp."""
        return (*self.target, *self.past, *self.known)

    def _covariates(self) -> dict[str, tuple[str, ...]]:
        return {"past": self.past, "known": self.known, "static": self.static}


def read_series_table(path: Path, text_format: TextFormat = TextFormat()) -> tuple[pl.DataFrame, list[str]]:  # noqa: B008
    """Return a table, read with `read_frame` in the format set or found, and notes on what was found.

    Also raises InputError for a table without rows.
    """
    found, notes = find_text_format(path, text_format)
    try:
        table = read_frame(path, found.separator, found.encoding)
    except NotUtf8Error as error:
        raise InputError(f"{error}; set data.encoding, such as cp1252 (Windows, Western Europe)") from None
    if table.is_empty():
        raise InputError(f"{path}: no rows")
    return table, notes


def resolve_column_roles(table: pl.DataFrame, roles: ColumnRoles, path: Path) -> ColumnRoles:
    """Return the roles with their targets: if none are set, all columns without another role.

    Raises InputError for a column that is missing or has two roles, and for a required role that is not set.
    """
    claimed: dict[str, str] = {}
    for key, names in roles.named().items():
        for name in names:
            if name not in table.columns:
                raise InputError(f"{path}: no column {name!r}; found {listed(table.columns)}. Set data.{key}.")
            if name in claimed and (claimed[name], key) != ("id", "static"):  # the id may serve as a static covariate
                raise InputError(f"{path}: column {name!r} is in data.{claimed[name]} and data.{key}; keep it in one")
            claimed[name] = key
    if roles.static and roles.id is None:
        raise InputError(f"{path}: data.static needs data.id, the column with the name of each row's series")
    left = [name for name in table.columns if name not in claimed]
    if roles.target:
        return roles
    if not left:
        raise InputError(f"{path}: no columns besides {listed(claimed)}; nothing to forecast")
    if roles.id is not None and len(left) != 1:
        raise InputError(
            f"{path}: data.id={roles.id} requires a target column; set data.target to one or more of {listed(left)}"
        )
    return roles._replace(target=tuple(left))


def holds_numbers(column: pl.Series, number_format: NumberFormat = PLAIN) -> bool:
    """Whether the cells are numbers or empty, most of them: a few others are reported as errors when they are read."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return True
    text = column.cast(pl.String).str.strip_chars()
    numbers = _parse(text, number_format).is_not_null().sum()
    cells = (text.is_not_null() & (text != "")).sum()
    return bool(2 * numbers > cells) or cells == 0


def parse_numbers(
    column: pl.Series, timestamps: pl.Series, key: str, path: Path, fill: Fill, number_format: NumberFormat = PLAIN
) -> pl.Series:
    """Parse a column as numbers, with true and false as 1 and 0.

    Empty cells become null. Raises InputError for an empty cell if `fill` is "none", and for any cell that is not a
    finite number. `timestamps` are those of the rows, for messages; the format is that of text.
    """
    text = column.cast(pl.String).str.strip_chars()
    numbers = _parse(text, number_format if column.dtype == pl.String else PLAIN)
    empty = text.is_null() | (text == "")
    bad = ~empty & ~numbers.is_finite().fill_null(False)
    where = f"{path}: column {listed([column.name])}"
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{where}: {bad.sum()} cells are not finite numbers, first {listed([repr(text[row])])} in row {row + 1} "
            f"({timestamp_text(timestamps[row])}). Fix the file, or remove the column from data.{key}."
        )
    if empty.any() and fill == "none":
        row = int(empty.arg_max() or 0)
        raise InputError(
            f"{where}: {empty.sum()} empty cells, first in row {row + 1} ({timestamp_text(timestamps[row])}). "
            "Set data.fill=ffill|interpolate or fix the file."
        )
    return numbers.alias(column.name)


def parse_categories(column: pl.Series) -> pl.Series:
    """Return the cells of a column as text; those that are empty are a category of their own, the empty text."""
    return column.cast(pl.String).str.strip_chars().fill_null("")


def _parse(text: pl.Series, number_format: NumberFormat) -> pl.Series:
    logical = text.replace(["true", "false", "True", "False"], ["1", "0", "1", "0"])
    return plain_text(logical, number_format).cast(pl.Float64, strict=False)


def static_values(rows: pl.DataFrame, names: Iterable[str], series: str, path: Path) -> dict[str, str]:
    """Return the value of each static column of a series; raises InputError unless it is the same in all its rows."""
    values = {}
    for name in names:
        found = rows[name].cast(pl.String).unique(maintain_order=True)
        if len(found) != 1 or found[0] is None or not found[0].strip():
            cells = listed(("an empty cell" if v is None or not v.strip() else v for v in found), most=3)
            raise InputError(
                f"{path}: series {series!r}: column {name} must hold one value in all its rows; found {cells}. "
                "Remove it from data.static or fix the file."
            )
        values[name] = found[0].strip()
    return values
