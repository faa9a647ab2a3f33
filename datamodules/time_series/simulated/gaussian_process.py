"""Gaussian processes with composed kernels, sampled from their spectral densities.

The kernels are sums of RBF, Matern, rational quadratic, periodic, locally periodic (periodic times RBF), constant,
linear and white-noise kernels, and products of these with a linear kernel. A stationary kernel is its spectral density;
times a linear kernel, its sample is multiplied by a line.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array, frequencies, spectral_sample, standardise
from datamodules.time_series.simulated.shapes import (
    chance,
    cycles,
    harmonics,
    log_uniform,
    repeat,
    uniform,
)

_SMOOTH = 3  # stationary kernels without a period, at most
_ORDERS = np.array([0.5, 1.5, 2.5, np.inf])  # of the Matern kernel; infinite is the RBF kernel
_HARMONICS = 8


def simulate_gaussian_process(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    period = np.where(calendars.short < length / 2, calendars.short, length)[:, None]
    is_seasonal = (calendars.short < length / 2)[:, None] & chance(rng, 0.8, series)
    amplitude = np.zeros((series, len(frequencies(length))))
    growing = np.zeros_like(amplitude)  # the kernels that are multiplied by a linear one
    for order in range(_SMOOTH):
        power = _smooth_density(rng, series, length) * rng.gamma(0.7, 1.0, (series, 1))
        power = power * (order < rng.integers(1, _SMOOTH + 1, (series, 1)))
        is_growing = chance(rng, 0.15, series)
        amplitude += np.where(is_growing, 0.0, power)
        growing += np.where(is_growing, power, 0.0)
    local = is_seasonal & chance(rng, 0.5, series)
    amplitude += local * log_uniform(rng, 0.1, 6.0, series) * _locally_periodic_density(rng, period, length)
    line = 2 * (np.arange(length) / length - uniform(rng, -1.0, 1.0, series))
    values = spectral_sample(rng, amplitude, length) + line * spectral_sample(rng, growing, length)
    periodic = log_uniform(rng, 0.3, 3.0, series) * _periodic(rng, period, length)
    values += (is_seasonal & ~local) * periodic * np.where(chance(rng, 0.2, series), line, 1.0)
    deviation = np.sqrt(values.var(axis=1, keepdims=True)) + 1e-3
    slope = chance(rng, 0.4, series) * log_uniform(rng, 0.1, 3.0, series) * rng.choice((-1, 1), (series, 1))
    white = chance(rng, 0.7, series) * log_uniform(rng, 0.01, 0.7, series)
    values += deviation * (slope * line + white * rng.standard_normal(values.shape))
    return standardise(values), calendars.nominal


def _normalised(density: Array) -> Array:
    normalised: Array = density / np.maximum(density.sum(axis=1, keepdims=True), 1e-300)
    return normalised


def _smooth_density(rng: np.random.Generator, series: int, length: int) -> Array:
    """Draw an RBF, Matern or rational quadratic kernel with a length scale of two steps to the whole series."""
    frequency = frequencies(length)
    scale = log_uniform(rng, 2.0, length, series)
    order = rng.choice(_ORDERS, size=(series, 1))
    squared = np.square(2 * np.pi * frequency * scale)
    exponent = np.where(np.isfinite(order), order, 1.0)
    matern = (2 * exponent / (2 * exponent + squared)) ** (exponent + 0.5)
    rbf = np.exp(-np.minimum(squared / 2, 700))
    # A rational quadratic kernel is a mixture of RBF kernels of Gamma-distributed precision.
    mixture = np.zeros_like(squared)
    for precision in rng.gamma(1.0, 1.0, (3, series, 1)) + 0.02:
        mixture += _normalised(np.exp(-np.minimum(squared / (2 * precision), 700)))
    density = np.where(np.isfinite(order), matern, np.where(chance(rng, 0.4, series), mixture, rbf))
    return _normalised(density)


def _harmonic_powers(rng: np.random.Generator, series: int) -> Array:
    """Draw the Fourier series of a periodic kernel: powers (series, harmonics) that fade with its length scale."""
    order = np.arange(1, _HARMONICS + 1)
    powers = np.exp(-(order**2 - 1) / 2 * log_uniform(rng, 0.2, 1.5, series) ** 2)
    return _normalised(powers)


def _locally_periodic_density(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw a periodic kernel times an RBF kernel: lines at the harmonics, as wide as the pattern changes fast."""
    frequency = frequencies(length)
    powers = _harmonic_powers(rng, period.shape[0])
    width = 1 / (2 * np.pi * period * log_uniform(rng, 2.0, 40.0, period.shape[0]))
    width = np.maximum(width, frequency[1] / 2)
    harmonic = np.clip(np.round(frequency * period), 1, _HARMONICS)  # lines of other harmonics are too far to matter
    distance = (frequency - harmonic / period) / width
    chosen = np.take_along_axis(powers, harmonic.astype(np.int64) - 1, axis=1)
    return _normalised(chosen * np.exp(-np.minimum(distance**2 / 2, 700)))


def _periodic(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw a sample of a periodic kernel, (series, length)."""
    series = period.shape[0]
    table = harmonics(rng, np.sqrt(_harmonic_powers(rng, series)))
    return repeat(table, cycles(period, uniform(rng, 0, 1, series), length))
