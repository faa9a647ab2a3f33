"""SARIMA processes drawn by their poles, with a seasonal carrier times an envelope and observation noise.

The recipe follows SarSim0 (ICLR 2026): poles inside the unit circle make every draw stable; ordinary and seasonal unit
roots are added at random. The filters run in the frequency domain.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import draw_calendars
from datamodules.time_series.simulated.recursions import (
    Array,
    frequencies,
    seasonal_sum,
    spectral_noise,
    standardise,
)
from datamodules.time_series.simulated.shapes import (
    chance,
    coloured_noise,
    cycles,
    heavy_tailed,
    log_uniform,
    repeat,
    season_tables,
    slow_curve,
    uniform,
)

_POLES = 3  # pairs of conjugate poles at most
_ERRORS = {  # kinds of observation noise and how often each is drawn
    "additive": 0.34,
    "heavy-tailed": 0.12,
    "proportional": 0.12,
    "log-normal": 0.12,
    "gamma": 0.08,
    "poisson": 0.08,
    "none": 0.14,
}


def simulate_sarima(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length) and their nominal periods (series,)."""
    calendars = draw_calendars(rng, series, length)
    period = np.where(calendars.short < length / 2, calendars.short, np.nan)[:, None]
    is_seasonal = np.isfinite(period)
    process = sarima_process(rng, period, length)
    base = standardise(process)
    carrier = _carrier(rng, np.where(is_seasonal, period, length), length)
    envelope = np.exp(uniform(rng, 0.0, 0.8, series) * slow_curve(rng, _envelope_scale(rng, period, length), length))
    weight = np.where(is_seasonal & chance(rng, 0.75, series), log_uniform(rng, 0.3, 6.0, series), 0.0)
    signal = standardise(base + weight * carrier * envelope)
    return observe(rng, signal), calendars.nominal


def sarima_process(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw SARIMA processes (series, length) with seasonal periods (series, 1), NaN for none."""
    series = period.shape[0]
    is_seasonal = np.isfinite(period)
    steps = np.where(is_seasonal, np.round(period), 1)
    shift = np.exp(-2j * np.pi * frequencies(length))
    response = _by_poles(rng, shift, series)
    seasonal = np.choose(
        rng.choice(3, size=(series, 1), p=(0.3, 0.3, 0.4)),
        (np.zeros((series, 1)), uniform(rng, 0.2, 0.95, series), 1 - log_uniform(rng, 1e-3, 5e-2, series)),
    )
    seasonal = np.where(is_seasonal, seasonal, 0.0)
    season_shift = np.exp(-2j * np.pi * (frequencies(length) * steps % 1.0))
    response /= np.abs(1 - seasonal * season_shift)
    response *= np.abs(1 + uniform(rng, -0.6, 0.4, series) * season_shift * is_seasonal)
    process = spectral_noise(rng, response, length)
    is_integrated = chance(rng, 0.3, series)
    process = np.where(is_integrated, np.cumsum(process, axis=1), process)
    rows = np.flatnonzero(chance(rng, 0.1, series) & is_seasonal & ~is_integrated)
    if len(rows):
        process[rows] = seasonal_sum(process[rows], steps[rows, 0].astype(np.int64))
    return process


def _by_poles(rng: np.random.Generator, shift: NDArray[np.complex128], series: int) -> Array:
    """Return the magnitude (series, frequencies) of ARMA filters with random poles and zeros."""
    response = np.ones((series, len(shift)))
    count = rng.integers(1, _POLES + 1, (series, 1))
    for order in range(_POLES):
        radius = np.where(order < count, 1 - log_uniform(rng, 0.004, 0.9, series), 0.0)
        angle = np.where(chance(rng, 0.55, series), 0.0, np.pi * rng.beta(0.8, 2.0, (series, 1)))
        first, second = -2 * radius * np.cos(angle), radius**2
        is_single = (angle == 0) & chance(rng, 0.7, series)  # one real pole instead of a double one
        first, second = np.where(is_single, -radius, first), np.where(is_single, 0.0, second)
        response /= np.abs(1 + (first + second * shift) * shift)
    zero = np.where(chance(rng, 0.5, series), uniform(rng, -0.9, 0.7, series), 0.0)
    return response * np.abs(1 + zero * shift)


def _carrier(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Draw the seasonal pattern that the envelope multiplies: a fixed one, or one that changes from cycle to cycle."""
    cycle = cycles(period, np.floor(rng.uniform(0, 1000, period.shape)) / period, length)
    table = season_tables(rng, period)
    other = season_tables(rng, period)
    change = chance(rng, 0.4, period.shape[0]) * slow_curve(rng, np.maximum(period * 4, length / 8), length)
    return repeat(table, cycle) + 0.5 * change * repeat(other, cycle)


def _envelope_scale(rng: np.random.Generator, period: Array, length: int) -> Array:
    """Return the duration (series, 1) of an envelope's features: several seasons or a part of the series."""
    shortest = np.where(np.isfinite(period), 3 * period, 8.0)
    return np.maximum(shortest, length * log_uniform(rng, 0.05, 1.0, period.shape[0]))


def observe(rng: np.random.Generator, signal: Array) -> Array:
    """Return signals (series, length) of deviation near one with observation noise of a random kind and size.

    Log-normal, Gamma and Poisson noise make the series positive: the signal becomes a rate above zero first.
    """
    kinds = rng.choice(len(_ERRORS), size=len(signal), p=list(_ERRORS.values()))
    observed = signal.copy()
    for number, kind in enumerate(_ERRORS):
        rows = np.flatnonzero(kinds == number)
        if len(rows):
            size = log_uniform(rng, 0.01, 1.0, len(rows))
            if kind in ("log-normal", "gamma", "poisson"):
                observed[rows] = _positive(rng, kind, _rate(rng, signal[rows]), size)
            elif kind != "none":
                observed[rows] += size * _error(rng, kind, signal[rows])
    return observed


def _error(rng: np.random.Generator, kind: str, signal: Array) -> Array:
    """Draw errors (series, length) of deviation one that are added to the signal."""
    series, length = signal.shape
    if kind == "heavy-tailed":
        return heavy_tailed(rng, uniform(rng, 0.1, 0.35, series), length)
    if kind == "proportional":
        height: Array = signal - signal.min(axis=1, keepdims=True)
        return height / 2 * rng.standard_normal(signal.shape)
    assert kind == "additive", kind
    return coloured_noise(rng, np.maximum(uniform(rng, -0.5, 0.9, series), 0), length)


def _positive(rng: np.random.Generator, kind: str, rate: Array, size: Array) -> Array:
    """Draw observations (series, length) above or at zero of rates with mean one."""
    if kind == "log-normal":
        return rate * np.exp(0.6 * size * rng.standard_normal(rate.shape))
    if kind == "gamma":
        form = np.minimum(1 / size, 60.0) + 0.5
        return rate * rng.standard_gamma(np.broadcast_to(form, rate.shape)) / form
    assert kind == "poisson", kind
    return rng.poisson(np.minimum(rate * 4 / size**1.2, 1e6)).astype(np.float64)


def _rate(rng: np.random.Generator, signal: Array) -> Array:
    """Map signals (series, length) to rates above zero with mean one: by the exponential or by an offset."""
    series = len(signal)
    shifted = signal - signal.min(axis=1, keepdims=True) + uniform(rng, 0.05, 1.5, series)
    exponential = np.exp(np.clip(signal * uniform(rng, 0.2, 0.9, series), -20, 8))
    rate: Array = np.where(chance(rng, 0.4, series), exponential, shifted)
    rate /= np.maximum(rate.mean(axis=1, keepdims=True), 1e-12)
    return rate
