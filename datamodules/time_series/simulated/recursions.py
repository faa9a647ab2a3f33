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
    factor, value = np.zeros((2, size, series, blocks))
    padded = np.zeros((series, blocks * size))
    for blocked, values in ((factor, decay), (value, drive)):
        padded[:, :length] = values
        blocked[:] = padded.reshape(series, blocks, size).transpose(2, 0, 1)
    for step in range(1, size):
        value[step] += factor[step] * value[step - 1]
        factor[step] *= factor[step - 1]  # the product since the block's start
    carried = np.zeros((series, blocks))
    for block in range(1, blocks):
        carried[:, block] = value[-1, :, block - 1] + factor[-1, :, block - 1] * carried[:, block - 1]
    value += factor * carried
    joined: Array = value.transpose(1, 2, 0).reshape(series, blocks * size)[:, :length]
    return joined


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
    """Return a fast length of at least twice `length`: a periodic sample's two ends are not both in a series."""
    quarter = 1 << max(0, (2 * length - 1).bit_length() - 3)
    return quarter * -(-2 * length // quarter)


def frequencies(length: int) -> Array:
    """Return the frequencies, in cycles a step, of the spectra that `spectral_noise` takes for this length."""
    size = fft_length(length)
    return np.arange(size // 2 + 1) / size


def spectral_sample(rng: np.random.Generator, density: Array, length: int) -> Array:
    """Draw Gaussian series (series, length) with power densities (series, n) at the first n `frequencies`.

    The sample is stationary: it is a part of a periodic one (circulant embedding). Its variance is the density's sum,
    with half the weight of frequency zero.
    """
    size = fft_length(length)
    normals = rng.standard_normal((2, *density.shape))
    spectrum = np.sqrt(density) * (size / 2) * (normals[0] + 1j * normals[1])
    spectrum[:, 0] *= np.sqrt(2)  # its imaginary part is not used
    return np.fft.irfft(spectrum, n=size, axis=1)[:, :length]


def spectral_noise(rng: np.random.Generator, amplitude: Array, length: int) -> Array:
    """Draw Gaussian noise (series, length) of variance one with amplitudes (series, n) of the first n `frequencies`."""
    density = np.square(amplitude)
    power = density.sum(axis=1, keepdims=True) - density[:, :1] / 2
    return spectral_sample(rng, density / np.maximum(power, 1e-300), length)


def standardise(values: Array) -> Array:
    """Return each series with mean zero and standard deviation one; a constant series becomes zeros."""
    centred: Array = values - values.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("ij,ij->i", centred, centred) / values.shape[1])[:, None]
    centred /= np.maximum(deviation, 1e-12)
    centred[deviation[:, 0] <= 1e-12] = 0.0
    return centred
