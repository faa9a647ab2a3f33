"""Time steps of series: found from their times, regular grids of them, and the times that follow.

Steps are written as polars does: 15m, 1h, 1d, 7d, 1bd (business days, Monday to Friday), 1mo, 3mo (quarters), 12mo
(years); 1i, 5i are steps of integers. Days and longer steps are those of the clock in the zone of the times; so are
steps of several hours at the same hours every day. Others are elapsed time.
"""

from typing import Any, NamedTuple

import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.timestamps import local_times, localise, timestamp_text, to_polars
from titans_seq.errors import InputError

_SECOND = 1_000_000  # in microseconds
_DAY = 86400 * _SECOND
_UNITS = (("d", _DAY), ("h", 3600 * _SECOND), ("min", 60 * _SECOND), ("s", _SECOND), ("us", 1))
_POLARS_UNITS = {"min": "m"}
_MEAN_MONTH = 365.25 / 12  # days
_MONTH_TOLERANCE = 2.5  # days: a month has 28 to 31
_LAST_WEEKDAY = 5  # Friday
_LONGEST_MONTH = 31


class Step(NamedTuple):
    """Time step of a series."""

    interval: str  # see the module: 1h, 15m, 1mo, 1bd
    name: str  # for messages: 1h, 15min, 1-month, business-day
    seasonal_period: int  # steps of the usual cycle: a day, a week of days, a year of weeks, months or quarters


def infer_step(before: pl.Series, after: pl.Series) -> Step:
    """Return the most common step between neighbouring times `before` and `after` (n,), n > 0, of one or more series.

    Whole months are a step of months whatever their days; days are business days if weekends are always left out.
    """
    if before.dtype == pl.Int64:
        size = _most_common(after - before)
        return Step(f"{size}i", f"{size}-unit", 1)
    first, second = local_times(before), local_times(after)
    if months := _months(first, second):
        return Step(f"{months}mo", f"{months}-month", 12 // months if 12 % months == 0 else 1)
    micros = _most_common((after - before).dt.total_microseconds())
    if micros == _DAY and _leaves_out_weekends(first, second):
        return Step("1bd", "business-day", 5)
    unit, size = next((name, size) for name, size in _UNITS if micros % size == 0)
    count = micros // size
    return Step(f"{count}{_POLARS_UNITS.get(unit, unit)}", f"{count}{unit}", _seasonal_period(micros))


def step_of(times: pl.Series) -> Step:
    """Return the step of one series' times (T,), T > 1, in order."""
    return infer_step(times[:-1], times[1:])


def regular_grid(times: pl.Series, step: Step, where: str, advice: str = "") -> pl.Series:
    """Return the regular grid from the first to the last of `times`; raises InputError for a time off the grid.

    `advice` ends the error, if resampling to a regular step is not what helps.
    """
    full = _grid(times.sort(), step.interval)
    off_grid = local_times(times.filter(~times.is_in(full.implode())).sort())
    if len(off_grid):
        raise InputError(
            f"{where}: {len(off_grid)} times are not on the {step.name} grid from "
            f"{timestamp_text(local_times(full)[0])}, first {timestamp_text(off_grid[0])}; "
            + (advice or "resample the table to a regular step")
        )
    return full


def times_after(times: NDArray[Any], interval: str, count: int, timezone: str | None = None) -> pl.Series:
    """Return the `count` times that follow the last of `times` (T,): datetime64 (UTC with a `timezone`) or int64.

    Months keep the day of the earlier times, and month ends stay month ends.
    """
    size, unit = _parts(interval)
    days = range(1, count * 7 // _LAST_WEEKDAY + 7)
    found = _times_from(times, -1, unit, days if unit == "bd" else range(size, (count + 1) * size, size), timezone)
    return found.head(count)


def times_before(times: NDArray[Any], interval: str, count: int, timezone: str | None = None) -> pl.Series:
    """Return the `count` times that precede the first of `times` (T,), in order; see `times_after`."""
    size, unit = _parts(interval)
    days = range(-(count * 7 // _LAST_WEEKDAY + 7), 0)
    found = _times_from(times, 0, unit, days if unit == "bd" else range(-count * size, 0, size), timezone)
    return found.tail(count)


def _times_from(times: NDArray[Any], row: int, unit: str, steps: range, timezone: str | None) -> pl.Series:
    """Return the times `steps` (n,) units after the time of a row of `times`; of business days, the weekdays."""
    past = to_polars(times, timezone)
    row %= len(past)
    if unit == "i":
        return pl.Series([past[row] + step for step in steps], dtype=pl.Int64)
    wall = local_times(past)
    usual = _usual(wall, row, timezone)
    if unit == "mo":
        return localise(_month_grid(wall, usual, steps), timezone)
    if unit == "bd":
        return localise(_weekdays(_offsets(usual, "d", steps)), timezone)
    if unit == "d" or _follows_clock(wall, steps.step, unit):
        return localise(_offsets(usual if unit == "d" else wall[row : row + 1], unit, steps), timezone)
    return _offsets(past[row : row + 1], unit, steps)


def _grid(times: pl.Series, interval: str) -> pl.Series:
    """Return the regular times from the first to the last of `times`, which are in order."""
    size, unit = _parts(interval)
    if unit == "i":
        return pl.int_range(times[0], times[-1] + 1, size, eager=True)
    timezone = times.dtype.time_zone if isinstance(times.dtype, pl.Datetime) else None
    wall = local_times(times)
    if unit == "mo":
        last = _month_number(wall[-1:])[0] - _month_number(wall[:1])[0]
        return localise(_month_grid(wall, _usual(wall, 0, timezone), range(0, last + 1, size)), timezone)
    if unit in ("d", "bd"):
        last = int((wall.dt.date()[-1] - wall.dt.date()[0]).days)
        days = _offsets(_usual(wall, 0, timezone), "d", range(0, last + 1, size))
        return localise(_weekdays(days) if unit == "bd" else days, timezone)
    if timezone and _follows_clock(wall, size, unit):
        span = int((wall[-1] - wall[0]).total_seconds()) // 3600
        return localise(_offsets(wall[:1], unit, range(0, span + 1, size)), timezone)
    utc = times.dt.convert_time_zone("UTC") if timezone else times
    full = (
        utc.to_frame("time")
        .select(pl.datetime_range(pl.col("time").first(), pl.col("time").last(), interval, time_unit="us"))
        .to_series()
    )
    return full.dt.convert_time_zone(timezone) if timezone else full


def _parts(interval: str) -> tuple[int, str]:
    digits = len(interval) - len(interval.lstrip("0123456789"))
    return int(interval[:digits]), interval[digits:]


def _offsets(start: pl.Series, unit: str, counts: range) -> pl.Series:
    """Return the times that are `counts` (n,) units after the only time of `start`, (n,)."""
    offsets = pl.Series([f"{count}{unit}" for count in counts], dtype=pl.String)
    frame = pl.DataFrame({"start": start.new_from_index(0, len(offsets)), "offset": offsets})
    return frame.select(pl.col("start").dt.offset_by(pl.col("offset"))).to_series()


def _usual(wall: pl.Series, row: int, timezone: str | None) -> pl.Series:
    """Return the time of a row, (1,); in a zone with the most common time of day, as clock changes may move a row's."""
    if timezone is None:
        return wall.slice(row, 1)
    days = wall.dt.truncate("1d")
    usual: pl.Series = days.slice(row, 1) + (wall - days).mode().sort()[0]
    return usual


def _month_grid(wall: pl.Series, start: pl.Series, months: range) -> pl.Series:
    """Return the times that are `months` (n,) after the month of `start` (1,), on the day of the month of `wall` (T,).

    That is the last day if all times are on last days; else the most common day, or the last day of shorter months.
    """
    lengths = wall.dt.month_end().dt.day()
    day = _LONGEST_MONTH if (wall.dt.day() == lengths).all() else wall.dt.day().mode().sort()[-1]
    clock = start.dt.time()[0]
    firsts = _offsets(start.dt.truncate("1mo"), "mo", months)
    return (
        firsts.to_frame("first")
        .select(
            pl.datetime(
                pl.col("first").dt.year(),
                pl.col("first").dt.month(),
                pl.min_horizontal(pl.col("first").dt.month_end().dt.day(), pl.lit(day)),
                clock.hour,
                clock.minute,
                clock.second,
                clock.microsecond,
                time_unit="us",
            )
        )
        .to_series()
    )


def _follows_clock(wall: pl.Series, size: int, unit: str) -> bool:
    """Whether steps of several hours are at the same local times every day, such as 0, 6, 12 and 18 o'clock."""
    hours = (wall - wall.dt.truncate("1d")).dt.total_microseconds() % (size * 3600 * _SECOND)
    return unit == "h" and size > 1 and 24 % size == 0 and hours.n_unique() == 1


def _weekdays(days: pl.Series) -> pl.Series:
    return days.filter(days.dt.weekday() <= _LAST_WEEKDAY)


def _month_number(wall: pl.Series) -> pl.Series:
    return wall.dt.year().cast(pl.Int64) * 12 + wall.dt.month().cast(pl.Int64)


def _months(first: pl.Series, second: pl.Series) -> int:
    """Return the most common number of months from `first` to `second` if most steps are of whole months, else 0."""
    months = _month_number(second) - _month_number(first)
    shorter = (
        pl.DataFrame({"a": first, "b": second})
        .select(pl.when(pl.col("a").dt.day() < pl.col("b").dt.day()).then("a").otherwise("b"))
        .to_series()
    )
    same_day = (first.dt.day() == second.dt.day()) | (shorter.dt.day() == shorter.dt.month_end().dt.day())
    whole = (months > 0) & same_day & (first.dt.time() == second.dt.time())
    if _share(whole) > 0.5:
        return _most_common(months.filter(whole))
    # Months whose day varies, such as the last business day: off the grid, and said to be so at a step of months.
    days = ((second - first).dt.total_microseconds() / _DAY).round()
    counts = (days / _MEAN_MONTH).round()
    near = (counts > 0) & ((days - counts * _MEAN_MONTH).abs() <= _MONTH_TOLERANCE)
    regular = _share(days == days.mode().sort()[0]) > 0.7
    return 0 if regular or _share(near) <= 0.5 else int(_most_common(counts.filter(near).cast(pl.Int64)))


def _leaves_out_weekends(first: pl.Series, second: pl.Series) -> bool:
    """Whether no time is at a weekend, though at least one step spans a weekend."""
    if max(first.dt.weekday().max(), second.dt.weekday().max()) > _LAST_WEEKDAY:  # type: ignore[type-var, operator]
        return False
    return bool((second.dt.truncate("1w") > first.dt.truncate("1w")).any())


def _most_common(values: pl.Series) -> int:
    return int(values.mode().sort()[0])


def _share(mask: pl.Series) -> float:
    return float(mask.to_numpy().mean())


def _seasonal_period(micros: int) -> int:
    if micros < _DAY:
        return max(1, _DAY // micros)
    days = micros // _DAY if micros % _DAY == 0 else 0
    if days and days % 7 == 0:
        return max(1, 52 // (days // 7))
    return 7 if days == 1 else 1
