"""Column roles that are found by themselves: times, names of series, and numbers to forecast."""

from pathlib import Path

import polars as pl

from datamodules.common.messages import listed
from datamodules.common.numbers import PLAIN, NumberFormat
from datamodules.time_series.columns import ColumnRoles, holds_numbers
from datamodules.time_series.timestamps import parse_timestamps
from titans_seq.errors import InputError

_PARSED = 200  # first rows that tell whether a column holds times
_INTEGER_TIMES = ("time", "timestamp", "ds", "t", "step", "index", "year", "period")  # names of integer times
DEFAULT_TIME = ColumnRoles().time


def infer_column_roles(
    table: pl.DataFrame,
    roles: ColumnRoles,
    path: Path,
    time_format: str | None,
    number_format: NumberFormat = PLAIN,
) -> ColumnRoles:
    """Return the roles with those that are not set: `time` if its default is no column, `id`, and `target`.

    The time is the first column whose cells are timestamps, else the first of integers with a usual name. If
    times repeat, the id is the only column of text in which no name has a time twice. All other columns of
    numbers are forecast. Raises InputError where this leaves a choice.
    """
    time = roles.time
    if time == DEFAULT_TIME and time not in table.columns:
        times = [name for name in table.columns if _holds_times(table[name], time_format)]
        times = times or [name for name in table.columns if _counts_time(table[name])]
        if not times:
            raise InputError(
                f"{path}: no column of timestamps; found {listed(table.columns)}. Set data.time=COLUMN, and "
                "data.time_format if its cells are not ISO 8601"
            )
        time = times[0]
    rest = [name for name in table.columns if name != time]
    texts = [name for name in rest if not holds_numbers(table[name], number_format)]
    series = roles.id
    if series is None and time in table.columns and table[time].n_unique() < len(table):
        names = [name for name in texts if table.select(time, name).is_unique().all()]
        series = names[0] if len(names) == 1 else None
    target = roles.target
    if not target:
        target = tuple(name for name in rest if name not in (*texts, series))
        if not target:
            raise InputError(f"{path}: no column of numbers to forecast; found {listed(table.columns)}")
    return roles._replace(time=time, id=series, target=target)


def _holds_times(column: pl.Series, time_format: str | None) -> bool:
    if column.dtype.is_numeric():
        return False
    try:
        times = parse_timestamps(column.drop_nulls().head(_PARSED), "", time_format)
    except InputError:
        return False
    return column.null_count() < len(column) and times.dtype != pl.Int64


def _counts_time(column: pl.Series) -> bool:
    if column.name.lower() not in _INTEGER_TIMES:
        return False
    try:
        return parse_timestamps(column, "", None).dtype == pl.Int64
    except InputError:
        return False
