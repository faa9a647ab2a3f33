"""Reading of future covariates from a user's table."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.common.numbers import find_number_format
from datamodules.common.text_format import TextFormat
from datamodules.time_series.columns import ColumnRoles, parse_categories, parse_numbers, read_series_table
from datamodules.time_series.timestamps import local_times, parse_timestamps, timestamp_text
from titans_seq.errors import InputError


def read_future(
    source: Path | pl.DataFrame,
    roles: ColumnRoles,
    time_format: str | None,
    names: Sequence[str],
    times: Sequence[pl.Series],
    timezone: str | None = None,
    text_format: TextFormat = TextFormat(),  # noqa: B008 - immutable
    categories: Collection[str] = (),
) -> list[dict[str, NDArray[Any]] | InputError]:
    """Return the known covariates of each series in `names` at its `times` (N,): arrays (N,) by name.

    Other rows are ignored. The covariates in `categories` are text. A series whose values are missing, or at a time of
    which there are two rows, has an InputError instead, which the caller may raise.
    """
    path = Path("future") if isinstance(source, pl.DataFrame) else source  # for messages
    if not isinstance(source, pl.DataFrame) and not source.is_file():
        raise InputError(f"--future {source}: no such file")
    table = source if isinstance(source, pl.DataFrame) else read_series_table(source, text_format)[0]
    id_ = [roles.id] if roles.id else []
    for name in (roles.time, *id_, *roles.known):
        if name not in table.columns:
            raise InputError(f"{path}: no column {name!r}; found {listed(table.columns)}")
    ids = table[roles.id].cast(pl.String).str.strip_chars() if roles.id else None
    timestamps = parse_timestamps(table[roles.time], f"{path}: column {roles.time}", time_format, timezone, ids)
    if timestamps.dtype != times[0].dtype:
        raise InputError(f"{path}: column {roles.time}: expected times as in the data, {times[0].dtype}")
    numeric = [table[name] for name in roles.known if name not in categories]
    number_format, _ = find_number_format(numeric, str(path), text_format.decimal, text_format.thousands)
    columns = [
        parse_categories(table[name])
        if name in categories
        else parse_numbers(table[name], local_times(timestamps), "known", path, "ffill", number_format)
        for name in roles.known
    ]
    found: list[dict[str, NDArray[Any]] | InputError] = []
    for name, wanted in zip(names, times, strict=True):
        own = ids == name if ids is not None else pl.repeat(True, len(table), eager=True)
        rows = pl.DataFrame(columns).with_columns(timestamps.alias("time of row")).filter(own)
        place = f"{path}: series {name!r}" if roles.id else str(path)
        try:
            found.append(_select(rows, wanted, roles.known, place))
        except InputError as error:
            found.append(error)
    return found


def _select(rows: pl.DataFrame, wanted: pl.Series, known: Sequence[str], place: str) -> dict[str, NDArray[Any]]:
    """Return the columns (N,) at the wanted times, each of which must have exactly one row."""
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
    return {name: full[name].to_numpy() for name in known}
