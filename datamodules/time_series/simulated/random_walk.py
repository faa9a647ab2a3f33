"""Random walks with drift, stochastic volatility, jumps and heavy tails, and noise of any Hurst exponent."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array, first_order, frequencies, spectral_noise
from datamodules.time_series.simulated.shapes import chance, coloured_noise, heavy_tailed, log_uniform, uniform


def simulate_random_walk(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and the nominal periods (series,) of calendars that they ignore."""
    nominal = draw_calendars(rng, series, length).nominal
    values = np.empty((series, length))
    is_walk = rng.random(series) < 2 / 3
    for rows, simulate_rows in ((is_walk, _walks), (~is_walk, _fractional)):
        if rows.any():
            values[rows] = simulate_rows(rng, int(rows.sum()), length)
    return values, nominal


def _walks(rng: np.random.Generator, series: int, length: int) -> Array:
    """Draw sums of increments; a part is pulled back to a level, a part is the logarithm of the series."""
    noise = heavy_tailed(rng, np.maximum(uniform(rng, -0.15, 0.3, series), 0), length)
    increments = noise * np.where(chance(rng, 0.5, series), _volatility(rng, noise), 1.0)
    increments += chance(rng, 0.4, series) * rng.standard_normal((series, 1)) * 2 / np.sqrt(length)  # drift
    increments += chance(rng, 0.25, series) * _jumps(rng, series, length)
    pull = np.where(chance(rng, 0.3, series), log_uniform(rng, 1.0, 60.0, series) / length, 0.0)
    momentum = np.where(chance(rng, 0.3, series), uniform(rng, -0.4, 0.8, series), 0.0)
    path = first_order(np.clip(1 - pull, 0, 1), first_order(momentum, increments))
    path += chance(rng, 0.3, series) * log_uniform(rng, 0.1, 3.0, series) * rng.standard_normal(path.shape)
    path -= path.mean(axis=1, keepdims=True)
    spread = np.maximum(np.abs(path).max(axis=1, keepdims=True), 1e-9)
    prices = np.exp(path / spread * log_uniform(rng, 0.05, 2.5, series))
    return np.where(chance(rng, 0.5, series), prices, path)


def _volatility(rng: np.random.Generator, noise: Array) -> Array:
    """Draw the deviation of each increment (series, length): GARCH(1, 1) of the noise, or log-autoregressive."""
    series, length = noise.shape
    reaction = uniform(rng, 0.03, 0.3, series)
    memory = (1 - reaction) * uniform(rng, 0.8, 0.99, series)
    before = np.concatenate([np.ones((series, 1)), np.minimum(noise[:, :-1] ** 2, 30.0)], axis=1)
    drive = np.broadcast_to(1 - memory - reaction, noise.shape).copy()
    drive[:, 0] = 1.0
    garch = np.sqrt(np.minimum(first_order(reaction * before + memory, drive), 1e4))
    logarithm = coloured_noise(rng, np.exp(-1 / (length * log_uniform(rng, 0.01, 0.3, series))), length)
    return np.where(chance(rng, 0.5, series), garch, np.exp(uniform(rng, 0.2, 1.0, series) * logarithm))


def _jumps(rng: np.random.Generator, series: int, length: int) -> Array:
    """Draw rare large increments, about one to ten in a series."""
    is_jump = rng.random((series, length)) < log_uniform(rng, 1.0, 10.0, series) / length
    return np.where(is_jump, rng.standard_normal((series, length)) * np.sqrt(length) / 4, 0.0)


def _fractional(rng: np.random.Generator, series: int, length: int) -> Array:
    """Draw fractional Gaussian noise of Hurst exponents .1 to .98, and its sums (fractional Brownian motion)."""
    frequency = frequencies(length)
    hurst = uniform(rng, 0.1, 0.98, series)
    amplitude = np.zeros((series, len(frequency)))
    amplitude[:, 1:] = frequency[1:] ** (0.5 - hurst)
    noise = spectral_noise(rng, amplitude, length)
    return np.where(chance(rng, 0.6, series), np.cumsum(noise, axis=1), noise)
