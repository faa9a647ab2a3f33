"""Curves that families share: tables of one cycle, slow curves, factors of days and steps in the level."""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.recursions import Array, fft_length, first_order, spectral_noise, standardise

RESOLUTION = 256  # points of the table of one cycle
_HARMONICS = 12
_GRID = (np.arange(RESOLUTION) + 0.5) / RESOLUTION


def uniform(rng: np.random.Generator, low: float, high: float, series: int) -> Array:
    """Draw one uniform number for each series, (series, 1)."""
    return rng.uniform(low, high, (series, 1))


def log_uniform(rng: np.random.Generator, low: float, high: float, series: int) -> Array:
    """Draw one number for each series, uniform in its logarithm, (series, 1)."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (series, 1)))


def chance(rng: np.random.Generator, probability: float, series: int) -> NDArray[np.bool_]:
    """Draw for each series whether something occurs, (series, 1)."""
    return rng.random((series, 1)) < probability


def look_up(tables: Array, position: Array) -> Array:
    """Interpolate linearly in rows of tables (series, points) at positions (series, length), 0 to points - 1."""
    series, points = tables.shape
    low = position.astype(np.int64)
    np.minimum(low, points - 2, out=low)
    part = position - low
    low += points * np.arange(series)[:, None]
    flat = tables.reshape(-1)
    before = flat.take(low)
    low += 1
    return before + part * (flat.take(low) - before)


def cycles(period: Array, offset: Array, length: int) -> Array:
    """Return the number of cycles since a start before the series, (series, length), for arrays (series, 1)."""
    return (np.arange(length) + 0.5) / period + offset


def repeat(tables: Array, cycle: Array) -> Array:
    """Return the values of tables of one cycle (series, points) at cycle positions (series, length) of any size."""
    points = tables.shape[1]
    closed = np.concatenate([tables, tables[:, :1]], axis=1)
    return look_up(closed, fraction(cycle) * points)


def fraction(cycle: Array) -> Array:
    """Return the position within the cycle, 0 to 1."""
    return cycle - np.floor(cycle)


def slow_curve(rng: np.random.Generator, scale: Array, length: int) -> Array:
    """Draw smooth curves (series, length) of variance one whose features last about `scale` (series, 1) steps."""
    size = 4 * int(np.ceil(length / float(scale.min()))) + 8
    knots = rng.standard_normal((scale.shape[0], size))
    position = np.arange(length) / scale + rng.random((scale.shape[0], 1))
    low = np.floor(position)
    part = position - low
    smooth = part * part * (3 - 2 * part)
    curve = look_up(knots, np.minimum(low + smooth, size - 1.001))
    return curve / np.sqrt(1 - 2 * smooth * (1 - smooth))


def cycle_factors(rng: np.random.Generator, cycle: Array, memory: Array) -> Array:
    """Draw a number of variance one for each cycle, autoregressive with `memory` (series, 1), for (series, length).

    It is interpolated between the middles of cycles, so that it does not jump at midnight.
    """
    position = cycle - np.floor(cycle[:, :1]) + 0.5
    count = int(position.max()) + 2
    noise = rng.standard_normal((cycle.shape[0], count)) * np.sqrt(1 - memory**2)
    noise[:, :1] /= np.sqrt(1 - memory**2)
    return look_up(first_order(memory, noise), position)


def coloured_noise(rng: np.random.Generator, memory: Array, length: int) -> Array:
    """Draw first-order autoregressive noise (series, length) of variance one with coefficients `memory` (series, 1)."""
    drive = rng.standard_normal((memory.shape[0], length)) * np.sqrt(1 - memory**2)
    drive[:, :1] /= np.sqrt(1 - memory**2)
    return first_order(memory, drive)


def smooth_noise(rng: np.random.Generator, scale: Array, length: int) -> Array:
    """Draw Gaussian noise (series, length) of variance one, correlated over about `scale` (series, 1) steps."""
    size = fft_length(length)
    frequency = np.arange(min(size // 2, int(2 * size / max(1.0, float(scale.min())))) + 1) / size
    amplitude = np.exp(-((np.pi * frequency * scale) ** 2)) + 1e-9
    return spectral_noise(rng, amplitude, length)


def level_shifts(rng: np.random.Generator, series: int, length: int, most: int) -> Array:
    """Draw up to `most` steps at random places in each series, (series, length); heights are standard normal."""
    places = rng.uniform(0, length, (series, most))
    heights = rng.standard_normal((series, most)) * (np.arange(most) < rng.integers(0, most + 1, (series, 1)))
    steps = np.zeros((series, length))
    np.add.at(steps, (np.arange(series)[:, None], places.astype(np.int64)), heights)
    return steps.cumsum(axis=1)


def heavy_tailed(rng: np.random.Generator, weight: Array, length: int) -> Array:
    """Draw independent noise (series, length), normal at `weight` (series, 1) 0 and heavy-tailed at .3 (Tukey's h)."""
    normals = rng.standard_normal((weight.shape[0], length))
    return normals * np.exp(np.minimum(weight * normals**2 / 2, 4.0))


def season_tables(rng: np.random.Generator, period: Array) -> Array:
    """Draw a table of one cycle for each series, (series, RESOLUTION), mean 0 and deviation 1, of many kinds of shape.

    Periods (series, 1) of up to 31 steps also get independent values for each step, as months and weekdays have.
    """
    series = period.shape[0]
    is_short = rng.random(series) < np.where(period[:, 0] <= 31, 0.45, 0.0)
    kind = np.where(is_short, len(_TABLES), rng.choice(len(_TABLES), size=series, p=_TABLE_WEIGHTS))
    tables = np.empty((series, RESOLUTION))
    for number, draw in enumerate(_TABLES):
        rows = np.flatnonzero(kind == number)
        if len(rows):
            tables[rows] = draw(rng, len(rows))
    rows = np.flatnonzero(is_short)
    if len(rows):
        tables[rows] = _independent(rng, period[rows])
    return standardise(tables)


def harmonics(rng: np.random.Generator, amplitude: Array) -> Array:
    """Draw tables (series, RESOLUTION) of sums of harmonics with amplitudes (series, count) and random phases."""
    series, count = amplitude.shape
    normals = rng.standard_normal((2, series, count))
    spectrum = np.zeros((series, count + 1), dtype=np.complex128)
    spectrum[:, 1:] = amplitude * (normals[0] + 1j * normals[1]) * (RESOLUTION / 2)
    return np.fft.irfft(spectrum, n=RESOLUTION, axis=1)


def _smooth(rng: np.random.Generator, series: int) -> Array:
    """Draw up to twelve harmonics whose amplitudes fall fast or slowly."""
    order = np.arange(1, _HARMONICS + 1)
    used = order <= rng.integers(1, _HARMONICS + 1, (series, 1))
    return harmonics(rng, used * order ** -uniform(rng, 0.3, 2.5, series))


def _bumps(rng: np.random.Generator, series: int) -> Array:
    """Draw one to three peaks over a flat base, such as a morning and an evening peak."""
    count = rng.integers(1, 4, (series, 1, 1))
    centres = rng.random((series, 3, 1))
    sharpness = np.exp(rng.uniform(np.log(1.5), np.log(40.0), (series, 3, 1)))
    heights = rng.uniform(0.3, 1.0, (series, 3, 1)) * np.where(rng.random((series, 3, 1)) < 0.2, -0.6, 1.0)
    heights = heights * (np.arange(3)[None, :, None] < count)
    bumps = heights * np.exp(sharpness * (np.cos(2 * np.pi * (_GRID - centres)) - 1))
    table: Array = bumps.sum(axis=1)
    return table


def _plateau(rng: np.random.Generator, series: int) -> Array:
    """Draw a day's opening hours: high between two soft edges, with a slope or a dip while high."""
    distance = np.abs((_GRID - uniform(rng, 0, 1, series)) % 1.0 - 0.5)
    width, softness = uniform(rng, 0.1, 0.38, series), log_uniform(rng, 0.004, 0.06, series)
    inside = 1 / (1 + np.exp(np.clip((distance - width) / softness, -40, 40)))
    return inside * (1 - uniform(rng, -0.3, 0.5, series) * np.cos(np.pi * distance / width))


def _skewed_sine(rng: np.random.Generator, series: int) -> Array:
    """Draw a single wave that rises faster than it falls or the other way round, as temperature does."""
    angle = 2 * np.pi * (_GRID + uniform(rng, 0, 1, series))
    return np.sin(angle + uniform(rng, -0.7, 0.7, series) * np.sin(angle + uniform(rng, 0, 6.28, series)))


_TABLES = (_smooth, _bumps, _plateau, _skewed_sine)
_TABLE_WEIGHTS = (0.45, 0.3, 0.1, 0.15)


def _independent(rng: np.random.Generator, period: Array) -> Array:
    """Draw one value for each step of the cycle; half of the series have one or two steps that stand out."""
    series, steps = period.shape[0], 32
    values = rng.standard_normal((series, steps))
    special = (rng.random((series, steps)) < 2 / np.maximum(period, 2)) & chance(rng, 0.5, series)
    values = np.where(special, values * 3, values * np.where(special.any(axis=1, keepdims=True), 0.3, 1.0))
    step = np.minimum((_GRID * np.round(np.minimum(period, steps))).astype(np.int64), steps - 1)
    return np.take_along_axis(values, step, axis=1)
