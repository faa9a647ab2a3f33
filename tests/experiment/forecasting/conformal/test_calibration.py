"""Intervals from margins, and the calibration file of a run, of older runs too."""

import json
from pathlib import Path

import numpy as np
import pytest

from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.conformal.calibration import (
    Calibration,
    load_calibration,
    save_calibration,
    spreads,
)

COVERAGES = [0.5, 0.8, 0.95]
QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9]
FORECAST = np.array([[[-3.0, -1.0, 1.0, 1.5, 2.0]]])  # (H, C, Q)


def test_interval_is_the_models_spread_times_the_margin() -> None:
    lower, upper = Calibration([0.8], np.full((1, 1, 1), 1.5), QUANTILES, 100).intervals(FORECAST)
    assert (lower.item(), upper.item()) == (1 - 1.5 * 4, 1 + 1.5 * 1)
    lower, upper = Calibration([0.8], np.full((1, 1, 1), 1.5), [], 100).intervals(np.full((1, 1, 1), 7.0))
    assert (lower.item(), upper.item()) == (5.5, 8.5)
    # Levels without a central pair have no spread.
    lower, upper = Calibration([0.8], np.full((1, 1, 1), 1.5), [0.5, 0.9], 100).intervals(FORECAST[..., 2:4])
    assert (lower.item(), upper.item()) == (-0.5, 2.5)


def test_spread_is_positive_for_a_median_at_the_end_of_the_quantiles() -> None:
    _, below, above = spreads(np.array([[[0.0, 0.0, 0.0, 1.0, 2.0]]]), QUANTILES)
    assert (below.item(), above.item()) == (0.02, 2)
    _, below, above = spreads(np.zeros((1, 1, 5)), QUANTILES)
    assert below.item() == above.item() > 0


def test_series_have_their_own_margins_and_others_those_of_all() -> None:
    rng = np.random.default_rng(0)
    every, own = np.sort(rng.random((2, 3, 4, 2)), axis=1)
    found = Calibration(COVERAGES, every, [], 100, {"a": own})
    forecasts = rng.normal(size=(2, 4, 2, 1))
    lower, _ = found.for_windows(["a", "b"]).intervals(forecasts)
    np.testing.assert_array_equal(lower[:, 0], forecasts[0, ..., 0] - own)
    np.testing.assert_array_equal(lower[:, 1], forecasts[1, ..., 0] - every)
    for i, name in enumerate("ab"):
        np.testing.assert_array_equal(found.for_series(name).intervals(forecasts[i])[0], lower[:, i])


def test_steps_beyond_the_calibrated_ones_have_no_interval() -> None:
    found = Calibration([0.8], np.ones((1, 3, 2)), [], 100)
    lower, upper = found.for_steps(5).intervals(np.zeros((4, 5, 2, 1)))
    assert np.isfinite(lower[:, :, :3]).all()
    assert np.isnan(lower[:, :, 3:]).all()
    assert np.isnan(upper[:, :, 3:]).all()
    assert found.for_steps(2).margins.shape == (1, 2, 2)


def checkpoints(folder: Path) -> tuple[Path, Path]:
    (folder / "checkpoints").mkdir()
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    best.write_bytes(b"best")
    last.write_bytes(b"last")
    return best, last


def test_calibration_file_applies_to_its_checkpoint_only(tmp_path: Path) -> None:
    best, last = checkpoints(tmp_path)
    assert load_calibration(best) is None
    margins = np.random.default_rng(0).random((3, 1, 3, 2))
    saved = Calibration([0.8], margins[0], QUANTILES, 100, {"a": margins[1], "b": margins[2]})
    path = save_calibration(saved, tmp_path, best)
    again = load_calibration(best)
    assert again is not None
    np.testing.assert_allclose(again.margins, saved.margins, rtol=1e-6)
    for name, own in saved.series.items():
        np.testing.assert_allclose(again.series[name], own, rtol=1e-6)
    assert again.relative
    assert (again.coverages, again.quantiles, again.windows) == (saved.coverages, saved.quantiles, saved.windows)
    assert load_calibration(last) is None

    content = json.loads(path.read_text())
    changes = {"margins": [1], "windows": "?", "series": {"a": [[1.0]]}, "unit": "metre", "quantiles": None}
    others = [json.dumps({**content, key: value}) for key, value in changes.items()]
    for damage in ('{"margins"', "[]", *others):
        path.write_text(damage)
        with pytest.raises(InputError, match=r"conformal\.json: damaged: .*; delete it to continue without"):
            load_calibration(best)


def test_file_of_an_older_run_gives_the_intervals_that_it_gave(tmp_path: Path) -> None:
    best, _ = checkpoints(tmp_path)
    save_calibration(Calibration([0.8, 0.95], np.array([[[-0.5]], [[2.0]]]), QUANTILES, 100), tmp_path, best)
    content = json.loads((tmp_path / "conformal.json").read_text())
    older = {key: value for key, value in content.items() if key not in ("unit", "series")}
    (tmp_path / "conformal.json").write_text(json.dumps(older))
    found = load_calibration(best)
    assert found is not None
    # 80 %: q0.1 and q0.9, each moved by 0.5 inwards; 95 %: the median and 2, and no narrower than 80 %.
    lower, upper = found.for_series("a").for_steps(1).intervals(FORECAST)
    assert lower.ravel().tolist() == [-2.5, -2.5]
    assert upper.ravel().tolist() == [1.5, 3]
