"""Timestamps as people write them, and the regular grid that they lie on."""

from typing import NamedTuple

import polars as pl

from titans_seq.errors import InputError

_SECOND = 1_000_000  # in microseconds
_UNITS = (("d", 86400 * _SECOND), ("h", 3600 * _SECOND), ("min", 60 * _SECOND), ("s", _SECOND), ("us", 1))
_POLARS_UNITS = {"min": "m"}
_DAYS_OF_A_MONTH = 28, 31


class Grid(NamedTuple):
    """Equally spaced times."""

    stamps: pl.Series  # (T,) datetimes, from the first to the last
    step: str  # as a reader would say it: 1h, 15min, 1 month
    season: int  # steps of the cycle that such data mostly have: a day of hours, a week of days, a year of months


def parse_timestamps(column: pl.Series, where: str, time_format: str | None) -> pl.Series:
    """A column of dates, times or text as datetimes in microseconds, time zones turned to UTC.

    Raises InputError, `where` first, with the first value that does not parse.
    """
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if column.dtype.time_zone else column
        return zoned.cast(pl.Datetime("us"))
    text = column.cast(pl.String).str.strip_chars()
    if time_format is None:  # 01/02/2024 is January in some places and February in others: only ISO needs no format
        text = text.set(~text.str.contains(r"^\d{4}-\d{2}-\d{2}").fill_null(True), None)
    zoned_text = time_format is None and bool(text.str.contains(r"\d(Z|[+-]\d\d:?\d\d)$").any())
    zone = "UTC" if zoned_text else None
    try:
        parsed = text.str.to_datetime(time_format, strict=False, time_unit="us", time_zone=zone)
    except pl.exceptions.ComputeError:  # not one value looks like a time
        parsed = pl.Series([None] * len(text), dtype=pl.Datetime("us", zone))
    parsed = parsed.dt.replace_time_zone(None) if zoned_text else parsed
    if parsed.null_count():
        row = int(parsed.is_null().arg_max() or 0)
        found = column.cast(pl.String)[row]
        value = "an empty cell" if found is None else repr(found)
        hint = 'set data.time_format, such as "%d.%m.%Y %H:%M"'
        if found and found.isdigit() and len(found) == 10:
            hint = 'seconds since 1970? Set data.time_format="%s"'
        wanted = "ISO 8601, such as 2024-03-10 01:00" if time_format is None else f"data.time_format={time_format}"
        raise InputError(f"{where}: {value} in row {row + 1} is no time in {wanted}; {hint}")
    return parsed


def infer_grid(stamps: pl.Series, where: str) -> Grid:
    """The grid of the most common step between distinct times; raises InputError where times lie beside it."""
    times = stamps.unique().sort()
    if len(times) < 3:
        raise InputError(f"{where}: {len(times)} distinct times; a series needs at least 3")
    steps = times.diff().drop_nulls().dt.total_microseconds()
    days = steps / _UNITS[0][1]
    low, high = _DAYS_OF_A_MONTH
    monthly = bool(((days >= low) & (days <= high)).mean() > 0.5) and steps.n_unique() > 1  # type: ignore[operator]
    if monthly:
        interval, step, season = "1mo", "1 month", 12
    else:
        micros = int(steps.mode().sort()[0])
        unit, size = next((name, size) for name, size in _UNITS if micros % size == 0)
        count = micros // size
        interval, step = f"{count}{_POLARS_UNITS.get(unit, unit)}", f"{count}{unit}"
        season = _season(micros)
    full = pl.datetime_range(times[0], times[-1], interval, eager=True, time_unit="us")
    beside = times.filter(~times.is_in(full.implode()))
    if len(beside):
        raise InputError(
            f"{where}: {len(beside)} times do not lie on a {step} step from {times[0]}, first {beside[0]}; "
            "resample the table to a regular step"
        )
    return Grid(full, step, season)


def _season(micros: int) -> int:
    day = _UNITS[0][1]
    if micros < day:
        return max(1, day // micros)
    return 7 if micros == day else 1
