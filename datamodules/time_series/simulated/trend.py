"""Trends and exponential smoothing: lines, bends, growth and saturation, local levels and trends, weak seasons.

The state-space recursions of exponential smoothing (ETS) are sums and, with multiplicative errors, products of the
errors, so they need no loop over time.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array, first_order, seasonal_sum, standardise
from datamodules.time_series.simulated.shapes import (
    chance,
    coloured_noise,
    cycles,
    level_shifts,
    log_uniform,
    repeat,
    season_tables,
    slow_curve,
    uniform,
)


def simulate_trend(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    is_seasonal = (calendars.short < length / 2)[:, None] & chance(rng, 0.6, series)
    period = np.where(is_seasonal, calendars.short[:, None], 12.0)
    values = np.empty((series, length))
    is_fixed = rng.random(series) < 0.5
    for rows, simulate_rows in ((is_fixed, _deterministic), (~is_fixed, _exponential_smoothing)):
        if rows.any():
            values[rows] = simulate_rows(rng, period[rows], is_seasonal[rows], length)
    return values, calendars.nominal


def _deterministic(rng: np.random.Generator, period: Array, is_seasonal: NDArray[np.bool_], length: int) -> Array:
    """Draw a trend of a fixed form plus shifts, a weak season and noise."""
    series = period.shape[0]
    time = np.arange(length) / length
    trend = standardise(_forms(rng, time, series))
    trend += chance(rng, 0.25, series) * level_shifts(rng, series, length, 3)
    season = repeat(season_tables(rng, period), cycles(period, np.floor(uniform(rng, 0, 99, series)) / period, length))
    season *= is_seasonal * log_uniform(rng, 0.03, 0.8, series)
    noise = coloured_noise(rng, np.maximum(uniform(rng, -0.3, 0.95, series), 0), length)
    noise *= log_uniform(rng, 0.01, 0.5, series)
    growth = np.exp(np.clip(uniform(rng, 0.3, 1.2, series) * trend, -6, 6))
    multiplicative = growth * np.exp(0.3 * (season + noise))
    return np.where(chance(rng, 0.35, series), multiplicative, trend + season + noise)


def _forms(rng: np.random.Generator, time: Array, series: int) -> Array:
    rate, centre = log_uniform(rng, 1.0, 20.0, series), uniform(rng, -0.2, 1.2, series)
    breaks = rng.random((6, series, 1))
    changes = rng.standard_normal((6, series, 1)) * (np.arange(6)[:, None, None] < rng.integers(1, 7, (series, 1)))
    bent = rng.standard_normal((series, 1)) * time
    for place, change in zip(breaks, changes, strict=True):
        bent = bent + 2 * change * np.maximum(time - place, 0)
    forms = np.stack(
        [
            np.broadcast_to(time, (series, len(time))),
            bent,
            np.exp(np.minimum(rate, 5.0) * (time - 1)),
            1 / (1 + np.exp(np.clip(-rate * (time - centre), -40, 40))),
            1 - np.exp(-rate * time),
            slow_curve(rng, len(time) * log_uniform(rng, 0.15, 1.0, series), len(time)),
        ]
    )
    kind = rng.choice(len(forms), size=series, p=(0.2, 0.3, 0.1, 0.1, 0.1, 0.2))
    signed: Array = rng.choice((-1.0, 1.0), (series, 1), p=(0.35, 0.65)) * forms[kind, np.arange(series)]
    return signed


def _exponential_smoothing(
    rng: np.random.Generator, period: Array, is_seasonal: NDArray[np.bool_], length: int
) -> Array:
    """Draw from ETS models with random smoothing parameters; a part with multiplicative errors."""
    series = period.shape[0]
    errors = rng.standard_normal((series, length))
    level_gain = np.where(chance(rng, 0.12, series), 0.0, log_uniform(rng, 0.03, 1.3, series))
    trend_gain = np.where(chance(rng, 0.5, series), 0.0, level_gain * log_uniform(rng, 0.002, 0.2, series))
    season_gain = np.where(chance(rng, 0.3, series), 0.0, log_uniform(rng, 0.01, 0.4, series)) * is_seasonal
    damping = np.where(chance(rng, 0.5, series), 1.0, uniform(rng, 0.8, 0.995, series))
    start = rng.standard_normal((series, 1)) * log_uniform(rng, 0.02, 2.0, series) * 4 / np.sqrt(length)
    slope = first_order(damping, np.concatenate([start, trend_gain * errors[:, :-1]], axis=1))
    level = np.cumsum(_before(level_gain * errors) + slope, axis=1)
    season = log_uniform(rng, 0.3, 10.0, series) * is_seasonal
    season = season * repeat(season_tables(rng, period), cycles(period, np.zeros((series, 1)), length))
    steps = np.maximum(np.round(period[:, 0]), 2).astype(np.int64)
    season += seasonal_sum(season_gain * errors, steps) - season_gain * errors
    additive = level + season + errors
    size = log_uniform(rng, 0.005, 0.15, series)  # deviation of a relative error
    logarithm = size * (level + errors) + np.minimum(size, 0.06) * season
    logarithm -= logarithm.mean(axis=1, keepdims=True)
    bound = np.maximum(1.0, np.abs(logarithm).max(axis=1, keepdims=True) / 6)
    return np.where(chance(rng, 0.45, series), np.exp(logarithm / bound), additive)


def _before(errors: Array) -> Array:
    """Return the errors of the step before, zero at the first."""
    return np.concatenate([np.zeros((len(errors), 1)), errors[:, :-1]], axis=1)
