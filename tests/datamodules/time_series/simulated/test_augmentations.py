"""Augmentations of simulated series do what they are named for and leave other series alone."""

import numpy as np

from datamodules.time_series.simulated.augmentations import disturb, drop, mix, rescale, reshape, round_off
from datamodules.time_series.simulated.recursions import standardise

SERIES, LENGTH = 400, 300


def series(seed: int = 0):
    return standardise(np.random.default_rng(seed).standard_normal((SERIES, LENGTH)).cumsum(axis=1))


def changed(before, after):
    return ~(before == after).all(axis=1)


def test_mixtures_lie_between_two_series() -> None:
    values = series()
    mixed = mix(np.random.default_rng(0), values, probability=0.5)
    is_changed = changed(values, mixed)
    assert 0.4 < is_changed.mean() < 0.6
    weights = []
    for row in np.flatnonzero(is_changed):
        basis = np.delete(values, row, axis=0) - values[row]
        difference = mixed[row] - values[row]
        cosine = (basis @ difference) / np.linalg.norm(basis, axis=1) / np.linalg.norm(difference)
        best = int(cosine.argmax())
        assert cosine[best] > 1 - 1e-9
        weights.append(difference @ basis[best] / (basis[best] @ basis[best]))
    assert min(weights) > 0
    assert 0.4 < max(weights) <= 0.5


def test_form_and_faults_change_some_series() -> None:
    values = series()
    rng = np.random.default_rng(0)
    formed = reshape(rng, values.copy())
    assert 0.1 < changed(values, formed).mean() < 0.45
    assert (formed == values[:, ::-1]).all(axis=1).any()
    assert (formed == -values).all(axis=1).any()
    disturbed = disturb(rng, values.copy())
    assert 0.1 < changed(values, disturbed).mean() < 0.45
    for extreme in (disturbed.min(axis=1, keepdims=True), disturbed.max(axis=1, keepdims=True)):
        assert ((disturbed == extreme).mean(axis=1) > 0.1).mean() > 0.01  # a saturated sensor
    changes = [np.flatnonzero(row) + 1 for row in np.diff(disturbed, axis=1)]
    assert any(np.gcd.reduce(steps) > 1 for steps in changes)  # values reported more often than measured
    assert np.isfinite(formed).all()
    assert np.isfinite(disturbed).all()


def test_scales_span_many_orders_of_magnitude() -> None:
    scaled = rescale(np.random.default_rng(0), series())
    deviations = scaled.std(axis=1)
    assert deviations.min() < 0.01
    assert deviations.max() > 1e5
    assert 0.4 < (scaled >= 0).all(axis=1).mean() < 0.8


def test_a_floor_mostly_becomes_zero() -> None:
    values = np.maximum(series(), 0.0)
    scaled = rescale(np.random.default_rng(0), standardise(values))
    assert (scaled.min(axis=1) == 0).mean() > 0.7


def test_rounding_leaves_few_values() -> None:
    values = series() * np.logspace(-3, 6, SERIES)[:, None]
    rounded = round_off(np.random.default_rng(0), values, probability=1.0)
    error = np.abs(rounded - values).max(axis=1)
    assert (error <= np.ptp(values, axis=1) / 5).all()
    distinct = np.array([len(np.unique(row)) for row in rounded])
    assert np.median(distinct) < 0.8 * LENGTH
    assert distinct.min() >= 2
    np.testing.assert_array_equal(round_off(np.random.default_rng(0), values, probability=0.0), values)


def test_gaps_take_at_most_a_fifth() -> None:
    values = series().astype(np.float32)
    with_gaps = drop(np.random.default_rng(0), values.copy(), probability=0.5)
    missing = np.isnan(with_gaps).mean(axis=1)
    assert 0.4 < (missing > 0).mean() < 0.6
    assert missing.max() <= 0.2
    assert missing.max() > 0.1
    np.testing.assert_array_equal(with_gaps[~np.isnan(with_gaps)], values[~np.isnan(with_gaps)])
    gaps = np.diff(np.isnan(with_gaps).astype(int), axis=1) == 1
    assert gaps.sum() < np.isnan(with_gaps).sum()  # gaps of several steps
