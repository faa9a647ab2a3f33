"""Regime switching: mean, variance, season or autocorrelation change with a hidden Markov state."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array, first_order
from datamodules.time_series.simulated.shapes import (
    chance,
    cycles,
    heavy_tailed,
    log_uniform,
    repeat,
    season_tables,
    uniform,
)

_STATES = 3


def simulate_regime_switching(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    is_seasonal = (calendars.short < length / 3)[:, None] & chance(rng, 0.6, series)
    period = np.where(is_seasonal, calendars.short[:, None], 24.0)
    state = markov_states(rng, series, length)
    # Two or three of the four properties switch; the others keep the first state's value.
    switches = rng.random((4, series, 1)).argsort(axis=0) < rng.integers(2, 4, (series, 1))
    mean = _of_state(rng.standard_normal((series, _STATES)) * 1.5, state, switches[0])
    deviation = _of_state(np.exp(rng.uniform(-2.0, 0.7, (series, _STATES))), state, switches[1])
    pull = _of_state(np.exp(rng.uniform(np.log(0.005), np.log(0.9), (series, _STATES))), state, switches[2])
    # An Ornstein-Uhlenbeck process with the state's mean, pull towards it and variance.
    noise = heavy_tailed(rng, np.maximum(uniform(rng, -0.3, 0.2, series), 0), length)
    drive = pull * mean + deviation * np.sqrt(pull * (2 - pull)) * noise
    drive[:, :1] = mean[:, :1]
    level = first_order(1 - pull, drive)
    season = _season_of_state(rng, state * switches[3], period, length)
    values = level + is_seasonal * log_uniform(rng, 0.3, 4.0, series) * season
    values += log_uniform(rng, 0.01, 0.3, series) * rng.standard_normal(values.shape)
    positive = np.exp(np.clip(uniform(rng, 0.2, 0.6, series) * values, -8, 8))
    return np.where(chance(rng, 0.3, series), positive, values), calendars.nominal


def markov_states(rng: np.random.Generator, series: int, length: int) -> NDArray[np.int64]:
    """Draw paths (series, length) of two or three states that last from 1/50 to the whole of the series on average."""
    stay = np.maximum(length * log_uniform(rng, 0.02, 0.7, series), 4.0)
    count = rng.integers(2, _STATES + 1, (series, 1))
    is_change = rng.random((series, length)) < 1 / stay
    step = np.where(is_change, 1 + (rng.random((series, length)) * (count - 1)).astype(np.int64), 0)
    return np.cumsum(step, axis=1) % count


def _of_state(values: Array, state: NDArray[np.int64], switches: NDArray[np.bool_]) -> Array:
    """Return each step's value, of its state's or, where it does not switch, of the first, (series, length)."""
    return np.take_along_axis(values, state * switches, axis=1)


def _season_of_state(rng: np.random.Generator, state: NDArray[np.int64], period: Array, length: int) -> Array:
    """Draw a season (series, length) with a shape and an amplitude for each state."""
    series = period.shape[0]
    cycle = cycles(period, np.floor(uniform(rng, 0, 99, series)) / period, length)
    season = np.zeros((series, length))
    for number in range(_STATES):
        shape = uniform(rng, 0.2, 1.5, series) * repeat(season_tables(rng, period), cycle)
        season += np.where(state == number, shape, 0.0)
    return season
