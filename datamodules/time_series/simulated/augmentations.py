"""Changes of finished series: mixing, warping, clipping, rounding, outliers, gaps, stuck sensors, scale and offset."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.recursions import Array
from datamodules.time_series.simulated.shapes import chance, log_uniform, look_up, slow_curve, uniform

_MOST_MISSING = 0.2


def mix(rng: np.random.Generator, values: Array, probability: float) -> Array:
    """Replace a share of standardised series (series, length) by a convex mixture with another of the batch."""
    series = values.shape[0]
    rows = np.flatnonzero(rng.random(series) < probability)
    weight = uniform(rng, 0.0, 0.5, len(rows))
    mixed = values.copy()
    mixed[rows] = (1 - weight) * values[rows] + weight * values[rng.integers(0, series, len(rows))]
    return mixed


def reshape(rng: np.random.Generator, values: Array) -> Array:
    """Apply changes of form to a share of standardised series: warped time, amplitude, sign, direction, exponential."""
    series, length = values.shape
    rows = np.flatnonzero(rng.random(series) < 0.05)
    if len(rows):
        values[rows] = _warped(rng, values[rows])
    rows = np.flatnonzero(rng.random(series) < 0.08)
    if len(rows):
        scale = length * log_uniform(rng, 0.1, 1.0, len(rows))
        values[rows] *= np.exp(uniform(rng, 0.1, 0.7, len(rows)) * slow_curve(rng, scale, length))
    rows = np.flatnonzero(rng.random(series) < 0.05)
    values[rows] = values[rows, ::-1]
    rows = np.flatnonzero(rng.random(series) < 0.05)
    values[rows] = np.exp(np.clip(uniform(rng, 0.3, 1.2, len(rows)) * values[rows], -6, 6))
    return values * np.where(chance(rng, 0.08, series), -1.0, 1.0)


def disturb(rng: np.random.Generator, values: Array) -> Array:
    """Apply a sensor's faults to a share of standardised series: noise, outliers, clipping and constant stretches."""
    series, length = values.shape
    rows = np.flatnonzero(rng.random(series) < 0.1)
    values[rows] += log_uniform(rng, 0.01, 0.5, len(rows)) * rng.standard_normal((len(rows), length))
    rows = np.flatnonzero(rng.random(series) < 0.08)
    is_outlier = rng.random((len(rows), length)) < log_uniform(rng, 1.0, 0.02 * length + 1.1, len(rows)) / length
    height = uniform(rng, 2.0, 8.0, len(rows)) * rng.choice((-1, 1, 1), (len(rows), 1))
    values[rows] += np.where(is_outlier, height * rng.standard_exponential((len(rows), length)), 0.0)
    for row in np.flatnonzero(rng.random(series) < 0.06):
        low, high = np.quantile(values[row], (rng.uniform(0, 0.4), rng.uniform(0.6, 1.0)))
        side = rng.integers(3)
        values[row] = np.clip(values[row], None if side == 0 else low, None if side == 1 else high)
    for row in np.flatnonzero(rng.random(series) < 0.05):
        values[row] = _stuck(rng, values[row])
    return values


def _stuck(rng: np.random.Generator, values: Array) -> Array:
    """Hold values (length,) in one to three stretches, or each for the same few steps (reported too often)."""
    length = len(values)
    if rng.random() < 0.4:
        step = int(rng.integers(2, 13))
        return np.repeat(values[::step], step)[:length]
    for _ in range(int(rng.integers(1, 4))):
        first = int(rng.integers(length))
        values[first : first + int(length * rng.uniform(0.005, 0.06))] = values[first]
    return values


def rescale(rng: np.random.Generator, values: Array) -> Array:
    """Give standardised series a random scale of many orders of magnitude and an offset; many become positive."""
    series = values.shape[0]
    lowest = values.min(axis=1, keepdims=True)
    has_floor = (values <= lowest + 1e-9).mean(axis=1, keepdims=True) > 0.03  # the sun at night: mostly zero
    offsets = (
        np.zeros((series, 1)),  # around zero
        -lowest,  # zero is the lowest value
        -lowest + log_uniform(rng, 0.05, 30.0, series),  # positive
        rng.standard_normal((series, 1)) * 4,
    )
    kind = rng.choice(len(offsets), size=(series, 1), p=(0.3, 0.15, 0.35, 0.2))
    kind = np.where(has_floor & chance(rng, 0.8, series), 1, kind)
    scaled: Array = (values + np.choose(kind, offsets)) * log_uniform(rng, 1e-3, 1e6, series)
    return scaled


def round_off(rng: np.random.Generator, values: Array, probability: float) -> Array:
    """Round a share of series (series, length) to between 4 and 2,000 levels of their own range."""
    series = values.shape[0]
    spread = np.ptp(values, axis=1, keepdims=True)
    step = spread / log_uniform(rng, 4.0, 2000.0, series)
    is_rounded = chance(rng, probability, series) & (step > 0)
    step = 10.0 ** np.round(np.log10(np.maximum(step, 1e-30))) * rng.choice((1, 1, 0.5), (series, 1))
    is_rounded &= step <= spread / 3
    return np.where(is_rounded, np.round(values / step) * step, values)


def drop(rng: np.random.Generator, values: NDArray[np.float32], probability: float) -> NDArray[np.float32]:
    """Set short gaps of a share of series to NaN, at most a fifth of the steps of each."""
    series, length = values.shape
    for row in np.flatnonzero(rng.random(series) < probability):
        left = int(length * rng.uniform(0.002, _MOST_MISSING))
        mean_gap = float(np.exp(rng.uniform(0, np.log(max(2.0, length / 20)))))
        while left > 0:
            gap = min(left, 1 + int(rng.exponential(mean_gap)))
            first = int(rng.integers(length - gap + 1))
            values[row, first : first + gap] = np.nan
            left -= gap
    return values


def _warped(rng: np.random.Generator, values: Array) -> Array:
    """Resample series along a smooth, increasing path through their own time."""
    series, length = values.shape
    rate = np.exp(uniform(rng, 0.05, 0.4, series) * slow_curve(rng, np.full((series, 1), length / 3), length))
    path = np.cumsum(rate, axis=1)
    path *= uniform(rng, 0.5, 1.0, series) * (length - 1) / path[:, -1:]
    return look_up(values, path)
