"""Filling of missing values of a series on its regular grid; no value is filled from a later one at its start."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import polars as pl

from datamodules.common.messages import listed
from datamodules.time_series.timestamps import local_times, timestamp_text
from titans_seq.errors import InputError

LEAST_ROWS = 3  # of a series


class Filled(NamedTuple):
    """The rows of a series without missing values."""

    rows: pl.DataFrame
    cells: int  # number of values filled
    notes: list[str]  # about rows left out at the start and values repeated at the end


def fill_missing(
    rows: pl.DataFrame,
    columns: Sequence[str],
    fill: Literal["ffill", "interpolate"],
    place: str,
    least: int = LEAST_ROWS,
) -> Filled:
    """Fill the `columns` of a series' rows, from the row on where all of them had a value.

    "ffill" repeats the last value, "interpolate" is linear inside and repeats the last value at the end; categories
    always repeat the last one. `rows` has the column "time of row". `place` is the prefix of notes and errors. Raises
    InputError for a column without values, and when fewer than `least` rows are left.
    """
    count, clock = len(rows), local_times(rows["time of row"])
    firsts, lasts = {}, {}
    for column in columns:
        found = rows[column].is_not_null().to_numpy().nonzero()[0]
        if not len(found):
            raise InputError(f"{place}: column {column} is empty; remove it")
        firsts[column], lasts[column] = int(found[0]), int(found[-1])
    start = max(firsts.values())
    late, time = listed(column for column in columns if firsts[column] == start), timestamp_text(clock[start])
    if count - start < least:
        raise InputError(
            f"{place}: column {late} has its first value at {time}, which leaves {count - start} rows; a series needs "
            f"at least {least}. Remove the column or fix the file."
        )
    left_out = f"{place}: starts at {time}, the first value of {late}: the {start} rows before are left out"
    repeated = [
        f"{place}: {column} ends at {timestamp_text(clock[last])}: its last value is repeated in the "
        f"{count - 1 - last} rows after it"
        for column, last in lasts.items()
        if last < count - 1
    ]
    part = rows.slice(start)
    cells = sum(part[column].null_count() for column in columns)
    if fill == "interpolate":  # between numbers; categories repeat their last value
        part = part.with_columns(pl.col(c).interpolate() for c in columns if part[c].dtype.is_numeric())
    return Filled(
        part.with_columns(pl.col(*columns).forward_fill()), cells, [*([left_out] if start else []), *repeated]
    )
