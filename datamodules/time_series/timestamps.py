"""Timestamps as people write them, and the regular grid that they lie on."""

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
    """How far apart the times of a series are."""

    interval: str  # as polars writes it: 1h, 15m, 1mo
    name: str  # as a reader would say it: 1h, 15min, 1 month
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


def infer_step(differences: pl.Series) -> Step:
    """The most common step of all `differences` (n,), n > 0, between neighbouring times of a series."""
    steps = differences.dt.total_microseconds()
    days = steps / _UNITS[0][1]
    low, high = _DAYS_OF_A_MONTH
    monthly = bool(((days >= low) & (days <= high)).mean() > 0.5) and steps.n_unique() > 1  # type: ignore[operator]
    if monthly:
        return Step("1mo", "1 month", 12)
    micros = int(steps.mode().sort()[0])
    unit, size = next((name, size) for name, size in _UNITS if micros % size == 0)
    count = micros // size
    return Step(f"{count}{_POLARS_UNITS.get(unit, unit)}", f"{count}{unit}", _season(micros))


def lay_grid(times: pl.Series, step: Step, where: str) -> pl.Series:
    """All times of a series from its first to its last; raises InputError where one of `times` lies beside them."""
    ordered = times.sort()
    full: pl.Series = pl.datetime_range(ordered[0], ordered[-1], step.interval, eager=True, time_unit="us")
    beside = times.filter(~times.is_in(full.implode())).sort()
    if len(beside):
        raise InputError(
            f"{where}: {len(beside)} times do not lie on a {step.name} step from {stamp_text(full[0])}, first "
            f"{stamp_text(beside[0])}; resample the table to a regular step"
        )
    return full


def times_after(times: NDArray[np.datetime64], interval: str, count: int) -> pl.Series:
    """The `count` times that follow `times`.

    Months are counted from the first time, so that their ends stay ends; all else from the last, whatever is missing.
    """
    digits = len(interval) - len(interval.lstrip("0123456789"))
    size, unit = int(interval[:digits]), interval[digits:]
    start, done = (times[0], len(times)) if unit == "mo" else (times[-1], 1)
    offsets = pl.lit(pl.Series([f"{index * size}{unit}" for index in range(done, done + count)], dtype=pl.String))
    first = pl.lit(start.astype("datetime64[us]").item(), dtype=pl.Datetime("us"))
    return pl.select(first.dt.offset_by(offsets)).to_series()


def stamp_text(stamp: datetime) -> str:
    """A time as short as it can be said: seconds only where there are any, a date alone at midnight."""
    return f"{stamp:%Y-%m-%d}" if _is_midnight(stamp) else f"{stamp:%Y-%m-%d} {_clock(stamp)}"


def span_text(begin: datetime, end: datetime) -> str:
    """From one time to another, the date not said twice."""
    if _is_midnight(begin) and _is_midnight(end):
        return f"{begin:%Y-%m-%d} to {end:%Y-%m-%d}" if begin != end else f"{begin:%Y-%m-%d}"
    if begin == end:
        return f"{begin:%Y-%m-%d} {_clock(begin)}"
    day = "" if begin.date() == end.date() else f"{end:%Y-%m-%d} "
    return f"{begin:%Y-%m-%d} {_clock(begin)} to {day}{_clock(end)}"


def _is_midnight(stamp: datetime) -> bool:
    return (stamp.hour, stamp.minute, stamp.second, stamp.microsecond) == (0, 0, 0, 0)


def _clock(stamp: datetime) -> str:
    if stamp.microsecond:
        return f"{stamp:%H:%M:%S.%f}"
    return f"{stamp:%H:%M:%S}" if stamp.second else f"{stamp:%H:%M}"


def _season(micros: int) -> int:
    day = _UNITS[0][1]
    if micros < day:
        return max(1, day // micros)
    return 7 if micros == day else 1
