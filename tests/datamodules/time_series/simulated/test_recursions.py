"""Recursions without loops over time equal the loops; noise has the spectrum that was asked for."""

import numpy as np
import pytest

from datamodules.time_series.simulated.recursions import (
    fft_length,
    first_order,
    frequencies,
    seasonal_sum,
    spectral_noise,
    standardise,
)


@pytest.mark.parametrize("length", [1, 2, 17, 100, 1000])
def test_first_order_equals_the_loop(length: int) -> None:
    rng = np.random.default_rng(0)
    decay, drive = rng.uniform(-1, 1, (3, length)), rng.standard_normal((3, length))
    expected, value = np.empty_like(drive), np.zeros(3)
    for step in range(length):
        value = decay[:, step] * value + drive[:, step]
        expected[:, step] = value
    np.testing.assert_allclose(first_order(decay, drive), expected, rtol=0, atol=1e-12)


def test_first_order_takes_one_decay_for_each_series() -> None:
    drive = np.zeros((2, 50))
    drive[:, 0] = 1.0
    expected = np.array([[0.5], [1.0]]) ** np.arange(50)
    np.testing.assert_allclose(first_order(np.array([[0.5], [1.0]]), drive), expected, atol=1e-15)


def test_seasonal_sum_equals_the_loop() -> None:
    values = np.random.default_rng(0).standard_normal((3, 101))
    periods = np.array([1, 7, 101])
    expected = values.copy()
    for row, period in enumerate(periods):
        for step in range(period, 101):
            expected[row, step] += expected[row, step - period]
    np.testing.assert_allclose(seasonal_sum(values, periods), expected, atol=1e-12)


@pytest.mark.parametrize("length", [1, 16, 33, 512, 700, 2048, 2176])
def test_fft_length_is_twice_the_length_and_has_small_factors(length: int) -> None:
    size = fft_length(length)
    assert 2 * length <= size <= 3 * length
    for factor in (2, 3, 5, 7):
        while size % factor == 0:
            size //= factor
    assert size == 1


def test_spectral_noise_has_the_autocovariance_of_its_spectrum() -> None:
    memory, length = 0.8, 512
    amplitude = 1 / np.abs(1 - memory * np.exp(-2j * np.pi * frequencies(length)))
    noise = spectral_noise(np.random.default_rng(0), np.tile(amplitude, (400, 1)), length)
    assert noise.shape == (400, length)
    for lag in (0, 1, 5):
        covariance = (noise[:, lag:] * noise[:, : length - lag]).mean()
        assert covariance == pytest.approx(memory**lag, abs=0.03)


def test_standardise() -> None:
    values = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    done = standardise(values)
    np.testing.assert_allclose(done[0], np.array([-1, 0, 1]) * np.sqrt(1.5))
    np.testing.assert_array_equal(done[1], 0.0)
    assert values[0, 0] == 1.0
