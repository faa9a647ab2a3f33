"""Sampling intervals of simulated series, with the cycles that a calendar gives them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NAN = float("nan")


class Sampling(NamedTuple):
    """One sampling interval: cycles in steps (NaN: none) and how often it is drawn for long and for short series."""

    nominal: int  # seasonal period that the interval of timestamps suggests; 0: none
    short: float  # shortest cycle: day, week of daily data, year of weekly to quarterly data
    middle: float  # the next one: the week of hourly data, the month of daily data
    year: float
    long_weight: float  # for lengths of 1,024 steps and more
    short_weight: float  # for lengths of 128 steps and less


SAMPLINGS = (
    Sampling(24, 24, 168, 8766, 0.20, 0.16),  # an hour
    Sampling(48, 48, 336, 17532, 0.06, 0.03),  # half an hour
    Sampling(96, 96, 672, 35064, 0.15, 0.03),  # a quarter of an hour
    Sampling(144, 144, 1008, 52596, 0.09, 0.02),  # ten minutes
    Sampling(288, 288, 2016, _NAN, 0.04, 0.01),  # five minutes
    Sampling(60, 60, 1440, _NAN, 0.02, 0.02),  # a minute
    Sampling(8, 8, 56, 2922, 0.02, 0.02),  # three hours
    Sampling(6, 6, 42, 2191.5, 0.02, 0.02),  # four hours
    Sampling(7, 7, 30.44, 365.25, 0.15, 0.15),  # a day
    Sampling(5, 5, 21, 260.9, 0.02, 0.02),  # a working day
    Sampling(52, 52.18, _NAN, _NAN, 0.06, 0.10),  # a week
    Sampling(12, 12, _NAN, _NAN, 0.05, 0.18),  # a month
    Sampling(4, 4, _NAN, _NAN, 0.01, 0.08),  # a quarter of a year
    Sampling(0, _NAN, _NAN, _NAN, 0.02, 0.08),  # a year
)
_LOG_LENGTHS = (np.log(128), np.log(1024))
_ARBITRARY = 0.1  # share of calendars whose cycles belong to no usual interval


DAYS = (6, 8, 24, 48, 96, 144, 288)  # steps of a day, of the samplings that resolve it


class Calendars(NamedTuple):
    """Calendar of each series of a batch: arrays (series,), cycles in steps, NaN where there is none."""

    nominal: NDArray[np.int64]
    short: NDArray[np.float64]
    middle: NDArray[np.float64]
    year: NDArray[np.float64]


def draw_calendars(rng: np.random.Generator, series: int, length: int) -> Calendars:
    """Draw a calendar for each series, mostly of a usual interval; short series are often monthly to yearly."""
    table = np.array(SAMPLINGS)
    part = np.interp(np.log(length), _LOG_LENGTHS, (0.0, 1.0))
    weights = part * table[:, 4] + (1 - part) * table[:, 5]
    rows = table[rng.choice(len(table), size=series, p=weights / weights.sum())]
    nominal, short, middle, year = (rows[:, column].copy() for column in range(4))
    arbitrary = rng.random(series) < _ARBITRARY
    longest = max(8.0, min(700.0, length / 3))
    period = np.round(np.exp(rng.uniform(np.log(3.0), np.log(longest), series)), rng.integers(0, 2))
    is_named = rng.random(series) < 0.5  # a user may know the period of data without a usual interval
    short = np.where(arbitrary, period, short)
    middle = np.where(arbitrary, np.where(rng.random(series) < 0.3, period * rng.integers(2, 13, series), _NAN), middle)
    year = np.where(arbitrary, _NAN, year)
    nominal = np.where(arbitrary, np.where(is_named, np.round(period), 0), nominal)
    nominal = np.where(rng.random(series) < 0.06, 0, nominal)  # series without timestamps
    return Calendars(nominal.astype(np.int64), short, middle, year)
