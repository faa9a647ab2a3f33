"""Observation noise: what is measured of a signal, with Gaussian, heavy-tailed, log-normal, Gamma or Poisson errors."""

import numpy as np

from datamodules.time_series.simulated.recursions import Array
from datamodules.time_series.simulated.shapes import coloured_noise, heavy_tailed, log_uniform, uniform

_KINDS = ("additive", "heavy-tailed", "proportional", "log-normal", "gamma", "poisson", "none")
_WEIGHTS = (0.34, 0.12, 0.12, 0.12, 0.08, 0.08, 0.14)


def observe(rng: np.random.Generator, signal: Array) -> Array:
    """Return signals (series, length) of deviation near one with observation noise of a random kind and size.

    Log-normal, Gamma and Poisson noise make the series positive: the signal becomes a rate above zero first.
    """
    series, length = signal.shape
    kinds = rng.choice(len(_KINDS), size=series, p=_WEIGHTS)
    observed = signal.copy()
    for number, kind in enumerate(_KINDS):
        rows = np.flatnonzero(kinds == number)
        if len(rows):
            observed[rows] = _observe(rng, kind, signal[rows], length)
    return observed


def positive_rate(rng: np.random.Generator, signal: Array) -> Array:
    """Map signals (series, length) to rates above zero with mean one: by the exponential or by an offset."""
    series = signal.shape[0]
    lowest = signal.min(axis=1, keepdims=True)
    shifted = signal - lowest + uniform(rng, 0.05, 1.5, series)
    exponential = np.exp(np.clip(signal * uniform(rng, 0.2, 0.9, series), -20, 8))
    rate = np.where(rng.random((series, 1)) < 0.4, exponential, shifted)
    return rate / np.maximum(rate.mean(axis=1, keepdims=True), 1e-12)


def _observe(rng: np.random.Generator, kind: str, signal: Array, length: int) -> Array:
    series = signal.shape[0]
    size = log_uniform(rng, 0.01, 1.0, series)
    if kind == "additive":
        return signal + size * coloured_noise(rng, np.maximum(uniform(rng, -0.5, 0.9, series), 0), length)
    if kind == "heavy-tailed":
        return signal + size * heavy_tailed(rng, uniform(rng, 0.1, 0.35, series), length)
    if kind == "proportional":
        level = np.abs(signal - signal.min(axis=1, keepdims=True)) / 2
        return signal + size * level * rng.standard_normal(signal.shape)
    if kind == "none":
        return signal
    rate = positive_rate(rng, signal)
    if kind == "log-normal":
        return rate * np.exp(0.6 * size * rng.standard_normal(signal.shape))
    if kind == "gamma":
        form = log_uniform(rng, 1.5, 60.0, series)
        return rate * rng.standard_gamma(np.broadcast_to(form, signal.shape)) / form
    assert kind == "poisson", kind
    return rng.poisson(np.minimum(rate * log_uniform(rng, 1.0, 400.0, series), 1e6)).astype(np.float64)
