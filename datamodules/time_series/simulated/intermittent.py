"""Counts with many zeros: intermittent demand, with or without seasons, trends and bursts."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array
from datamodules.time_series.simulated.regime_switching import markov_states
from datamodules.time_series.simulated.shapes import (
    chance,
    coloured_noise,
    cycles,
    log_uniform,
    repeat,
    season_tables,
    slow_curve,
    uniform,
)

_LARGEST_MEAN = 1e5


def simulate_intermittent(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) of whole numbers from zero and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    is_seasonal = (calendars.short < length / 2)[:, None] & chance(rng, 0.7, series)
    period = np.where(is_seasonal, calendars.short[:, None], 7.0)
    cycle = cycles(period, np.floor(uniform(rng, 0, 99, series)) / period, length)
    season = is_seasonal * uniform(rng, 0.2, 1.6, series) * repeat(season_tables(rng, period), cycle)
    slow = slow_curve(rng, length * log_uniform(rng, 0.1, 1, series), length)
    bursts = coloured_noise(rng, uniform(rng, 0.3, 0.98, series), length)
    logarithm = season + uniform(rng, 0.0, 0.8, series) * slow
    logarithm += chance(rng, 0.5, series) * uniform(rng, 0.1, 0.6, series) * bursts
    mean = log_uniform(rng, 0.05, 300.0, series) * np.exp(np.clip(logarithm, -8, 5))
    is_overdispersed = chance(rng, 0.5, series)
    form = log_uniform(rng, 0.3, 20.0, series)  # of the Gamma mixture that makes a negative binomial of a Poisson
    rows = np.flatnonzero(is_overdispersed)
    mean[rows] *= rng.standard_gamma(np.broadcast_to(form[rows], mean[rows].shape)) / form[rows]
    counts = rng.poisson(np.minimum(mean, _LARGEST_MEAN)).astype(np.float64)
    return counts * _open(rng, series, length) * _pack(rng, series), calendars.nominal


def _open(rng: np.random.Generator, series: int, length: int) -> NDArray[np.bool_]:
    """Draw the steps at which anything can be sold: all, independent ones, or spells."""
    independent = rng.random((series, length)) < uniform(rng, 0.05, 0.9, series)
    spells = markov_states(rng, series, length) > 0
    kind = rng.choice(3, size=(series, 1), p=(0.45, 0.4, 0.15))
    return np.where(kind == 0, True, np.where(kind == 1, independent, spells))


def _pack(rng: np.random.Generator, series: int) -> NDArray[np.int64]:
    """Draw the number of pieces in a pack, mostly one, (series, 1)."""
    return np.where(chance(rng, 0.15, series), rng.choice((2, 5, 6, 10, 12, 100), (series, 1)), 1)
