"""Weather at a station: sunshine, rain, wind, humidity and temperature, each with its day."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import DAYS, draw_calendars
from datamodules.time_series.simulated.recursions import Array
from datamodules.time_series.simulated.shapes import (
    chance,
    coloured_noise,
    cycle_factors,
    cycles,
    fraction,
    log_uniform,
    slow_curve,
    smooth_noise,
    uniform,
)


def simulate_weather(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,), the steps of a day or 0."""
    short = draw_calendars(rng, series, length).short
    longest = max(24.0, length / 2)
    day = np.where(np.isin(short, DAYS) & (short < longest), short, rng.choice((24, 24, 48, 96, 144), series))
    day = np.where(day < longest, day, 24.0)[:, None]
    values = np.empty((series, length))
    kinds = rng.choice(len(_MEASUREMENTS), size=series, p=_WEIGHTS)
    for number, measure in enumerate(_MEASUREMENTS):
        rows = np.flatnonzero(kinds == number)
        if len(rows):
            values[rows] = measure(rng, day[rows], length)
    return values, np.where(rng.random(series) < 0.06, 0, day[:, 0]).astype(np.int64)


def _sunshine(rng: np.random.Generator, day: Array, length: int) -> Array:
    """Draw power of the sun: zero at night, days of other lengths over the year, clouds of hours and days."""
    series = day.shape[0]
    cycle = cycles(day, uniform(rng, 0, 1, series), length)
    height = np.cos(2 * np.pi * fraction(cycle))
    slow = slow_curve(rng, np.maximum(length * log_uniform(rng, 0.3, 1.0, series), 8 * day), length)
    horizon = uniform(rng, -0.35, 0.45, series) + 0.08 * slow
    clear = np.maximum(height - horizon, 0) / (1 - horizon)
    cloudy = cycle_factors(rng, cycle, uniform(rng, 0.0, 0.8, series))
    passing = coloured_noise(rng, np.exp(-1 / (day * log_uniform(rng, 0.02, 0.3, series))), length)
    cover = uniform(rng, 0.3, 2.0, series) * cloudy + uniform(rng, 0.1, 1.5, series) * passing
    cover -= uniform(rng, 0.0, 2.0, series)  # clear skies are more frequent
    clouds = 1 - uniform(rng, 0.5, 0.95, series) / (1 + np.exp(-np.clip(2 * cover, -30, 30)))
    power = clear ** uniform(rng, 0.7, 1.3, series) * clouds
    limit = np.where(chance(rng, 0.2, series), 0.75, 2.0)  # of an inverter
    limited: Array = np.minimum(power, limit)
    return limited


def _rain(rng: np.random.Generator, day: Array, length: int) -> Array:
    """Draw showers: zero most of the time, then amounts that differ a hundredfold."""
    series = len(day)
    cloud = 0.8 * coloured_noise(rng, np.exp(-1 / (day * log_uniform(rng, 0.1, 3.0, series))), length)
    cloud += 0.6 * smooth_noise(rng, np.maximum(day * log_uniform(rng, 0.05, 1.0, series), 1.5), length)
    return np.maximum(cloud - uniform(rng, 0.2, 1.4, series), 0.0) ** uniform(rng, 1.0, 2.0, series)


def _wind(rng: np.random.Generator, day: Array, length: int) -> Array:
    """Draw the length of a wind vector: never negative, gusty, often stronger by day."""
    series = len(day)
    memory = np.exp(-1 / (day * log_uniform(rng, 0.1, 3.0, series)))
    sea_breeze = uniform(rng, 0.0, 1.2, series) * np.cos(2 * np.pi * cycles(day, uniform(rng, 0, 1, series), length))
    east = coloured_noise(rng, memory, length) + sea_breeze
    north = coloured_noise(rng, memory, length) + uniform(rng, 0.0, 2.0, series)
    gust = np.exp(uniform(rng, 0.0, 0.4, series) * rng.standard_normal((series, length)))
    return np.sqrt(east**2 + north**2) * gust


def _humidity(rng: np.random.Generator, day: Array, length: int) -> Array:
    """Draw a share that cannot exceed one: it stays near one on wet days and at night."""
    series = len(day)
    logit = uniform(rng, -0.5, 1.5, series) + uniform(rng, 0.5, 2.0, series) * _daily_wave(rng, day, length)
    logit += uniform(rng, 0.3, 1.5, series) * smooth_noise(rng, day * log_uniform(rng, 0.5, 6.0, series), length)
    logit += uniform(rng, 0.05, 0.5, series) * coloured_noise(rng, uniform(rng, 0.5, 0.98, series), length)
    share = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    return np.minimum(share, np.where(chance(rng, 0.3, series), uniform(rng, 0.8, 0.98, series), 1.0))


def _temperature(rng: np.random.Generator, day: Array, length: int) -> Array:
    """Draw a daily wave, larger on clear days, on air masses that come and go, with fronts that pass within hours."""
    series = len(day)
    mass = coloured_noise(rng, np.exp(-1 / (day * log_uniform(rng, 1.0, 6.0, series))), length)
    mass += 0.6 * smooth_noise(rng, day * log_uniform(rng, 1.5, 8.0, series), length)
    season = slow_curve(rng, np.maximum(length * log_uniform(rng, 0.4, 1.0, series), 10 * day), length)
    wave = _daily_wave(rng, day, length) * log_uniform(rng, 0.3, 3.0, series)
    jitter = log_uniform(rng, 0.01, 0.2, series) * rng.standard_normal((series, length))
    return wave + mass + uniform(rng, 0.0, 2.0, series) * season + jitter


def _daily_wave(rng: np.random.Generator, day: Array, length: int) -> Array:
    """Draw a day's wave (series, length) whose height differs from day to day and which rises faster than it falls."""
    series = len(day)
    cycle = cycles(day, uniform(rng, 0, 1, series), length)
    height = np.exp(uniform(rng, 0.1, 0.6, series) * cycle_factors(rng, cycle, uniform(rng, 0.2, 0.9, series)))
    angle = 2 * np.pi * fraction(cycle)
    return height * np.cos(angle + uniform(rng, 0.1, 0.5, series) * np.sin(angle + 0.5))


_MEASUREMENTS = (_sunshine, _rain, _wind, _humidity, _temperature)
_WEIGHTS = (0.3, 0.12, 0.13, 0.15, 0.3)
