"""The columns of a user's table: which play what part, and their cells as numbers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from datamodules.common.messages import listed
from datamodules.common.reading import read_frame
from datamodules.time_series.timestamps import stamp_text
from titans_seq.errors import InputError

Fill = Literal["none", "ffill", "interpolate"]


class Roles(NamedTuple):
    """The part that each column plays; the fields are named as the keys of the section data."""

    time: str = "date"
    target: tuple[str, ...] = ()  # to forecast
    id: str | None = None  # names a row's series
    past: tuple[str, ...] = ()  # seen up to now
    known: tuple[str, ...] = ()  # known for the future too
    static: tuple[str, ...] = ()  # one value for each series

    def named(self) -> dict[str, tuple[str, ...]]:
        """The columns by key."""
        id_ = () if self.id is None else (self.id,)
        return {"time": (self.time,), "target": self.target, "id": id_, **self._covariates()}

    def numeric(self) -> tuple[str, ...]:
        """The columns that hold a number for every time."""
        return (*self.target, *self.past, *self.known)

    def _covariates(self) -> dict[str, tuple[str, ...]]:
        return {"past": self.past, "known": self.known, "static": self.static}


def read_table(path: Path) -> pl.DataFrame:
    """See `read_frame`; raises InputError for a table without rows too."""
    table = read_frame(path)
    if table.is_empty():
        raise InputError(f"{path}: no rows")
    return table


def settle_roles(table: pl.DataFrame, roles: Roles, path: Path) -> Roles:
    """The roles with targets: without any, all columns that no other role claims.

    Raises InputError for a column that is not there, that plays two parts, or that a part is missing.
    """
    claimed: dict[str, str] = {}
    for key, names in roles.named().items():
        for name in names:
            if name not in table.columns:
                raise InputError(f"{path}: no column {name!r}; found {listed(table.columns)}. Set data.{key}.")
            if name in claimed and (claimed[name], key) != ("id", "static"):  # a series may be known by its name
                raise InputError(f"{path}: column {name!r} is in data.{claimed[name]} and data.{key}; leave it in one")
            claimed[name] = key
    if roles.static and roles.id is None:
        raise InputError(f"{path}: data.static needs data.id, the column that names a row's series")
    left = [name for name in table.columns if name not in claimed]
    if roles.target:
        return roles
    if not left:
        raise InputError(f"{path}: no columns besides {listed(claimed)}; nothing to forecast")
    if roles.id is not None and len(left) != 1:
        raise InputError(
            f"{path}: data.id={roles.id} needs its column of values; set data.target to one or more of {listed(left)}"
        )
    return roles._replace(target=tuple(left))


def parse_numbers(column: pl.Series, stamps: pl.Series, key: str, path: Path, fill: Fill) -> pl.Series:
    """A column as numbers, true and false as 1 and 0.

    Empty cells are null, or refused when nothing fills them; anything else that is no finite number is refused.
    """
    text = column.cast(pl.String).str.strip_chars()
    text = text.replace(["true", "false", "True", "False"], ["1", "0", "1", "0"])
    numbers = text.cast(pl.Float64, strict=False)
    empty = text.is_null() | (text == "")
    bad = ~empty & ~numbers.is_finite().fill_null(False)
    where = f"{path}: column {listed([column.name])}"
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{where}: {bad.sum()} cells are no finite numbers, first {listed([repr(text[row])])} in row {row + 1} "
            f"({stamp_text(stamps[row])}). Mend the file, or leave the column out of data.{key}."
        )
    if empty.any() and fill == "none":
        row = int(empty.arg_max() or 0)
        raise InputError(
            f"{where}: {empty.sum()} empty cells, first in row {row + 1} ({stamp_text(stamps[row])}). "
            "Set data.fill=ffill|interpolate or mend the file."
        )
    return numbers.alias(column.name)


def static_values(rows: pl.DataFrame, names: Iterable[str], series: str, path: Path) -> dict[str, str]:
    """The one value of each static column in the rows of a series; raises InputError when there are several."""
    values = {}
    for name in names:
        found = rows[name].cast(pl.String).unique(maintain_order=True)
        if len(found) != 1 or found[0] is None or not found[0].strip():
            cells = listed(("an empty cell" if v is None or not v.strip() else v for v in found), most=3)
            raise InputError(
                f"{path}: series {series!r}: column {name} must hold one value in all its rows; found {cells}. "
                "Take it out of data.static or mend the file."
            )
        values[name] = found[0].strip()
    return values
