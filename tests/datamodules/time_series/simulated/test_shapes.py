"""Curves and tables that the families of simulated series share."""

import numpy as np
import pytest

from datamodules.time_series.simulated.shapes import (
    RESOLUTION,
    coloured_noise,
    cycle_factors,
    cycles,
    heavy_tailed,
    level_shifts,
    look_up,
    repeat,
    season_tables,
    slow_curve,
    smooth_noise,
)


def test_look_up_interpolates_each_row_in_its_own_table() -> None:
    tables = np.array([[0.0, 1.0, 4.0], [10.0, 20.0, 30.0]])
    position = np.array([[0.0, 0.5, 1.5, 2.0], [2.0, 1.0, 0.25, 0.0]])
    np.testing.assert_allclose(look_up(tables, position), [[0, 0.5, 2.5, 4], [30, 20, 12.5, 10]])


def test_repeat_is_periodic_and_closed() -> None:
    tables = np.random.default_rng(0).standard_normal((2, RESOLUTION))
    cycle = cycles(np.array([[24.0], [52.18]]), np.array([[0.3], [7.0]]), 500)
    np.testing.assert_allclose(repeat(tables, cycle), repeat(tables, cycle + 3), atol=1e-9)
    np.testing.assert_allclose(repeat(tables, cycle)[0, :-24], repeat(tables, cycle)[0, 24:], atol=1e-9)
    last = repeat(tables, np.full((2, 1), 1 - 1e-9))
    np.testing.assert_allclose(last[:, 0], tables[:, 0], atol=1e-4)


def test_tables_of_short_cycles_also_have_independent_steps() -> None:
    rng = np.random.default_rng(0)
    tables = season_tables(rng, np.full((300, 1), 7.0))
    np.testing.assert_allclose(tables.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(tables.std(axis=1), 1, atol=1e-9)
    values = np.array([len(np.unique(table)) for table in tables])
    assert 0.3 < (values <= 7).mean() < 0.6
    long = season_tables(rng, np.full((300, 1), 96.0))
    assert min(len(np.unique(table)) for table in long) > 7


@pytest.mark.parametrize("draw", [slow_curve, smooth_noise], ids=lambda draw: draw.__name__)
def test_smooth_curves_have_variance_one_and_their_time_scale(draw) -> None:
    rng = np.random.default_rng(0)
    for scale in (20.0, 100.0):
        curves = draw(rng, np.full((2000, 1), scale), 400)
        assert curves.shape == (2000, 400)
        assert curves.var() == pytest.approx(1.0, abs=0.1)
        near = (curves[:, int(scale / 20) :] * curves[:, : -int(scale / 20)]).mean()
        far = (curves[:, int(2.5 * scale) :] * curves[:, : -int(2.5 * scale)]).mean()
        assert near > 0.9
        assert abs(far) < 0.15


def test_smooth_noise_takes_scales_of_its_own_for_each_series() -> None:
    curves = smooth_noise(np.random.default_rng(0), np.array([[5.0], [200.0]]), 2000)
    rough, smooth = np.abs(np.diff(curves, axis=1)).mean(axis=1)
    assert rough > 10 * smooth


def test_factors_of_cycles_vary_from_cycle_to_cycle() -> None:
    rng = np.random.default_rng(0)
    cycle = cycles(np.full((2000, 1), 24.0), np.full((2000, 1), 3.0), 24 * 30)
    for memory in (0.0, 0.9):
        factors = cycle_factors(rng, cycle, np.full((2000, 1), memory))
        middle = factors[:, 12::24]
        assert middle.var() == pytest.approx(1.0, abs=0.15)
        assert (middle[:, 1:] * middle[:, :-1]).mean() == pytest.approx(memory, abs=0.1)
        assert np.abs(np.diff(factors, axis=1)).max() < 0.35  # no jump between cycles


def test_coloured_noise_starts_in_its_stationary_state() -> None:
    noise = coloured_noise(np.random.default_rng(0), np.full((3000, 1), 0.95), 50)
    assert noise[:, 0].var() == pytest.approx(1.0, abs=0.1)
    assert noise[:, -1].var() == pytest.approx(1.0, abs=0.1)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(0.95, abs=0.1)


def test_heavy_tailed_noise_has_more_outliers() -> None:
    noise = heavy_tailed(np.random.default_rng(0), np.array([[0.0], [0.3]]), 20000)
    normal, heavy = (np.abs(noise) > 5).mean(axis=1)
    assert normal < 1e-4
    assert heavy > 5e-3


def test_level_shifts_are_constant_between_few_steps() -> None:
    steps = level_shifts(np.random.default_rng(0), 100, 200, 3)
    changes = (np.diff(steps, axis=1) != 0).sum(axis=1)
    assert changes.max() <= 3
    assert (changes > 0).mean() > 0.5
