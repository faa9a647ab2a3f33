"""Recursions over time for batches of series: first-order filters, seasonal sums and noise with a given spectrum."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def first_order(decay: Array, drive: Array) -> Array:
    """Return y_t = decay_t y_{t-1} + drive_t with y_{-1} = 0, for arrays (series, length); `decay` may be (series, 1).

    Blocks of about sqrt(length) steps run side by side, then their ends are carried over: 2 sqrt(length) steps of
    numpy instead of `length`.
    """
    series, length = drive.shape
    size = max(1, int(np.sqrt(length)))
    blocks = -(-length // size)
    padding = ((0, 0), (0, blocks * size - length))
    factor = (
        np.pad(np.broadcast_to(decay, drive.shape), padding).reshape(series, blocks, size).transpose(2, 0, 1).copy()
    )
    value = np.pad(drive, padding).reshape(series, blocks, size).transpose(2, 0, 1).copy()
    for step in range(1, size):
        value[step] += factor[step] * value[step - 1]
        factor[step] *= factor[step - 1]  # the product since the block's start
    carried = np.zeros((series, blocks))
    for block in range(1, blocks):
        carried[:, block] = value[-1, :, block - 1] + factor[-1, :, block - 1] * carried[:, block - 1]
    value += factor * carried
    return value.transpose(1, 2, 0).reshape(series, blocks * size)[:, :length]


def seasonal_sum(values: Array, periods: NDArray[np.int64]) -> Array:
    """Return y_t = y_{t-p} + x_t with each series' own period p, for values (series, length) and periods (series,)."""
    series, length = values.shape
    summed = np.empty_like(values)
    for row in range(series):
        period = int(periods[row])
        cycles = -(-length // period)
        padded = np.pad(values[row], (0, cycles * period - length)).reshape(cycles, period)
        summed[row] = padded.cumsum(axis=0).reshape(-1)[:length]
    return summed


def fft_length(length: int) -> int:
    """Return the power of two that is at least twice the length, so that a periodic sample's ends are not both in it."""
    return 1 << (2 * length - 1).bit_length()


def frequencies(length: int) -> Array:
    """Return the frequencies, in cycles a step, of the spectra that `spectral_noise` takes for this length."""
    size = fft_length(length)
    return np.arange(size // 2 + 1) / size


def spectral_noise(rng: np.random.Generator, amplitude: Array, length: int) -> Array:
    """Draw Gaussian noise (series, length) of variance one with amplitudes (series, n) of the first n `frequencies`.

    The sample is stationary: it is a part of a periodic one (circulant embedding).
    """
    series, count = amplitude.shape
    size = fft_length(length)
    normals = rng.standard_normal((2, series, count))
    power = np.square(amplitude).sum(axis=1, keepdims=True)
    scaled = amplitude * (size / 2 / np.sqrt(np.maximum(power, 1e-300)))
    return np.fft.irfft(scaled * (normals[0] + 1j * normals[1]), n=size, axis=1)[:, :length]


def standardise(values: Array) -> Array:
    """Return each series with mean zero and standard deviation one; a constant series becomes zeros."""
    centred = values - values.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    return np.where(deviation > 1e-12, centred / np.maximum(deviation, 1e-12), 0.0)
