"""Conformal intervals: the finite-sample quantile, coverage on simulated data, and the calibration file."""

import json
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.config import load_config, to_container
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.calibration import calibrate_on_validation, measure_coverage
from titans_seq.experiment.forecasting.conformal import (
    Calibration,
    calibrate,
    conformal_scores,
    load_calibration,
    save_calibration,
)
from titans_seq.tasks import ForecastingTask

COVERAGES = [0.5, 0.8, 0.95]
QUANTILES = [0.1, 0.5, 0.9]


def simulated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts (n, 3, 2, 3) with too narrow quantiles, and the truth with skewed errors that differ between steps."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(count, 3, 2, 1))
    truth = middle[..., 0] + (rng.exponential(size=(count, 3, 2)) - 0.5) * np.array([1.0, 3.0, 9.0])[:, None]
    return np.concatenate([middle - 0.1, middle, middle + 0.2], axis=-1), truth


@pytest.mark.parametrize("quantiles", [[], QUANTILES])
def test_empirical_coverage_is_within_two_points_of_nominal(quantiles: list[float]) -> None:
    take = slice(None) if quantiles else slice(1, 2)
    forecasts, truth = simulated(1000, seed=0)
    found = calibrate(conformal_scores(forecasts[..., take], truth, quantiles, COVERAGES), quantiles, COVERAGES)
    forecasts, truth = simulated(4000, seed=1)
    lower, upper = found.intervals(forecasts[..., take])
    inside = (lower <= truth) & (truth <= upper)
    for nominal, share in zip(COVERAGES, inside.mean(axis=(1, 2, 3)), strict=True):
        assert share == pytest.approx(nominal, abs=0.02)
    # Coverage of each step and channel, because each has its own margin.
    assert np.abs(inside.mean(axis=1) - np.array(COVERAGES)[:, None, None]).max() < 0.05


def test_margin_is_the_finite_sample_quantile() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 19, 3, 2))
    found = calibrate(scores, [], COVERAGES)
    for coverage, score, margin in zip(COVERAGES, scores, found.margins, strict=True):
        np.testing.assert_array_equal(margin, np.sort(score, axis=0)[ceil(20 * coverage) - 1])
    # A coverage of 0.95 would need the 19th of 18 scores, which does not exist.
    assert calibrate(scores[:, :18], [], COVERAGES).coverages == [0.5, 0.8]
    assert calibrate(scores[:1, :9], [], [0.9]).margins.shape == (1, 3, 2)
    assert calibrate(scores[:1, :8], [], [0.9]).coverages == []


def test_too_wide_forecast_is_narrowed_but_not_past_its_median() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 1, 1))
    forecasts = np.broadcast_to(np.array([-9.0, 0.0, 9.0]), (500, 1, 1, 3))
    found = calibrate(conformal_scores(forecasts, truth, QUANTILES, [0.8]), QUANTILES, [0.8])
    assert found.margins[0, 0, 0] == pytest.approx(1.28 - 9, abs=0.2)
    lower, upper = found._replace(margins=np.full((1, 1, 1), -20.0)).intervals(forecasts)
    assert (lower == 0).all()
    assert (upper == 0).all()


def test_intervals_are_nested() -> None:
    forecasts, _ = simulated(50, seed=2)
    margins = np.random.default_rng(1).normal(size=(3, 3, 2))
    lower, upper = Calibration(COVERAGES, margins, QUANTILES, 100).intervals(forecasts)
    assert (np.diff(lower, axis=0) <= 0).all()
    assert (np.diff(upper, axis=0) >= 0).all()
    assert (lower <= upper).all()


def test_steps_beyond_the_calibrated_ones_have_no_interval() -> None:
    found = Calibration([0.8], np.ones((1, 3, 2)), [], 100)
    lower, upper = found.for_steps(5).intervals(np.zeros((4, 5, 2, 1)))
    assert np.isfinite(lower[:, :, :3]).all()
    assert np.isnan(lower[:, :, 3:]).all()
    assert np.isnan(upper[:, :, 3:]).all()
    assert found.for_steps(2).margins.shape == (1, 2, 2)


class Noise:
    """A stationary series: moving-average noise of order 1."""

    seasonal_period = 4
    simulated = True

    def prepare(self) -> None: ...

    def load(self) -> Series:
        noise = np.random.default_rng(5).normal(size=(9001, 2))
        stamps = np.datetime64("2020-01-01T00", "h") + np.arange(9000).astype("timedelta64[h]")
        return Series("noise", stamps, ["a", "b"], noise[1:] + 0.5 * noise[:-1], SplitBoundaries(1000, 5000, 9000))


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_coverage_on_the_test_windows_of_a_task(head: str) -> None:
    overrides = [
        f"model.head={head}",
        "data.context_length=16",
        "data.horizon=4",
        "model.patch_length=8",
        "model.dim=4",
    ]
    config = load_config([], [*overrides, "model.stride=8", "model.num_layers=1", "model.memory.num_heads=1"])
    data = ForecastingDataModule(Noise(), context_length=16, horizon=4, batch_size=500)
    data.setup()
    task = ForecastingTask(to_container(config), 2)
    found = calibrate_on_validation(data, task, [0.8, 0.95])
    assert found.windows == 2000
    for nominal, share in measure_coverage(data, task, found).items():
        assert share == pytest.approx(nominal, abs=0.02)


def test_calibration_file_applies_to_its_checkpoint_only(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    best.write_bytes(b"best")
    last.write_bytes(b"last")
    assert load_calibration(best) is None
    saved = Calibration([0.8], np.random.default_rng(0).normal(size=(1, 3, 2)), QUANTILES, 100)
    path = save_calibration(saved, tmp_path, best)
    again = load_calibration(best)
    assert again is not None
    np.testing.assert_allclose(again.margins, saved.margins, rtol=1e-6)
    assert (again.coverages, again.quantiles, again.windows) == (saved.coverages, saved.quantiles, saved.windows)
    assert load_calibration(last) is None

    content = json.loads(path.read_text())
    others = [json.dumps({**content, key: value}) for key, value in (("margins", [1]), ("windows", "?"))]
    for damage in ('{"margins"', "[]", *others):
        path.write_text(damage)
        with pytest.raises(InputError, match=r"conformal\.json: damaged: .*; delete it to continue without"):
            load_calibration(best)
