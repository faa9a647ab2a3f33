"""One time from which all series of a panel are forecast."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from datamodules.time_series.series import Series
from datamodules.time_series.steps import times_after
from datamodules.time_series.timestamps import local_times, parse_timestamps, timestamp_text, to_polars
from titans_seq.errors import InputError

LAST = "last"  # stands for the last time of any series


def cut_at_origin(panel: Sequence[Series], origin: str) -> tuple[list[Series], Any]:
    """Return the rows of every series up to an origin, and the origin: the last time up to then of any series.

    Series that start after it are left out. `origin` is ISO 8601 or an integer, a local time where the series have a
    zone, or "last". Raises InputError for another one, and for one before the first or after the last time.
    """
    first, last = (f(series.timestamps[row] for series in panel) for f, row in ((min, 0), (max, -1)))
    wanted = last if origin == LAST else _parse(origin, panel[0])
    if not first <= wanted <= last:
        texts = [time_text(time, panel[0].timezone) for time in (first, last)]
        raise InputError(f"--origin {origin}: expected a time from {texts[0]} to {texts[1]}, or {LAST}")
    counts = [int(np.searchsorted(series.timestamps, wanted, side="right")) for series in panel]
    kept = [series.head(count) for series, count in zip(panel, counts, strict=True) if count]
    return kept, max(series.timestamps[-1] for series in kept)


def steps_until(series: Series, time: Any, interval: str) -> int:
    """Return the number of steps after the last row of a series that are not after `time`."""
    count = 1
    while (after := times_after(series.timestamps, interval, count, series.timezone).to_numpy())[-1] <= time:
        count *= 2
    return int((after <= time).sum())


def time_text(time: Any, timezone: str | None) -> str:
    """Format a time of a series for a message, as local clocks show it."""
    return timestamp_text(local_times(to_polars(np.array([time]), timezone))[0])


def _parse(origin: str, like: Series) -> Any:
    """Return a time as those of a series; raises InputError for text that is none."""
    is_integer = like.timestamps.dtype.kind == "i"
    try:
        times = parse_timestamps(pl.Series([origin]), "", None, like.timezone)
    except InputError:
        times = pl.Series([])
    if times.is_empty() or (times.dtype == pl.Int64) != is_integer:
        example = "240" if is_integer else "2024-03-10 01:00"
        raise InputError(f"--origin {origin}: expected a time such as {example}, or {LAST}")
    return times.to_numpy().astype(like.timestamps.dtype)[0]
