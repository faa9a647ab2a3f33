"""Simulated transformer data: hourly loads and oil temperature, generated from a fixed seed; no file is needed.

Four feeders follow daily and weekly cycles over a slow drift. The daily profile depends on the regime (heating,
cooling, mild, shutdown), which changes every one to two weeks and recurs: a forecaster must infer the regime from its
context, which no single linear map of the past can do, and benefits from remembering the pattern of each regime. The
oil temperature follows the ambient cycle and, with some hours' lag, the total load.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.series import Series, SplitBoundaries

_HOURS = 24 * 7 * 60  # 60 weeks: 36 to train, 12 to validate, 12 to test
_FEEDERS = 4
_SEED = 20250101


class SimulatedSeries:
    """The built-in simulated dataset: deterministic, 10,080 hours of five channels."""

    simulated = True
    seasonal_period = 24  # hours of a day

    def prepare(self) -> None:
        """Do nothing: no file is needed."""

    def load(self) -> Series:
        """Generate the series."""
        rng = np.random.default_rng(_SEED)
        hours = np.arange(_HOURS)
        loads = _loads(hours, _regimes(rng), rng)
        oil = _oil_temperature(hours, loads.sum(axis=1), rng)
        return Series(
            name="synthetic",
            timestamps=np.datetime64("2025-01-06T00", "ns") + hours.astype("timedelta64[h]"),
            channels=[*(f"load_{i}" for i in range(1, _FEEDERS + 1)), "oil_temperature"],
            values=np.column_stack([loads, oil]),
            boundaries=SplitBoundaries(train=_HOURS * 36 // 60, validation=_HOURS * 48 // 60, test=_HOURS),
        )


def _regimes(rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the regime of every hour: spells of 6 to 14 days, never the same regime twice in a row."""
    regimes = np.empty(_HOURS, dtype=np.int64)
    hour, current = 0, 0
    while hour < _HOURS:
        spell = 24 * int(rng.integers(6, 15))
        regimes[hour : hour + spell] = current
        hour += spell
        current = (current + int(rng.integers(1, len(_PEAKS)))) % len(_PEAKS)
    return regimes


# For each regime: hour, height (MW) and width (hours) of the day's two peaks, and the base load (MW).
_PEAKS = [
    ((7.0, 6.0, 2.0), (19.0, 8.0, 3.0), 10.0),  # heating: morning and evening
    ((14.0, 10.0, 4.0), (21.0, 3.0, 2.0), 8.0),  # cooling: one broad afternoon
    ((9.0, 3.0, 3.0), (18.0, 4.0, 3.0), 7.0),  # mild: low and flat
    ((2.0, 5.0, 3.0), (12.0, -3.0, 4.0), 5.0),  # shutdown: night tariff only
]


def _loads(hours: NDArray[np.int64], regimes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the loads of the feeders, (hours, feeders), in MW."""
    hour_of_day, weekend = hours % 24, (hours // 24) % 7 >= 5
    days = np.stack([_day_shape(*peaks) for peaks in _PEAKS])  # (regimes, 24)
    columns = []
    for feeder in range(_FEEDERS):
        delay = 2 * feeder  # residential feeders peak before commercial ones
        shape = np.roll(days, delay, axis=1)[regimes, hour_of_day]
        calendar = np.where(weekend, 0.9 - 0.15 * feeder, 1.0)
        drift = 1.0 + 0.15 * np.sin(2 * np.pi * (hours / _HOURS + feeder / _FEEDERS)) + 0.05 * hours / _HOURS
        noise = _autoregressive(rng.normal(0.0, 0.35, len(hours)), 0.8)
        columns.append((1.0 + 0.4 * feeder) * shape * calendar * drift + noise)
    return np.column_stack(columns)


def _day_shape(first: tuple[float, ...], second: tuple[float, ...], base: float) -> NDArray[np.float64]:
    day = np.full(24, base)
    for hour, height, width in (first, second):
        distance = (np.arange(24) - hour + 12) % 24 - 12  # circular, across midnight
        day += height * np.exp(-0.5 * (distance / width) ** 2)
    return day


def _oil_temperature(
    hours: NDArray[np.int64], total_load: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the oil temperature in degrees Celsius: ambient cycle plus load heating with a 6-hour time constant."""
    ambient: NDArray[np.float64] = (
        12 + 6 * np.sin(2 * np.pi * hours / _HOURS) + 4 * np.sin(2 * np.pi * (hours - 9) / 24)
    )
    weather = _autoregressive(rng.normal(0.0, 0.4, len(hours)), 0.95)
    heat = _autoregressive(0.002 * total_load**2, 1 - 1 / 6) / 6
    temperature: NDArray[np.float64] = ambient + weather + heat
    return temperature


def _autoregressive(innovations: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Return x_t = decay x_{t-1} + innovation_t, started at its mean."""
    values = np.empty_like(innovations)
    value = innovations.mean() / (1 - decay)
    for t, innovation in enumerate(innovations):
        value = decay * value + innovation
        values[t] = value
    return values
