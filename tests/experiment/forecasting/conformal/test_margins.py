"""Margins of conformal intervals: the finite-sample quantile, and coverage by series on simulated errors."""

from math import ceil

import numpy as np
import pytest

from titans_seq.experiment.forecasting.conformal.calibration import Calibration
from titans_seq.experiment.forecasting.conformal.margins import WindowScores, calibrate, conformal_scores

COVERAGES = [0.5, 0.8, 0.95]
QUANTILES = [0.1, 0.5, 0.9]
HORIZON = 7


def simulated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts (n, 3, 2, 3) with too narrow quantiles, and the truth with skewed errors that differ between steps."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(count, 3, 2, 1))
    truth = middle[..., 0] + (rng.exponential(size=(count, 3, 2)) - 0.5) * np.array([1.0, 3.0, 9.0])[:, None]
    return np.concatenate([middle - 0.1, middle, middle + 0.2], axis=-1), truth


def one_series(values: np.ndarray) -> WindowScores:
    return WindowScores(values, np.zeros(len(values), dtype=np.int64), np.arange(len(values)))


@pytest.mark.parametrize("quantiles", [[], QUANTILES])
def test_empirical_coverage_is_within_two_points_of_nominal(quantiles: list[float]) -> None:
    take = slice(None) if quantiles else slice(1, 2)
    forecasts, truth = simulated(2000, seed=0)
    scores = one_series(conformal_scores(forecasts[..., take], truth, quantiles))
    found = calibrate(scores, ["a"], quantiles, COVERAGES)
    forecasts, truth = simulated(4000, seed=1)
    lower, upper = found.intervals(forecasts[..., take])
    inside = (lower <= truth) & (truth <= upper)
    for nominal, share in zip(COVERAGES, inside.mean(axis=(1, 2, 3)), strict=True):
        assert share == pytest.approx(nominal, abs=0.02)
    # Coverage of each step and channel, because each has its own margin.
    assert np.abs(inside.mean(axis=1) - np.array(COVERAGES)[:, None, None]).max() < 0.05


def test_score_is_the_error_in_units_of_the_spread_on_its_side() -> None:
    forecasts = np.broadcast_to(np.array([-4.0, 0.0, 1.0]), (3, 1, 1, 3))
    scores = conformal_scores(forecasts, np.array([-2.0, 0.5, 3.0]).reshape(3, 1, 1), QUANTILES)
    assert scores.ravel().tolist() == [0.5, 0.5, 3]


def test_margin_of_a_single_series_is_the_finite_sample_quantile() -> None:
    scores = np.random.default_rng(0).random(size=(19, 3, 1)).astype(np.float32)
    found = calibrate(one_series(scores), ["a"], [], COVERAGES)
    for coverage, margin in zip(COVERAGES, found.margins, strict=True):
        np.testing.assert_array_equal(margin, np.sort(scores, axis=0)[ceil(20 * coverage) - 1])
    # A coverage of 0.95 would need the 19th of 18 scores, which does not exist.
    assert calibrate(one_series(scores[:18]), ["a"], [], COVERAGES).coverages == [0.5, 0.8]
    assert calibrate(one_series(scores[:9]), ["a"], [], [0.9]).margins.shape == (1, 3, 1)
    assert calibrate(one_series(scores[:8]), ["a"], [], [0.9]).coverages == []


def noise(sizes: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Errors (S, windows, H) of overlapping windows over so many rows of series of white noise."""
    errors = np.random.default_rng(seed).normal(size=(len(sizes), rows)) * sizes[:, None]
    return np.lib.stride_tricks.sliding_window_view(errors, HORIZON, axis=1)


def calibrated(errors: np.ndarray) -> Calibration:
    """Calibration of series "0", "1", ... from their errors (S, windows, H), with point forecasts."""
    count, windows, _ = errors.shape
    series, rows = np.repeat(np.arange(count), windows), np.tile(np.arange(windows), count)
    scores = np.abs(errors).reshape(-1, HORIZON, 1).astype(np.float32)
    return calibrate(WindowScores(scores, series, rows), [str(i) for i in range(count)], [], [0.8, 0.95])


def coverage(found: Calibration, errors: np.ndarray) -> np.ndarray:
    """Share (S, coverages) of errors (S, windows, H) within the margins of their series."""
    margins = [found.for_series(str(i)).margins[:, None, :, 0] for i in range(len(errors))]
    return np.array([(np.abs(e) <= margin).mean(axis=(1, 2)) for e, margin in zip(errors, margins, strict=True)])


@pytest.mark.parametrize(("rows", "tolerance"), [(200, 0.03), (60, 0.04), (12, 0.08)])
def test_intervals_hold_in_every_tenth_of_the_series_by_spread(rows: int, tolerance: float) -> None:
    sizes = np.logspace(0, 3, 200)
    held = coverage(calibrated(noise(sizes, rows, seed=0)), noise(sizes, 500, seed=1))
    tenths = held.reshape(10, 20, 2).mean(axis=1)
    assert np.abs(tenths - [0.8, 0.95]).max() < tolerance
    assert held.mean(axis=0) == pytest.approx([0.8, 0.95], abs=0.02)


def test_calm_series_beside_wild_ones_gets_its_own_margin() -> None:
    found = calibrated(noise(np.array([300.0] * 3 + [1.0] * 27), 50, seed=0))
    assert found.series["10"][1].mean() == pytest.approx(2, rel=0.3)
    assert found.series["0"][1].mean() == pytest.approx(600, rel=0.3)
    # A series of which nothing is known may be a wild one.
    assert found.for_series("new").margins[1].mean() > 100


def test_series_that_do_not_differ_share_their_margins() -> None:
    margins = np.stack(list(calibrated(noise(np.ones(100), 40, seed=0)).series.values()))[:, 1]
    # Margins near 2; with the scale of each alone their deviation would be 0.28.
    assert margins.mean(axis=(1, 2)).std() < 0.15


def test_series_with_many_windows_is_covered_by_the_quantile_of_its_own_errors() -> None:
    errors = noise(np.ones(10), 3000, seed=0).copy()
    rare = np.random.default_rng(1).random(errors[0].shape) < 0.1
    errors[0] = np.where(rare, 50.0, 0.1) * errors[0]  # rare large errors: mean and 95 % quantile are far apart
    held = coverage(calibrated(errors[:, :2000]), errors[:, 2000:])
    # With the scores of the others alone, 80 % would hold 0.9.
    np.testing.assert_allclose(held[0], [0.8, 0.95], atol=0.04)


def test_channels_of_a_single_series_have_their_own_margins_from_few_windows() -> None:
    errors = noise(np.logspace(0, 3, 100), 18, seed=0)  # 12 windows of each, too few for 95 %
    scores = np.abs(np.moveaxis(errors, 0, -1)).astype(np.float32)
    few = calibrate(one_series(scores), ["table"], [], [0.8, 0.95])
    assert few.coverages == [0.8]
    assert few.series == {}
    inside = np.abs(np.moveaxis(noise(np.logspace(0, 3, 100), 500, seed=1), 0, -1)) <= few.margins[0]
    assert np.abs(inside.mean(axis=(0, 1)).reshape(10, 10).mean(axis=1) - 0.8).max() < 0.08


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_intervals_are_nested_and_distinct_for_equal_errors(value: float) -> None:
    found = calibrated(np.full((3, 30, HORIZON), value))
    for name in ("0", "new"):
        lower, upper = found.for_series(name).intervals(np.zeros((HORIZON, 1, 1)))
        assert (np.diff(lower, axis=0) < 0).all()
        assert (np.diff(upper, axis=0) > 0).all()


def test_series_without_windows_and_coverage_beyond_the_shared_scores() -> None:
    errors = np.abs(np.random.default_rng(0).normal(size=(3000, HORIZON, 1))).astype(np.float32)
    scores = WindowScores(errors, np.repeat([0, 2], 1500), np.tile(np.arange(1500), 2))
    found = calibrate(scores, ["a", "b", "c"], [], [0.8, 0.999])
    assert list(found.series) == ["a", "c"]
    assert found.series["a"][1].mean() == pytest.approx(3.29, abs=0.3)  # the normal quantile
