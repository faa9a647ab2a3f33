"""The built-in synthetic dataset is reproducible and has the documented properties."""

import hashlib

import numpy as np
import pytest

from datamodules.time_series.datasets.simulated import _SEED, SimulatedSeries, _regimes
from datamodules.time_series.series import Series


@pytest.fixture(scope="module")
def series() -> Series:
    return SimulatedSeries().load()


def digest(series: Series) -> str:
    # Rounded: the last digits of sin and exp differ between machines.
    return hashlib.sha256(np.round(series.values, 6).tobytes()).hexdigest()


def test_dataset_does_not_depend_on_the_global_generator(series: Series) -> None:
    np.random.seed(1)  # the global generator must not matter
    again = SimulatedSeries().load()
    assert digest(again) == digest(series)
    assert (again.timestamps == series.timestamps).all()


def test_dataset_is_sixty_weeks_of_hours_without_gaps(series: Series) -> None:
    assert series.values.shape == (60 * 7 * 24, len(series.channels)) == (10_080, 5)
    assert np.isfinite(series.values).all()
    assert (np.diff(series.timestamps) == np.timedelta64(1, "h")).all()
    weeks = [border / (7 * 24) for border in series.boundaries]
    assert weeks == [36, 48, 60]


def test_days_repeat_but_not_exactly(series: Series) -> None:
    load = series.values[:, 0]
    day, half_day = (np.corrcoef(load[:-lag], load[lag:])[0, 1] for lag in (24, 12))
    assert half_day < 0.5
    assert 0.8 < day < 0.95


def spells(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First day, regime and normalised mean daily profile (spells, 96) of every spell of one regime."""
    regimes = _regimes(np.random.default_rng(_SEED))
    assert (regimes.reshape(-1, 24) == regimes[::24, None]).all(), "a regime changed within a day"
    days = regimes[::24]
    first = np.flatnonzero(np.diff(days, prepend=-1))
    profiles = series.values[:, :4].reshape(-1, 24, 4)
    profiles = (profiles - profiles.mean(axis=1, keepdims=True)).transpose(0, 2, 1).reshape(len(days), -1)
    shapes = np.stack([part.mean(axis=0) for part in np.split(profiles, first[1:])])
    return first, days[first], shapes / np.linalg.norm(shapes, axis=1, keepdims=True)


def test_regimes_recur_with_similar_profiles(series: Series) -> None:
    first, regimes, shapes = spells(series)
    similarity, same = shapes @ shapes.T, regimes[:, None] == regimes
    assert similarity[same].min() > 0.9
    assert similarity[~same].max() < 0.8
    assert set(regimes) == {0, 1, 2, 3}
    # Complete spells only: the end of the series cuts the last one.
    assert set(np.diff(first)) <= set(range(6, 15))


def test_every_regime_of_the_test_split_occurs_in_training(series: Series) -> None:
    first, regimes, _ = spells(series)
    train_days, validation_days = series.boundaries.train // 24, series.boundaries.validation // 24
    assert set(regimes[first >= validation_days]) == set(regimes[first < train_days])


def test_oil_follows_the_load_with_a_lag(series: Series) -> None:
    load, oil = series.values[:, :4].sum(axis=1), series.values[:, 4]
    # Weekly differences remove the daily and yearly cycles.
    load, oil = load[168:] - load[:-168], oil[168:] - oil[:-168]
    correlations = [np.corrcoef(load[: len(load) - lag], oil[lag:])[0, 1] for lag in range(24)]
    assert 1 <= int(np.argmax(correlations)) <= 8
    assert max(correlations) > correlations[0] > 0
