"""Reading of future covariates from a user's table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.time_series.columns import ColumnRoles, parse_numbers, read_series_table
from datamodules.time_series.timestamps import local_times, parse_timestamps, timestamp_text
from titans_seq.errors import InputError


def read_future(
    source: Path | pl.DataFrame,
    roles: ColumnRoles,
    time_format: str | None,
    names: Sequence[str],
    times: Sequence[pl.Series],
    timezone: str | None = None,
) -> list[NDArray[np.float64]]:
    """Return the known covariates of each series in `names` at its `times` (N,): arrays (N, K). Other rows are ignored.

    Raises InputError when a value is missing or a time appears twice.
    """
    path = Path("future") if isinstance(source, pl.DataFrame) else source  # for messages
    if not isinstance(source, pl.DataFrame) and not source.is_file():
        raise InputError(f"--future {source}: no such file")
    table = source if isinstance(source, pl.DataFrame) else read_series_table(source)
    id_ = [roles.id] if roles.id else []
    for name in (roles.time, *id_, *roles.known):
        if name not in table.columns:
            raise InputError(f"{path}: no column {name!r}; found {listed(table.columns)}")
    ids = table[roles.id].cast(pl.String).str.strip_chars() if roles.id else None
    timestamps = parse_timestamps(table[roles.time], f"{path}: column {roles.time}", time_format, timezone, ids)
    if timestamps.dtype != times[0].dtype:
        raise InputError(f"{path}: column {roles.time}: expected times as in the data, {times[0].dtype}")
    numbers = [parse_numbers(table[name], local_times(timestamps), "known", path, "ffill") for name in roles.known]
    found = []
    for name, wanted in zip(names, times, strict=True):
        own = ids == name if ids is not None else pl.repeat(True, len(table), eager=True)
        rows = pl.DataFrame(numbers).with_columns(timestamps.alias("time of row")).filter(own)
        place = f"{path}: series {name!r}" if roles.id else str(path)
        found.append(_select(rows, wanted, roles.known, place))
    return found


def _select(rows: pl.DataFrame, wanted: pl.Series, known: Sequence[str], place: str) -> NDArray[np.float64]:
    """Return the columns (N, K) at the wanted times, each of which must have exactly one row."""
    clock = local_times(wanted)
    until = f"{listed(known)} required until {timestamp_text(clock[-1])} ({len(wanted)} steps)"
    if rows.is_empty():
        raise InputError(f"{place}: {until}; the file has no rows of this series")
    twice = rows["time of row"].is_duplicated()
    if twice.any():
        time = local_times(rows["time of row"].filter(twice))[0]
        raise InputError(f"{place}: {timestamp_text(time)} appears more than once")
    full = wanted.alias("time of row").to_frame().join(rows, on="time of row", how="left", maintain_order="left")
    lacking = full.select(pl.any_horizontal(pl.col(*known).is_null())).to_series()
    if lacking.any():
        first = int(lacking.arg_max() or 0)
        if lacking[first:].all():
            end = f"ends {timestamp_text(clock[first - 1])}" if first else f"missing from {timestamp_text(clock[0])}"
            fewer = f", or forecast fewer steps: --horizon {first}" if first else ""
            raise InputError(f"{place}: {until}; {end}. Extend the file{fewer}.")
        raise InputError(f"{place}: {until}; missing at {timestamp_text(clock[first])}. Fix the file.")
    return full.select(known).to_numpy()
