"""Cyclical calendar features of timestamps (sine and cosine), which are known for every future step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.timestamps import local_times, to_polars

_Part = Callable[[pl.Series], pl.Series]

# Feature name to its phase at each time: the elapsed fraction of the cycle, in [0, 1).
CALENDAR_FEATURES: dict[str, _Part] = {
    "minute_of_hour": lambda t: (t.dt.minute() + t.dt.second() / 60) / 60,
    "hour_of_day": lambda t: (t.dt.hour() + t.dt.minute() / 60) / 24,
    "day_of_week": lambda t: (t.dt.weekday() - 1) / 7,
    "day_of_month": lambda t: (t.dt.day() - 1) / t.dt.month_end().dt.day(),
    "day_of_year": lambda t: (t.dt.ordinal_day() - 1) / 366,
    "month_of_year": lambda t: (t.dt.month() - 1) / 12,
}


def calendar_features(
    timestamps: NDArray[Any], names: Sequence[str], timezone: str | None = None
) -> NDArray[np.float64]:
    """Return sine and cosine of each of `names` (of `CALENDAR_FEATURES`) at `timestamps` (T,): (T, 2 x names).

    With a `timezone` the timestamps are UTC and the features those of the local time. Integers have none: no names.
    """
    times = local_times(to_polars(timestamps, timezone))
    columns: list[NDArray[Any]] = []
    for name in names:
        angle = 2 * np.pi * CALENDAR_FEATURES[name](times).to_numpy()
        columns += [np.sin(angle), np.cos(angle)]
    return np.column_stack(columns) if columns else np.empty((len(timestamps), 0))
