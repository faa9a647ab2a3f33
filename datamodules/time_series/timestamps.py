"""Parsing and formatting of timestamps, and regular time grids."""

from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from titans_seq.errors import InputError

_SECOND = 1_000_000  # in microseconds
_UNITS = (("d", 86400 * _SECOND), ("h", 3600 * _SECOND), ("min", 60 * _SECOND), ("s", _SECOND), ("us", 1))
_POLARS_UNITS = {"min": "m"}
_DAYS_OF_A_MONTH = 28, 31


class Step(NamedTuple):
    """Time step of a series."""

    interval: str  # polars notation: 1h, 15m, 1mo
    name: str  # for messages: 1h, 15min, 1 month
    seasonal_period: int  # steps of the usual cycle: a day for hourly data, a week for daily, a year for monthly


def parse_timestamps(column: pl.Series, where: str, time_format: str | None) -> pl.Series:
    """Parse a column of dates, times or text to datetimes in microseconds; time zones are converted to UTC.

    Raises InputError, prefixed by `where`, with the first value that does not parse.
    """
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if column.dtype.time_zone else column
        return zoned.cast(pl.Datetime("us"))
    text = column.cast(pl.String).str.strip_chars()
    if time_format is None:  # 01/02/2024 is ambiguous (January or February), so only ISO 8601 needs no format
        text = text.set(~text.str.contains(r"^\d{4}-\d{2}-\d{2}").fill_null(True), None)
    zoned_text = time_format is None and bool(text.str.contains(r"\d(Z|[+-]\d\d:?\d\d)$").any())
    zone = "UTC" if zoned_text else None
    try:
        parsed = text.str.to_datetime(time_format, strict=False, time_unit="us", time_zone=zone)
    except pl.exceptions.ComputeError:  # polars raises if no value looks like a time
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
        raise InputError(f"{where}: {value} in row {row + 1} is not a timestamp in {wanted}; {hint}")
    return parsed


def infer_step(differences: pl.Series) -> Step:
    """Return the most common of the `differences` (n,), n > 0, between neighbouring times of a series."""
    steps = differences.dt.total_microseconds()
    days = steps / _UNITS[0][1]
    low, high = _DAYS_OF_A_MONTH
    monthly = bool(((days >= low) & (days <= high)).mean() > 0.5) and steps.n_unique() > 1  # type: ignore[operator]
    if monthly:
        return Step("1mo", "1 month", 12)
    micros = int(steps.mode().sort()[0])
    unit, size = next((name, size) for name, size in _UNITS if micros % size == 0)
    count = micros // size
    return Step(f"{count}{_POLARS_UNITS.get(unit, unit)}", f"{count}{unit}", _seasonal_period(micros))


def regular_grid(times: pl.Series, step: Step, where: str) -> pl.Series:
    """Return the regular grid from the first to the last of `times`; raises InputError for a time off the grid."""
    ordered = times.sort()
    full: pl.Series = pl.datetime_range(ordered[0], ordered[-1], step.interval, eager=True, time_unit="us")
    off_grid = times.filter(~times.is_in(full.implode())).sort()
    if len(off_grid):
        raise InputError(
            f"{where}: {len(off_grid)} times are not on the {step.name} grid from {timestamp_text(full[0])}, first "
            f"{timestamp_text(off_grid[0])}; resample the table to a regular step"
        )
    return full


def times_after(times: NDArray[np.datetime64], interval: str, count: int) -> pl.Series:
    """Return the `count` times that follow `times`.

    Monthly steps are counted from the first time, so that month ends stay month ends; other steps from the last time,
    so that missing times do not matter.
    """
    digits = len(interval) - len(interval.lstrip("0123456789"))
    size, unit = int(interval[:digits]), interval[digits:]
    start, done = (times[0], len(times)) if unit == "mo" else (times[-1], 1)
    offsets = pl.lit(pl.Series([f"{index * size}{unit}" for index in range(done, done + count)], dtype=pl.String))
    first = pl.lit(start.astype("datetime64[us]").item(), dtype=pl.Datetime("us"))
    return pl.select(first.dt.offset_by(offsets)).to_series()


def timestamp_text(time: datetime) -> str:
    """Format a time as briefly as possible: a date alone at midnight, seconds only if they are not 0."""
    return f"{time:%Y-%m-%d}" if _is_midnight(time) else f"{time:%Y-%m-%d} {_clock(time)}"


def span_text(begin: datetime, end: datetime) -> str:
    """Format a time span without repeating the date."""
    if _is_midnight(begin) and _is_midnight(end):
        return f"{begin:%Y-%m-%d} to {end:%Y-%m-%d}" if begin != end else f"{begin:%Y-%m-%d}"
    if begin == end:
        return f"{begin:%Y-%m-%d} {_clock(begin)}"
    day = "" if begin.date() == end.date() else f"{end:%Y-%m-%d} "
    return f"{begin:%Y-%m-%d} {_clock(begin)} to {day}{_clock(end)}"


def _is_midnight(time: datetime) -> bool:
    return (time.hour, time.minute, time.second, time.microsecond) == (0, 0, 0, 0)


def _clock(time: datetime) -> str:
    if time.microsecond:
        return f"{time:%H:%M:%S.%f}"
    return f"{time:%H:%M:%S}" if time.second else f"{time:%H:%M}"


def _seasonal_period(micros: int) -> int:
    day = _UNITS[0][1]
    if micros < day:
        return max(1, day // micros)
    return 7 if micros == day else 1
