"""Multi-seasonal templates: day times week times year, with days that differ, holidays and weather-like residuals."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array, standardise
from datamodules.time_series.simulated.shapes import (
    RESOLUTION,
    chance,
    coloured_noise,
    cycle_factors,
    cycles,
    heavy_tailed,
    level_shifts,
    log_uniform,
    look_up,
    repeat,
    season_tables,
    slow_curve,
    smooth_noise,
    uniform,
)

_DAYS = 7


def simulate_multi_seasonal(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    short = np.where(np.isfinite(calendars.short), calendars.short, 12.0)[:, None]  # a yearly series: a business cycle
    # A cycle starts at a whole step, so that a table of independent values is read at whole steps.
    short_cycle = cycles(short, np.floor(rng.uniform(0, 1000, short.shape)) / short, length)
    season = _varied_season(rng, short, short_cycle, length)
    season += _middle_season(rng, calendars.middle[:, None], short, short_cycle, length)
    year_cycle = cycles(np.nan_to_num(calendars.year, nan=8 * length)[:, None], uniform(rng, 0, 1, series), length)
    slow_season = _yearly(rng, year_cycle)
    amplitude = np.exp(uniform(rng, 0.0, 0.5, series) * _yearly(rng, year_cycle))
    season *= np.where(chance(rng, 0.5, series), amplitude, 1.0)
    weather = _weather(rng, short, short_cycle, length)
    level = _level(rng, series, length)
    noise = _noise(rng, season, length)
    additive = (
        season
        + log_uniform(rng, 0.1, 3.0, series) * slow_season
        + log_uniform(rng, 0.05, 1.5, series) * weather
        + chance(rng, 0.7, series) * log_uniform(rng, 0.1, 3.0, series) * level
        + noise
    )
    contrast = uniform(rng, 0.15, 0.8, series)
    multiplicative = np.exp(np.clip(contrast * standardise(additive), -8, 8))
    return np.where(chance(rng, 0.4, series), multiplicative, additive), calendars.nominal


def _varied_season(rng: np.random.Generator, period: Array, cycle: Array, length: int) -> Array:
    """Draw the shortest season (series, length): its amplitude, shape and phase vary from cycle to cycle."""
    series = period.shape[0]
    table, other = season_tables(rng, period), season_tables(rng, period)
    memory = uniform(rng, 0.0, 0.97, series)
    spread = np.where(chance(rng, 0.75, series), log_uniform(rng, 0.05, 0.7, series), 0.0)
    strength = np.exp(spread * cycle_factors(rng, cycle, memory))
    is_smooth = period > 16  # a shorter cycle has one value a step, which a moved phase would blur
    phase = np.where(chance(rng, 0.2, series) & is_smooth, 0.02, 0.0) * cycle_factors(rng, cycle, memory)
    change = np.where(chance(rng, 0.5, series), log_uniform(rng, 0.05, 0.6, series), 0.0)
    moved = cycle + phase
    season = strength * repeat(table, moved)
    return season + change * cycle_factors(rng, cycle, uniform(rng, 0.3, 0.99, series)) * repeat(other, moved)


def _middle_season(rng: np.random.Generator, middle: Array, short: Array, cycle: Array, length: int) -> Array:
    """Draw the effect of the middle cycle, such as the week of hourly data, (series, length).

    Where it is a whole number of short cycles, up to seven, each of these gets its own factor and part of a weekend's
    shape; elsewhere it is a pattern of its own.
    """
    series = middle.shape[0]
    ratio = np.round(middle / short)
    is_week = np.isfinite(middle) & (ratio == _DAYS) & chance(rng, 0.65, series)
    week = np.where(is_week, look_up_week(rng, series, short, cycle), 0.0)
    is_other = np.isfinite(middle) & ~is_week & chance(rng, 0.3, series)
    period = np.where(is_other, middle, 8.0 * length)
    pattern = repeat(season_tables(rng, period), cycles(period, uniform(rng, 0, 1, series), length))
    return week + np.where(is_other, log_uniform(rng, 0.1, 1.0, series) * pattern, 0.0)


def look_up_week(rng: np.random.Generator, series: int, short: Array, cycle: Array) -> Array:
    """Draw weekday and weekend effects (series, length) for days counted by `cycle`, with some holidays."""
    shape = season_tables(rng, short)
    level = 0.15 * rng.standard_normal((series, _DAYS))
    is_weekend = np.arange(_DAYS) >= _DAYS - rng.integers(1, 3, (series, 1))
    level = level + is_weekend * uniform(rng, -2.0, 0.7, series)
    weekend = is_weekend * uniform(rng, 0.0, 1.0, series)
    table = level[:, :, None] + weekend[:, :, None] * shape[:, None, :]
    table = table.reshape(series, _DAYS * RESOLUTION)
    day = np.floor(cycle)
    first = day[:, :1]
    count = int((day[:, -1:] - first).max()) + 1
    is_holiday = (rng.random((series, count)) < 0.02) & chance(rng, 0.4, series)
    weekday = (first + rng.integers(0, _DAYS, (series, 1)) + np.arange(count)) % _DAYS
    weekday = np.where(is_holiday, _DAYS - 1, weekday)  # a holiday is a Sunday
    today = np.take_along_axis(weekday, (day - first).astype(np.int64), axis=1)
    closed = np.concatenate([table, table[:, :1]], axis=1)
    return look_up(closed, (today + cycle - day) * RESOLUTION)


def _yearly(rng: np.random.Generator, cycle: Array) -> Array:
    """Draw a smooth pattern of the year (series, length): one wave, often with a second and a third harmonic."""
    series = cycle.shape[0]
    tables = np.zeros((series, RESOLUTION))
    grid = 2 * np.pi * np.arange(RESOLUTION) / RESOLUTION
    for order, size in ((1, 1.0), (2, 0.4), (3, 0.2)):
        tables += size * rng.standard_normal((series, 1)) * np.cos(order * grid + uniform(rng, 0, 6.28, series))
    return repeat(tables, cycle)


def _weather(rng: np.random.Generator, period: Array, cycle: Array, length: int) -> Array:
    """Draw the residual of a day or several days: smooth, autoregressive, or a level of each cycle."""
    series = period.shape[0]
    scale = np.clip(period * log_uniform(rng, 0.15, 8.0, series), 2.0, length)
    kinds = np.stack(
        [
            smooth_noise(rng, scale, length),
            coloured_noise(rng, np.exp(-1 / scale), length),
            cycle_factors(rng, cycle, uniform(rng, 0.2, 0.95, series)),
        ]
    )
    weather: Array = kinds[rng.choice(3, size=series, p=(0.3, 0.5, 0.2)), np.arange(series)]
    return weather


def _level(rng: np.random.Generator, series: int, length: int) -> Array:
    """Draw the slow level: a line, a slow curve, a random walk or a few shifts."""
    line = np.arange(length) / length * rng.standard_normal((series, 1)) * 2
    curve = slow_curve(rng, length * log_uniform(rng, 0.1, 1.0, series), length)
    walk = np.cumsum(rng.standard_normal((series, length)), axis=1) / np.sqrt(length)
    kinds = np.stack([line, curve, walk, level_shifts(rng, series, length, 3)])
    return kinds[rng.choice(4, size=series, p=(0.25, 0.3, 0.3, 0.15)), np.arange(series)]


def _noise(rng: np.random.Generator, season: Array, length: int) -> Array:
    """Draw noise of each step; for some series it grows with the season's level."""
    series = season.shape[0]
    height = season - season.min(axis=1, keepdims=True)
    height /= np.maximum(height.mean(axis=1, keepdims=True), 1e-9)
    noise = heavy_tailed(rng, np.maximum(uniform(rng, -0.3, 0.25, series), 0), length)
    return log_uniform(rng, 0.01, 0.8, series) * noise * np.where(chance(rng, 0.3, series), height, 1.0)
