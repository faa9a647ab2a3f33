"""Each family of simulated series shows the property that it is there for."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.time_series.simulated.calendars import SAMPLINGS, draw_calendars
from datamodules.time_series.simulated.causal_graph import simulate_causal_graph
from datamodules.time_series.simulated.gaussian_process import simulate_gaussian_process
from datamodules.time_series.simulated.intermittent import simulate_intermittent
from datamodules.time_series.simulated.mixture import MIXTURE
from datamodules.time_series.simulated.multi_seasonal import simulate_multi_seasonal
from datamodules.time_series.simulated.physical import simulate_physical
from datamodules.time_series.simulated.random_walk import simulate_random_walk
from datamodules.time_series.simulated.regime_switching import markov_states, simulate_regime_switching
from datamodules.time_series.simulated.sarima import sarima_process, simulate_sarima
from datamodules.time_series.simulated.trend import simulate_trend
from datamodules.time_series.simulated.weather import simulate_weather

SERIES, LENGTH = 200, 1000
FAMILIES = [pytest.param(simulate, id=name) for name, (_, simulate) in MIXTURE.items()]


def draw(simulate, seed: int = 0, series: int = SERIES, length: int = LENGTH):
    return simulate(np.random.default_rng(seed), series, length)


def autocorrelation(values: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Autocorrelation of each row after a moving average over two days is taken off, (series,)."""
    window = np.ones(49) / 49
    slow = np.stack([np.convolve(row, window, mode="valid") for row in values])
    rest = values[:, 24:-24] - slow
    rest = rest / np.maximum(rest.std(axis=1, keepdims=True), 1e-12)
    return (rest[:, lag:] * rest[:, :-lag]).mean(axis=1)


@pytest.mark.parametrize("simulate", FAMILIES)
@pytest.mark.parametrize("length", [16, 33, 256, 2048])
@pytest.mark.parametrize("series", [1, 5])
def test_any_number_of_finite_series_of_any_length(simulate, length: int, series: int) -> None:
    with np.errstate(all="raise", under="ignore"):
        for seed in range(10):
            values, nominal = draw(simulate, seed, series, length)
            assert values.shape == (series, length)
            assert nominal.shape == (series,)
            assert nominal.dtype == np.int64
            assert np.isfinite(values).all()
            assert (nominal >= 0).all()


@pytest.mark.parametrize("simulate", FAMILIES)
def test_series_differ_from_each_other_and_repeat_with_the_seed(simulate) -> None:
    values, nominal = draw(simulate, series=40)
    again, nominal_again = draw(simulate, series=40)
    np.testing.assert_array_equal(values, again)
    np.testing.assert_array_equal(nominal, nominal_again)
    assert len(np.unique(values, axis=0)) == 40
    assert not np.array_equal(values, draw(simulate, seed=1, series=40)[0])


@pytest.mark.parametrize("simulate", [simulate_multi_seasonal, simulate_sarima, simulate_gaussian_process])
def test_seasonal_families_repeat_at_their_period(simulate) -> None:
    values, nominal = draw(simulate, series=600)
    hourly = values[nominal == 24]
    assert len(hourly) > 60
    at_period = autocorrelation(hourly, 24)
    beside = np.maximum(autocorrelation(hourly, 17), autocorrelation(hourly, 31))
    assert (at_period > beside + 0.1).mean() > 0.6
    assert np.median(at_period) > 0.2


def test_weeks_of_hourly_data_have_weekdays() -> None:
    values, nominal = draw(simulate_multi_seasonal, series=600, length=168 * 10)
    days = values[nominal == 24].reshape(-1, 70, 24).mean(axis=2)
    days = days - np.apply_along_axis(lambda row: np.convolve(row, np.ones(7) / 7, mode="same"), 1, days)
    days = days[:, 4:-4] / days[:, 4:-4].std(axis=1, keepdims=True)
    weekly = (days[:, 7:] * days[:, :-7]).mean(axis=1)
    other = (days[:, 5:] * days[:, :-5]).mean(axis=1)
    assert (weekly > np.maximum(other, 0) + 0.3).mean() > 0.3


def test_days_differ_in_amplitude_with_some_memory() -> None:
    values, nominal = draw(simulate_multi_seasonal, series=600, length=24 * 40)
    ranges = np.log(np.ptp(values[nominal == 24].reshape(-1, 40, 24), axis=2))
    ranges -= ranges.mean(axis=1, keepdims=True)
    memory = (ranges[:, 1:] * ranges[:, :-1]).mean(axis=1) / ranges.var(axis=1)
    assert np.median(ranges.std(axis=1)) > 0.15
    assert (memory > 0.3).mean() > 0.42


def test_sarima_is_stationary_or_integrated() -> None:
    process = sarima_process(np.random.default_rng(0), np.full((600, 1), np.nan), 3000)
    near = np.square(process[:, 300:] - process[:, :-300]).mean(axis=1)
    far = np.square(process[:, 1500:] - process[:, :-1500]).mean(axis=1)
    assert 0.15 < (far > 2.5 * near).mean() < 0.4  # of a random walk 5 times, of a stationary process once


def test_sarima_has_seasonal_poles() -> None:
    process = sarima_process(np.random.default_rng(0), np.full((400, 1), 24.0), LENGTH)
    beside = np.maximum(autocorrelation(process, 17), autocorrelation(process, 31))
    assert (autocorrelation(process, 24) > beside + 0.2).mean() > 0.4


def test_random_walks_spread_with_time() -> None:
    values, _ = draw(simulate_random_walk, series=400)
    near = np.square(values[:, 8:] - values[:, :-8]).mean(axis=1)
    far = np.square(values[:, 128:] - values[:, :-128]).mean(axis=1)
    ratio = far / near  # 16 for a walk, 1 for noise
    assert 0.5 < (ratio > 4).mean() < 0.95
    assert (ratio < 2).mean() > 0.05


def test_volatility_comes_in_clusters() -> None:
    values, _ = draw(simulate_random_walk, series=400)
    size = np.log(np.abs(np.diff(values, axis=1)) + 1e-12)
    size -= size.mean(axis=1, keepdims=True)
    clustering = (size[:, 5:] * size[:, :-5]).mean(axis=1) / size.var(axis=1)
    assert (clustering > 0.05).mean() > 0.27


def test_trends_explain_the_series() -> None:
    values, _ = draw(simulate_trend)
    time = np.linspace(-1, 1, LENGTH)
    basis = np.linalg.qr(np.vander(time, 5))[0]
    values = values - values.mean(axis=1, keepdims=True)
    explained = np.square(values @ basis).sum(axis=1) / np.square(values).sum(axis=1)
    assert (explained > 0.8).mean() > 0.35
    assert (explained < 0.2).mean() > 0.05  # local levels without a trend


def test_markov_states_stay_and_return() -> None:
    states = markov_states(np.random.default_rng(0), 500, 1000)
    assert set(np.unique(states)) == {0, 1, 2}
    changes = (np.diff(states, axis=1) != 0).sum(axis=1)
    assert np.median(changes) < 30
    assert (changes > 0).mean() > 0.8


def test_regimes_differ_in_mean_or_variance() -> None:
    values, _ = draw(simulate_regime_switching)
    blocks = np.diff(values, axis=1)[:, :990].reshape(SERIES, 30, 33)
    deviations = blocks.std(axis=2)
    spread = np.log(np.quantile(deviations, 0.9, axis=1) / np.quantile(deviations, 0.1, axis=1))
    white = np.random.default_rng(0).standard_normal((SERIES, 30, 33)).std(axis=2)
    usual = np.log(np.quantile(white, 0.9, axis=1) / np.quantile(white, 0.1, axis=1))
    assert np.median(spread) > 2 * np.median(usual)


def test_counts_are_whole_numbers_with_zeros() -> None:
    values, _ = draw(simulate_intermittent)
    np.testing.assert_array_equal(values, np.round(values))
    assert values.min() == 0.0
    zeros = (values == 0).mean(axis=1)
    assert (zeros > 0.5).mean() > 0.5
    assert (zeros < 0.05).mean() > 0.1
    is_large = np.array([np.median(row[row > 0]) > 20 for row in values])
    assert 0.3 < (zeros[is_large] > 0.2).mean() < 0.7  # zeros of their own, not of a low mean


def test_machines_are_more_regular_than_noise() -> None:
    values, _ = draw(simulate_physical)
    spectrum = np.abs(np.fft.rfft(values - values.mean(axis=1, keepdims=True), axis=1))[:, 1:] ** 2
    flatness = np.exp(np.log(spectrum + 1e-30).mean(axis=1)) / spectrum.mean(axis=1)  # .56 for white noise
    assert np.median(flatness) < 0.1


def test_the_sun_does_not_shine_at_night() -> None:
    values, nominal = draw(simulate_weather, series=600, length=24 * 40)
    assert set(np.unique(nominal)) <= {0, 6, 8, 24, 48, 96, 144, 288}
    hourly = values[nominal == 24].reshape(-1, 40, 24)
    is_zero = hourly == 0
    solar = hourly[(is_zero.mean(axis=1) == 1).any(axis=1) & (is_zero.mean(axis=(1, 2)) < 0.8)]
    assert len(solar) > 0.15 * len(hourly)
    assert (solar >= 0).all()
    always_dark = (solar == 0).all(axis=1).sum(axis=1)
    assert ((always_dark >= 4) & (always_dark <= 20)).mean() > 0.8


def test_effects_of_a_graph_are_related() -> None:
    def spectra(seed: int) -> NDArray[np.complex128]:
        noise = np.diff(draw(simulate_causal_graph, seed, series=8, length=1024)[0], axis=1)
        noise = (noise - noise.mean(axis=1, keepdims=True)) / np.linalg.norm(noise, axis=1, keepdims=True)
        return np.fft.rfft(noise, n=4096, axis=1)

    def highest(first: NDArray[np.complex128], second: NDArray[np.complex128]) -> float:
        """Mean over pairs of the largest cross-correlation at any lag."""
        products = (first[:, None] * second[None].conj())[~np.eye(8, dtype=bool)]
        return float(np.abs(np.fft.irfft(products, axis=1)).max(axis=1).mean())

    graphs = [spectra(seed) for seed in range(20)]
    within = np.mean([highest(graph, graph) for graph in graphs])
    between = np.mean([highest(graph, other) for graph, other in pairwise(graphs)])
    assert within > 1.3 * between


def test_calendars_follow_the_length() -> None:
    rng = np.random.default_rng(0)
    known = {sampling.nominal for sampling in SAMPLINGS}
    long, short = (draw_calendars(rng, 4000, length) for length in (2048, 64))
    assert np.isin(long.nominal, list(known)).mean() > 0.9
    assert 0.1 < (long.nominal == 24).mean() < 0.3
    assert (short.nominal == 12).mean() > 2 * (long.nominal == 12).mean()
    assert 0.03 < (long.nominal == 0).mean() < 0.25
    is_day = long.short == 24
    np.testing.assert_array_equal(long.middle[is_day & (long.middle == 168)], 168)
    assert np.nanmin(long.short) >= 3
