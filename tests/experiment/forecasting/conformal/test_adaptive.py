"""Intervals that adapt in time: hand computation, no look ahead, and coverage of series that change."""

import numpy as np
import pytest

from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.experiment.forecasting.conformal.adaptive import AdaptiveWidths, adapt_in_time
from titans_seq.experiment.forecasting.scores import SeriesForecasts

STEPS = 4
WIDTHS = {0.8: 1.2816, 0.95: 1.96}  # of the standard normal distribution


def forecasts(truth: np.ndarray, step: int = STEPS) -> SeriesForecasts:
    """Forecasts 0 of the truth (W, N), from origins `step` rows apart, with intervals of standard normal errors."""
    rows = 50 + step * np.arange(len(truth))
    zeros = np.zeros((*truth.shape, 1))
    bounds = {nominal: (zeros - width, zeros + width) for nominal, width in WIDTHS.items()}
    series = Series("s", np.arange(10), ["y"], np.zeros((10, 1)), SplitBoundaries(1, 2, 3))
    return SeriesForecasts(series, rows, truth[..., None], zeros[..., None], bounds)


def held(found: SeriesForecasts) -> list[float]:
    return [float(((low <= found.truth) & (found.truth <= high)).mean()) for low, high in found.intervals.values()]


def test_width_grows_by_misses_and_shrinks_by_hits() -> None:
    widths = AdaptiveWidths([0.8], channels=2, rate=1.0)
    middle, lower, upper = np.zeros((4, 2)), np.full((1, 4, 2), -1.0), np.full((1, 4, 2), 3.0)
    truth = np.array([[5.0, 0.0], [5.0, 0.0], [0.0, 0.0], [np.nan, 0.0]])  # two of three missed, none of four
    widths.update(truth, lower, upper)
    low, high = widths.apply(middle, lower, upper)
    np.testing.assert_allclose(high[0, 0], 3 * np.exp([2 / 3 - 0.2, -0.2]))
    np.testing.assert_allclose(low[0, 0], -np.exp([2 / 3 - 0.2, -0.2]))
    widths.update(np.full((4, 2), np.nan), lower, upper)  # nothing known: nothing changes
    np.testing.assert_array_equal(widths.apply(middle, lower, upper)[1], high)


def test_bounds_stay_nested() -> None:
    widths = AdaptiveWidths([0.8, 0.95], channels=1)
    widths.logs[:] = [[3.0], [0.0]]
    low, high = widths.apply(np.zeros((1, 1)), np.array([[[-1.0]], [[-2.0]]]), np.array([[[1.0]], [[2.0]]]))
    assert low[1] < low[0] < high[0] < high[1]


@pytest.mark.parametrize("step", [1, STEPS, 6])
def test_windows_adapt_to_what_has_ended_before_them(step: int) -> None:
    truth = np.random.default_rng(0).normal(size=(12, STEPS))
    plain = adapt_in_time(forecasts(truth, step), 0).intervals[0.8][1]
    for changed in range(12):
        other = truth.copy()
        other[changed] += 100
        found = adapt_in_time(forecasts(other, step), 0).intervals[0.8][1]
        differ = np.flatnonzero((found != plain).any(axis=(1, 2)))
        first = changed + -(-STEPS // step)  # the first window that begins after the changed one has ended
        assert differ[:1].tolist() == ([first] if first < 12 else [])


def test_coverage_of_series_whose_errors_grow() -> None:
    rng = np.random.default_rng(0)
    plain, adapted, stationary = [], [], []
    for _ in range(200):
        truth = 1.6 * rng.normal(size=(20, STEPS))  # the intervals of 95 % hold 78 %
        plain.append(held(forecasts(truth)))
        adapted.append(held(adapt_in_time(forecasts(truth), 0)))
        stationary.append(held(adapt_in_time(forecasts(truth / 1.6), 0)))
    assert np.mean(plain, axis=0) == pytest.approx([0.576, 0.78], abs=0.01)
    assert (np.mean(adapted, axis=0) > [0.74, 0.89]).all()
    assert np.mean(stationary, axis=0) == pytest.approx([0.8, 0.95], abs=0.015)
