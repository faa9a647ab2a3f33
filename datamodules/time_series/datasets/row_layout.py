"""M4's layout: one row per series, its name in the column V1 and its values in V2, V3, ..., without times."""

from pathlib import Path

import polars as pl

from datamodules.time_series.columns import ColumnRoles
from titans_seq.errors import InputError

NAME = "V1"  # column of the names
VALUE = "value"  # column of the values in the long table
_ROWS = 1000  # series that are turned at once, which limits the memory for the empty cells of short ones


def has_row_layout(table: pl.DataFrame) -> bool:
    """Whether the columns are V1, V2, V3, ..., at least three."""
    return table.width > 2 and table.columns == [f"V{number}" for number in range(1, table.width + 1)]


def check_row_layout(roles: ColumnRoles, path: Path) -> None:
    """Raise InputError unless the roles of such a table say that V1 names the series."""
    if roles.id != NAME:
        raise InputError(f"{path}: one row per series, without times, as in M4? Set data.id={NAME}.")
    if roles.past or roles.known or roles.static or roles.target not in ((), (VALUE,)):
        raise InputError(f"{path}: one row per series has no columns for data.target, past, known or static; omit them")


def from_row_layout(table: pl.DataFrame, time: str) -> pl.DataFrame:
    """Return the long table: V1, `time` (the number of the value, from 1) and `value`.

    Empty cells after the last value of a series are left out.
    """
    parts = [_turn(table[first : first + _ROWS], time) for first in range(0, len(table), _ROWS)]
    return pl.concat(parts)


def _turn(table: pl.DataFrame, time: str) -> pl.DataFrame:
    numbered = {name: str(number) for number, name in enumerate(table.columns[1:], start=1)}
    long = table.with_row_index("row of series").rename(numbered)
    long = long.unpivot(list(numbered.values()), index=["row of series", NAME], variable_name=time, value_name=VALUE)
    long = long.with_columns(pl.col(time).cast(pl.Int64))
    filled = pl.col(VALUE).is_not_null() & (pl.col(VALUE).cast(pl.String).str.strip_chars() != "")
    last = pl.col(time).filter(filled).max().over("row of series")
    return long.filter(pl.col(time) <= last).select(NAME, time, VALUE)
