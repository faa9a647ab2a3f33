"""Detection of seasonal periods: found among noise, gaps and outliers; absent where there are none."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.models.universal.series import nasty, seasonal, with_gaps
from titans_seq.models.universal.periods import dominant_periods


def detect(series: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Periods and strengths (B, 2) of series (B, L) or (L,) with NaN where missing."""
    values = torch.from_numpy(np.atleast_2d(series))
    # 1e6: what is stored at missing values must not matter
    return dominant_periods(torch.nan_to_num(values, nan=1e6), values.isfinite())


def periods(series: NDArray[np.float64]) -> list[int]:
    (found,) = detect(series)[0].tolist()
    return [int(period) for period in found]


CASES = [(36, 7), (54, 12), (90, 7), (90, 24), (300, 12), (300, 53), (2048, 7), (2048, 24), (2048, 96), (2048, 144)]
DISTURBANCES = {
    "noise": lambda x: x,
    "trend": lambda x: x + 0.05 * np.arange(len(x)),
    "gaps": with_gaps,
    "gap": lambda x: np.where((np.arange(len(x)) > len(x) // 3) & (np.arange(len(x)) < len(x) // 2), np.nan, x),
    "outliers": lambda x: np.where(np.random.default_rng(1).random(len(x)) < 0.02, 12.0, x),
    "starts late": lambda x: np.concatenate([np.full(50, np.nan), x]),
}


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize(("length", "period"), CASES)
def test_a_period_is_found(length: int, period: int, disturbance: str) -> None:
    for seed in range(3):
        series = DISTURBANCES[disturbance](seasonal(length, period, seed=seed))
        (found, _), strength = periods(series), detect(series)[1]
        assert abs(found - period) <= max(1, 0.05 * period), (found, seed)
        assert strength[0, 0] > 0.5


@pytest.mark.parametrize("period", [2, 3, 5, 10, 31, 60, 77, 100, 365, 500, 682])
def test_any_profile_is_found_exactly(period: int) -> None:
    rng = np.random.default_rng(period)
    profile = rng.normal(size=period)
    series = profile[np.arange(2048) % period] + 0.2 * rng.normal(size=2048)
    assert periods(series)[0] == period


def test_a_day_and_a_week_of_hours() -> None:
    # The second period is a multiple of the first one that explains more than it.
    rng = np.random.default_rng(0)
    day, level = rng.normal(size=24), rng.normal(size=7).repeat(24)
    time = np.arange(2048)
    assert periods(day[time % 24] + 0.4 * level[time % 168] + 0.1 * rng.normal(size=2048)) == [24, 168]


@pytest.mark.parametrize("length", [32, 96, 512, 2048])
def test_few_series_without_a_period_have_one(length: int) -> None:
    noise = np.random.default_rng(0).normal(size=(300, length))
    for series, allowed in ((noise, 0.1), (noise.cumsum(axis=1), 0.15), (with_gaps(noise, 0.5), 0.1)):
        found, strength = detect(series)
        assert (found[:, 0] > 0).double().mean() < allowed
        assert (found[:, 1] > 0).double().mean() < 0.05
        assert torch.equal(strength > 0, found > 0)


@pytest.mark.parametrize("length", [16, 48, 300, 2048])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants_and_lines_have_none(length: int, dtype: type[np.floating]) -> None:
    steps = np.arange(length)
    lines = [steps * slope + level for slope in (0.1, 1 / 3, -1e-9, 1e5 / 7) for level in (0.0, 11.3)]
    constants = [np.full(length, level) for level in (0.0, 0.1, -1e9, 1e-12)]
    for series in (*lines, *constants):
        assert periods(series.astype(dtype)) == [0, 0]


def test_few_values_have_none() -> None:
    for name in ("all missing", "one value", "zeros"):
        assert periods(nasty(48)[name]) == [0, 0], name


@pytest.mark.parametrize("length", range(1, 40))
def test_a_period_is_at_most_a_third_of_the_observed_length(length: int) -> None:
    rng = np.random.default_rng(length)
    series = np.full((64, 48), np.nan)
    # Every value appears three times; a later part of the series alone, shorter than three periods, shows nothing.
    series[:, 48 - length :] = seasonal(length, 13, 6, noise=0.1) + 0.01 * rng.normal(size=(64, length))
    found, _ = detect(series)
    assert int(found.max()) <= length // 3
    assert not (found == 1).any()


@pytest.mark.parametrize("prefix", [1, 16, 300, 2000])
def test_unobserved_steps_before_the_series_change_nothing(prefix: int) -> None:
    series = np.stack([seasonal(200, 12, seed=1), seasonal(200, 24, 60, noise=1.0), seasonal(200, noise=1.0)])
    longer = np.concatenate([np.full((3, prefix), np.nan), series], axis=1)
    (found, strength), (again, same) = detect(series), detect(longer)
    assert torch.equal(found, again)
    torch.testing.assert_close(strength, same, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "shift"), [(2.0, 0.0), (1e-12, 0.0), (1e12, 0.0), (1.0, 1e6), (1e-3, 7.0), (-1.0, 0)]
)
def test_scale_and_level_change_nothing(scale: float, shift: float) -> None:
    series = np.stack([with_gaps(seasonal(300, 12, seed=seed)) for seed in range(4)])
    (found, strength), (again, same) = detect(series), detect(scale * series + shift)
    assert torch.equal(found, again)
    torch.testing.assert_close(strength, same, rtol=0, atol=1e-5)


def test_series_do_not_affect_each_other() -> None:
    series = np.stack([seasonal(144, 12), *nasty(144).values(), seasonal(144, 24)])
    found, strength = detect(series)
    assert strength.isfinite().all()
    for row, one in enumerate(series):
        alone, strengths = detect(one)
        assert torch.equal(alone[0], found[row])
        torch.testing.assert_close(strengths[0], strength[row], rtol=0, atol=1e-6)


def test_periodic_series_without_noise() -> None:
    steps = np.arange(768)
    for period in (2, 3, 7, 24, 48, 100):
        for series in (steps % period == 0, steps % period < period / 2, np.cos(2 * np.pi * steps / period)):
            assert periods(series.astype(np.float64))[0] == period
