"""Parsing of timestamps, local times of a time zone, and their text in messages.

In polars, times are datetimes in microseconds, with a time zone where one is set, or integers. In numpy they are
datetime64 (UTC where a time zone is set) or int64.
"""

from datetime import datetime
from typing import Any

import polars as pl
from numpy.typing import NDArray

from titans_seq.errors import InputError

_EPOCHS = {10: "seconds", 13: "milliseconds", 16: "microseconds", 19: "nanoseconds"}  # by digits, of present times
_OFFSET = r"\d(Z|[+-]\d\d:?\d\d)$"


def parse_timestamps(
    column: pl.Series, where: str, time_format: str | None, timezone: str | None = None, series: pl.Series | None = None
) -> pl.Series:
    """Parse a column of dates, times, integers or text to datetimes in microseconds, or to integers.

    Args:
        column: Parquet types, or text: ISO 8601 (also 2024-03 and 2024-Q1) or integers without a `time_format`.
        where: prefix of errors.
        time_format: strftime format of text.
        timezone: the times become those of this zone: times with an offset are converted, others are local times in it.
            None keeps the named zone of the column; other times with an offset become UTC without a zone.
        series: name of each row's series, to tell apart the two hours of the same name when clocks go back.

    Raises InputError with the first value that is no timestamp.
    """
    if time_format is None and (integers := _integers(column)) is not None:
        if timezone is not None:
            raise InputError(f"{where}: data.timezone={timezone} does not apply to integers")
        parsed = integers
    elif column.dtype == pl.Date:
        parsed = column.cast(pl.Datetime("us"))
    elif isinstance(column.dtype, pl.Datetime):
        timezone = timezone or _named_zone(column.dtype.time_zone)
        parsed = column.cast(pl.Datetime("us", column.dtype.time_zone))
    else:
        parsed = _parse_text(column, time_format)
    if parsed.null_count():
        raise _not_a_time(column, parsed, where, time_format)
    return parsed if parsed.dtype == pl.Int64 else _in_zone(parsed, where, timezone, series)


def has_offsets(column: pl.Series) -> bool:
    """Whether times are given with their offset from UTC, or with a time zone."""
    if isinstance(column.dtype, pl.Datetime):
        return column.dtype.time_zone is not None
    return column.dtype == pl.String and bool(column.str.strip_chars().str.contains(_OFFSET).any())


def localise(wall: pl.Series, timezone: str | None, ambiguous: pl.Series | None = None) -> pl.Series:
    """Return the times in `timezone` of local times `wall`, which have no zone; None returns them as they are.

    Times that clocks going forward skip are moved by as much; of times that occur twice, the earlier is taken, or what
    `ambiguous` says ("earliest" or "latest").
    """
    if timezone is None:
        return wall
    earliest = pl.Series(["earliest"]).new_from_index(0, len(wall)) if ambiguous is None else ambiguous
    times = wall.dt.replace_time_zone(timezone, ambiguous=earliest, non_existent="null")
    if not times.null_count():
        return times
    before = pl.col("wall").dt.offset_by("-1d").dt.replace_time_zone(timezone, ambiguous="earliest")
    moved = pl.DataFrame({"wall": wall.filter(times.is_null())}).select(before.dt.offset_by("24h")).to_series()
    skipped = times.is_null().to_numpy().nonzero()[0]
    return times.scatter(skipped, moved)


def local_times(times: pl.Series) -> pl.Series:
    """Return times as their clocks show them, without a zone; integers as they are."""
    return times if times.dtype == pl.Int64 else times.dt.replace_time_zone(None)


def to_polars(times: NDArray[Any], timezone: str | None) -> pl.Series:
    """Return times (T,), datetime64 (UTC where there is a zone) or int64, as polars holds them."""
    if times.dtype.kind == "i":
        return pl.Series(times, dtype=pl.Int64)
    series = pl.Series(times.astype("datetime64[us]"))
    return series if timezone is None else series.dt.replace_time_zone("UTC").dt.convert_time_zone(timezone)


def timestamp_text(time: datetime | int) -> str:
    """Format a time as briefly as possible: a date alone at midnight, seconds only if they are not 0."""
    if isinstance(time, int):
        return str(time)
    return f"{time:%Y-%m-%d}" if _is_midnight(time) else f"{time:%Y-%m-%d} {_clock(time)}"


def span_text(begin: datetime | int, end: datetime | int) -> str:
    """Format a time span without repeating the date."""
    if isinstance(begin, int) or isinstance(end, int) or (_is_midnight(begin) and _is_midnight(end)):
        return f"{timestamp_text(begin)} to {timestamp_text(end)}" if begin != end else timestamp_text(begin)
    if begin == end:
        return f"{begin:%Y-%m-%d} {_clock(begin)}"
    day = "" if begin.date() == end.date() else f"{end:%Y-%m-%d} "
    return f"{begin:%Y-%m-%d} {_clock(begin)} to {day}{_clock(end)}"


def _integers(column: pl.Series) -> pl.Series | None:
    """Return a column of integers, null where a cell is none; None unless most cells are integers.

    Integers that are dates or Unix times also give None.
    """
    if column.dtype.is_integer():
        text = column.cast(pl.String)
    elif column.dtype == pl.String:
        text = column.str.strip_chars()
    else:
        return None
    cells = text.drop_nulls()
    are_integers = cells.str.contains(r"^[+-]?\d{1,18}$")
    if 2 * are_integers.sum() <= len(cells) or _integer_hint(cells.filter(are_integers)):
        return None
    return text.cast(pl.Int64, strict=False)


def _integer_hint(cells: pl.Series) -> str:
    """Return what to do about integers that are dates or Unix times; an empty string for others."""
    digits = cells.str.len_bytes().unique()
    if len(digits) != 1 or not cells.str.contains(r"^\d+$").all():
        return ""
    if digits[0] in _EPOCHS:
        unit = _EPOCHS[digits[0]]
        todo = 'Set data.time_format="%s"' if unit == "seconds" else "Convert the column to timestamps"
        return f"{unit} since 1970? {todo}"
    for pattern, form in (
        (r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$", "%Y%m%d"),
        (r"^(19|20)\d\d(0[1-9]|1[0-2])$", "%Y%m"),
    ):
        if cells.str.contains(pattern).all():
            return f"dates? Set data.time_format={form}"
    return ""


def _parse_text(column: pl.Series, time_format: str | None) -> pl.Series:
    """Return the times of text, null where it has none, with the zone UTC if the text has offsets."""
    text = column.cast(pl.String).str.strip_chars()
    if time_format is None:  # 01/02/2024 is ambiguous (January or February), so only ISO 8601 needs no format
        quarter = text.str.extract(r"^\d{4}[- ]?[Qq]([1-4])$")
        first_month = (quarter.cast(pl.Int64) * 3 - 2).cast(pl.String).str.zfill(2)
        text = text.zip_with(quarter.is_null(), text.str.head(4) + "-" + first_month)
        text = text.str.replace(r"^(\d{4}-\d{2})$", "${1}-01")
        text = text.set(~text.str.contains(r"^\d{4}-\d{2}-\d{2}").fill_null(True), None)
    elif not any(part in time_format for part in ("%d", "%e", "%D", "%F", "%c", "%j", "%x", "%s", "%v")):
        text, time_format = text + " 01", f"{time_format} %d"  # months: their first days
        if not any(part in time_format for part in ("%m", "%b", "%B", "%h")):
            text, time_format = text + " 01", f"{time_format} %m"
    zone = "UTC" if time_format is None and bool(text.str.contains(_OFFSET).any()) else None
    try:
        return text.str.to_datetime(time_format, strict=False, time_unit="us", time_zone=zone)
    except pl.exceptions.ComputeError:  # polars raises if no value looks like a time
        return pl.Series([None] * len(text), dtype=pl.Datetime("us", zone))


def _not_a_time(column: pl.Series, parsed: pl.Series, where: str, time_format: str | None) -> InputError:
    row = int(parsed.is_null().arg_max() or 0)
    found = column.cast(pl.String)[row]
    value = "an empty cell" if found is None else repr(found)
    if parsed.dtype == pl.Int64:
        return InputError(f"{where}: {value} in row {row + 1} is not an integer, as the times of most rows are")
    hint = 'set data.time_format, such as "%d.%m.%Y %H:%M"'
    if found and found.isdigit():
        hint = _integer_hint(pl.Series([found])) or hint
    wanted = "ISO 8601, such as 2024-03-10 01:00" if time_format is None else f"data.time_format={time_format}"
    return InputError(f"{where}: {value} in row {row + 1} is not a timestamp in {wanted}; {hint}")


def _named_zone(zone: str | None) -> str | None:
    """Return the zone of a column if it is one with rules, such as Europe/Berlin; not UTC and not a fixed offset."""
    return zone if zone is not None and "/" in zone else None


def _in_zone(times: pl.Series, where: str, timezone: str | None, series: pl.Series | None) -> pl.Series:
    """Return times in `timezone`: converted if they have a zone, else taken as local times."""
    try:
        if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
            utc = times.dt.convert_time_zone(timezone or "UTC")
            return utc if timezone else utc.dt.replace_time_zone(None)
        if timezone is None:
            return times
        return _localise_cells(times, where, timezone, series)
    except pl.exceptions.ComputeError:
        raise InputError(
            f"data.timezone={timezone}: unknown time zone; expected a name such as Europe/Berlin or America/New_York"
        ) from None


def _localise_cells(wall: pl.Series, where: str, timezone: str, series: pl.Series | None) -> pl.Series:
    """Return the times of a table's local times; of two equal ones of a series the second is an hour later."""
    names = pl.Series([""]).new_from_index(0, len(wall)) if series is None else series
    rows = pl.DataFrame({"wall": wall, "series": names})
    is_second = rows.select(pl.col("wall").cum_count().over("wall", "series") == 2).to_series()
    if len(wall) and wall[0] > wall[-1]:  # newest first
        is_second = rows.select(
            (pl.col("wall").cum_count().over("wall", "series") == 1) & (pl.len().over("wall", "series") == 2)
        ).to_series()
    chosen = pl.DataFrame({"second": is_second}).select(
        pl.when("second").then(pl.lit("latest")).otherwise(pl.lit("earliest"))
    )
    times = localise(wall, timezone, chosen.to_series())
    skipped = local_times(times) != wall
    if skipped.any() and wall.dt.time().n_unique() > 1:  # days that begin at a skipped midnight are no error
        row = int(skipped.arg_max() or 0)
        raise InputError(
            f"{where}: {timestamp_text(wall[row])} in row {row + 1} does not exist in data.timezone={timezone}, where "
            "clocks go forward; are these times of another zone?"
        )
    return times


def _is_midnight(time: datetime) -> bool:
    return (time.hour, time.minute, time.second, time.microsecond) == (0, 0, 0, 0)


def _clock(time: datetime) -> str:
    if time.microsecond:
        return f"{time:%H:%M:%S.%f}"
    return f"{time:%H:%M:%S}" if time.second else f"{time:%H:%M}"
