"""Statistical baselines of a backtest, against statsforecast called by hand."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl
import pytest

from datamodules.time_series.series import Series, SplitBoundaries
from tests.experiment.forecasting.sales import HORIZON, ROWS, Panel, sales
from tests.helpers import run_cli
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting import statistical
from titans_seq.experiment.forecasting.statistical import METHODS, choose_methods, statistical_forecasts


def series(values: Any) -> Series:
    columns = np.atleast_2d(np.asarray(values, dtype=float)).T
    names = [f"c{i}" for i in range(columns.shape[1])]
    return Series("s", np.arange(len(columns)), names, columns, SplitBoundaries(1, 2, len(columns)))


@pytest.mark.parametrize("method", METHODS)
def test_forecasts_are_those_of_the_package(method: str) -> None:
    from statsforecast import models

    rng = np.random.default_rng(0)
    y = 50 + 9 * np.sin(2 * np.pi * np.arange(90) / 7) + rng.normal(size=90)
    found, ends = statistical_forecasts(
        method, series(y), np.array([70, 80]), 5, season=7, levels=[0.1, 0.5, 0.75], coverages=[0.9]
    )
    assert found.shape == (2, 5, 1, 3)
    expected = getattr(models, method)(season_length=7).forecast(y=y[:80], h=5, level=[50, 80, 90])
    for index, name in enumerate(("lo-80", "mean", "hi-50")):
        np.testing.assert_allclose(found[1, :, 0, index], expected[name])
    for end, name in zip(ends[0.9], ("lo-90", "hi-90"), strict=True):
        np.testing.assert_allclose(end[1, :, 0], expected[name])


def test_missing_values_are_interpolated_and_an_empty_history_gives_nothing() -> None:
    y = np.arange(40.0)
    gaps = np.where(np.isin(np.arange(40), (0, 1, 17)), np.nan, y)
    nothing = np.full(40, np.nan)
    found, _ = statistical_forecasts(
        "AutoTheta", series([gaps, nothing]), np.array([30]), 3, season=1, levels=[], coverages=[]
    )
    np.testing.assert_allclose(found[0, :, 0, 0], [30, 31, 32], atol=0.5)
    assert np.isnan(found[0, :, 1]).all()


def test_a_fit_that_fails_leaves_other_windows_their_forecasts(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsforecast import models

    class Fails(models.AutoTheta):  # type: ignore[misc]
        def forecast(self, y: Any, **options: Any) -> Any:
            if len(y) == 20:
                raise RuntimeError("no convergence")
            return super().forecast(y=y, **options)

    monkeypatch.setattr(models, "AutoTheta", Fails)
    found, _ = statistical_forecasts(
        "AutoTheta", series(np.arange(40.0)), np.array([20, 30]), 3, season=1, levels=[], coverages=[]
    )
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_methods_are_chosen_by_name_and_season(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_methods("none", 7) == ()
    assert choose_methods("auto", 7) == METHODS
    assert choose_methods("auto", 1) == ("AutoETS", "AutoTheta")
    assert choose_methods("MSTL,AutoETS", 7) == ("MSTL", "AutoETS")
    with pytest.raises(InputError, match="--baselines ARIMA: expected none, auto"):
        choose_methods("AutoETS,ARIMA", 7)
    with pytest.raises(InputError, match="requires a seasonal period above 1"):
        choose_methods("MSTL", 1)
    monkeypatch.setattr(statistical, "find_spec", lambda name: None if name == "statsforecast" else find_spec(name))
    with pytest.raises(InputError, match=r"pip install 'titans-seq\[baselines\]'"):
        choose_methods("auto", 7)


def test_backtest_shows_their_means_below(panel: Panel) -> None:
    out = panel.folder / "s.csv"
    common = ["--data", panel.table, "--windows", "2", "--out", out, "trainer.accelerator=cpu"]
    answer = run_cli("backtest", panel.checkpoint, *common, "--baselines", "AutoTheta")
    assert answer.status == 0, answer.err
    table = pl.read_csv(out)
    assert table["channel"].to_list()[-3:] == ["all", "seasonal naive", "AutoTheta"]
    assert "AutoTheta" in answer.out
    errors = []
    for store, count in ROWS.items():
        y = sales().filter(store=store)["sales"].to_numpy()
        rows = np.array([count - 2 * HORIZON, count - HORIZON])
        found, _ = statistical_forecasts("AutoTheta", series(y), rows, HORIZON, season=7, levels=[], coverages=[])
        errors.append(np.abs(found[..., 0, 0] - np.stack([y[row : row + HORIZON] for row in rows])).mean())
    assert table.row(-1, named=True)["mae"] == pytest.approx(np.mean(errors))
    assert table.row(-1, named=True)["interval_80"] is not None
