"""Machines: waves of several forms, spikes, damped oscillations, thermostats and chaotic maps."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import Array, fft_length, frequencies, standardise
from datamodules.time_series.simulated.shapes import (
    chance,
    coloured_noise,
    cycle_factors,
    cycles,
    fraction,
    log_uniform,
    slow_curve,
    uniform,
)


def simulate_physical(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    period = np.where(calendars.short < length / 2, calendars.short, 12.0)[:, None]
    machine = np.maximum(length * log_uniform(rng, 0.003, 0.25, series), 4.0)  # a period that no calendar knows
    period = np.where(chance(rng, 0.5, series), machine, period)
    values = np.empty((series, length))
    kinds = rng.choice(len(_KINDS), size=series, p=_WEIGHTS)
    for number, draw in enumerate(_KINDS):
        rows = np.flatnonzero(kinds == number)
        if len(rows):
            values[rows] = draw(rng, period[rows], length)
    size = chance(rng, 0.6, series) * log_uniform(rng, 0.005, 0.4, series) * values.std(axis=1, keepdims=True)
    values += size * coloured_noise(rng, np.maximum(uniform(rng, -0.6, 0.9, series), 0), length)
    return values, calendars.nominal


def _drifting_cycles(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw cycle positions (series, length) whose rate is constant, drifts, or differs from cycle to cycle."""
    series = period.shape[0]
    drift = slow_curve(rng, np.maximum(length * log_uniform(rng, 0.1, 1.0, series), 2 * period), length)
    jitter = cycle_factors(rng, cycles(period, np.zeros_like(period), length), np.full_like(period, 0.3))
    kind = rng.choice(3, size=(series, 1), p=(0.5, 0.25, 0.25))
    size = log_uniform(rng, 0.01, 0.25, series)
    rate = np.exp(size * np.where(kind == 0, 0.0, np.where(kind == 1, drift, jitter)))
    return np.cumsum(rate, axis=1) / period + uniform(rng, 0, 1, series)


def _sines(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw one to three sines whose frequencies and amplitudes drift."""
    series = period.shape[0]
    values = np.zeros((series, length))
    for order in range(3):
        used = order < rng.integers(1, 4, (series, 1))
        other = period * (1.0 if order == 0 else log_uniform(rng, 0.2, 5.0, series))
        angle = 2 * np.pi * fraction(_drifting_cycles(rng, other, length))
        envelope = np.exp(uniform(rng, 0, 0.6, series) * slow_curve(rng, np.maximum(3 * other, length / 6), length))
        values += used * uniform(rng, 0.3, 1.0, series) * envelope * np.sin(angle)
    return values


def _sawtooth(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw asymmetric triangles: filling and emptying of a store."""
    phase = fraction(_drifting_cycles(rng, period, length))
    peak = np.where(chance(rng, 0.4, len(period)), 0.02, uniform(rng, 0.05, 0.95, len(period)))
    wave = np.where(phase < peak, phase / peak, (1 - phase) / (1 - peak))
    wave = wave ** log_uniform(rng, 0.5, 2.0, len(period))
    height = cycle_factors(rng, cycles(period, 0 * period, length), 0 * period)
    return wave * (1 + uniform(rng, 0, 0.3, len(period)) * height)


def _square(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw a machine that is on for a part of each cycle, at a load that differs from cycle to cycle."""
    cycle = _drifting_cycles(rng, period, length)
    series = len(period)
    count = int((np.floor(cycle[:, -1:]) - np.floor(cycle[:, :1])).max()) + 1
    index = (np.floor(cycle) - np.floor(cycle[:, :1])).astype(np.int64)
    height = 1 + uniform(rng, 0, 0.5, series) * chance(rng, 0.5, series) * rng.standard_normal((series, count))
    height *= rng.random((series, count)) > 0.15 * chance(rng, 0.3, series)  # cycles left out
    duty = uniform(rng, 0.1, 0.8, series)
    return np.where(fraction(cycle) < duty, np.take_along_axis(height, index, axis=1), 0.0)


def _spikes(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw sharp pulses that decay, at regular or random times, over a slow base."""
    series = period.shape[0]
    cycle = _drifting_cycles(rng, period, length)
    regular = np.floor(cycle) != np.floor(np.concatenate([cycle[:, :1], cycle[:, :-1]], axis=1))
    random = rng.random((series, length)) < 1 / period
    heights = np.exp(uniform(rng, 0, 0.7, series) * rng.standard_normal((series, length)))
    impulses = np.where(np.where(chance(rng, 0.6, series), regular, random), heights, 0.0)
    decay = np.exp(-1 / np.maximum(period * log_uniform(rng, 0.01, 0.5, series), 0.3))
    pulses = _filtered(impulses, 1 / (1 - decay * np.exp(-2j * np.pi * frequencies(length))))
    return pulses + uniform(rng, 0, 0.3, series) * slow_curve(rng, np.maximum(period, length / 8), length)


def _damped(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw oscillations that are struck at random times and fade."""
    series = period.shape[0]
    struck = rng.random((series, length)) < log_uniform(rng, 1.5, 30.0, series) / length
    impulses = np.where(struck, rng.standard_normal((series, length)), 0.0)
    impulses[:, 0] = 1.0
    radius = np.exp(-1 / (period * log_uniform(rng, 0.5, 12.0, series)))
    shift = np.exp(-2j * np.pi * frequencies(length))
    response = 1 / (1 - (2 * radius * np.cos(2 * np.pi / period) - radius**2 * shift) * shift)
    shifts = np.cumsum(np.where(struck, rng.standard_normal((series, length)), 0.0), axis=1)
    struck_again: Array = standardise(_filtered(impulses, response)) + chance(rng, 0.3, series) * shifts
    return struck_again


def _filtered(values: Array, response: NDArray[np.complex128]) -> Array:
    """Return values (series, length) filtered by a frequency response, with zeros before the first step."""
    length = values.shape[1]
    size = fft_length(length)
    return np.fft.irfft(np.fft.rfft(values, n=size, axis=1) * response, n=size, axis=1)[:, :length]


def _thermostat(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw a controlled temperature: exponential heating and cooling between two thresholds, as cycles drift."""
    series = period.shape[0]
    phase = fraction(_drifting_cycles(rng, period, length))
    duty, rate = uniform(rng, 0.15, 0.85, series), uniform(rng, 0.5, 4.0, series)
    heating = (1 - np.exp(-rate * phase / duty)) / (1 - np.exp(-rate))
    cooling = (np.exp(-rate * (phase - duty) / (1 - duty)) - np.exp(-rate)) / (1 - np.exp(-rate))
    wave = np.where(phase < duty, heating, cooling)
    base = slow_curve(rng, np.maximum(length * log_uniform(rng, 0.1, 1.0, series), 4 * period), length)
    controlled: Array = wave + uniform(rng, 0, 1.0, series) * base
    return controlled


def _chaotic(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw logistic maps and the Lorenz system, one series after another (no vectorised form exists)."""
    values = np.empty((len(period), length))
    for row in range(len(period)):
        path = _logistic(rng, length) if rng.random() < 0.4 else _lorenz(rng, length)
        values[row] = path
    return values


def _logistic(rng: np.random.Generator, length: int) -> list[float]:
    growth, value, path = float(rng.uniform(3.5, 4.0)), float(rng.uniform(0.1, 0.9)), []
    for _ in range(length):
        value = growth * value * (1 - value)
        path.append(value)
    return path


def _lorenz(rng: np.random.Generator, length: int) -> list[float]:
    x, y, z = float(rng.normal()), float(rng.normal()), 25.0 + float(rng.normal())
    step, path = float(rng.uniform(0.005, 0.015)), []  # Euler's method diverges at longer steps
    for _ in range(length):
        x, y, z = x + step * 10 * (y - x), y + step * (x * (28 - z) - y), z + step * (x * y - 8 / 3 * z)
        path.append(x)
    return path


_KINDS = (_sines, _sawtooth, _square, _spikes, _damped, _thermostat, _chaotic)
_WEIGHTS = (0.22, 0.15, 0.17, 0.15, 0.12, 0.15, 0.04)
