"""Runs of several context lengths and settings, forecast together on series that not all of them can forecast."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.experiment.forecasting.test_every_series import HORIZON, LAST, LENGTH, LONG, MODEL, rows, void, write
from tests.helpers import TWO_STEPS, run_cli
from titans_seq.errors import InputError
from titans_seq.experiment import backtest, forecast
from titans_seq.experiment.forecasting.inference import align_series, load_ensemble

CPU = ["trainer.accelerator=cpu"]
ENDS = ["q0.05", "lower_80", "upper_80"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, the second with a longer context and without an embedding of unknown categories."""
    folder = tmp_path_factory.mktemp("unequal")
    table = write(folder / "t.csv", *LONG)
    words = [f"data.path={table}", "data.id=store", "data.target=[y]", "data.static=[kind]", *MODEL, *TWO_STEPS]
    for k, dropout in enumerate((0.2, 0)):
        own = [f"data.context_length={LENGTH + 7 * k}", f"data.horizon={HORIZON}", f"model.category_dropout={dropout}"]
        answer = run_cli("fit", "forecasting/table", *words, *own, f"run.dir={folder / f'run{k}'}", cwd=folder)
        assert answer.status == 0, answer.err
    return [folder / "run0", folder / "run1"]


def panel(*more: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([*LONG, rows("few", 24), rows("toys", kind="toys"), rows("week", 6), void("void"), *more])


def test_every_series_is_forecast_in_one_way(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    single = [forecast(run, overrides=CPU, data=panel()) for run in runs]
    capsys.readouterr()
    both = forecast(runs, overrides=CPU, data=panel())
    out = capsys.readouterr().out
    assert dict(both.select("series", "model").unique().iter_rows()) == {
        **{"a": "lmm", "bb": "lmm", "few": "lmm, padded"},
        **{"toys": "seasonal naive", "week": "last value", "void": "none"},
    }
    assert [set(each.filter(series="toys")["model"]) for each in single] == [{"lmm"}, {"seasonal naive"}]
    for name in ("forecast", *ENDS):
        for store in ("a", "bb", "few"):
            first, second, mean = (each.filter(series=store)[name].to_numpy() for each in (*single, both))
            assert not np.array_equal(first, second)
            np.testing.assert_allclose(mean, (first + second) / 2)
    assert both.filter(series="toys")["forecast"].equals(single[1].filter(series="toys")["forecast"])
    assert both.filter(series="toys").select(ENDS).null_count().row(0) == (HORIZON,) * 3
    assert out.count("Note: 1 series (few): fewer than 28 rows: their first season is repeated before them") == 1
    assert out.count("Note: 1 series (week): fewer than 7 rows: the forecast is naive") == 1
    assert "Note: 1 series (toys): naive for one of the checkpoints, and so for all of them" in out


def test_one_origin_for_all_runs(runs: list[Path]) -> None:
    table = panel(rows("late", 100, skip=3), rows("stale", 60, skip=60))
    both = forecast(runs, overrides=CPU, data=table, origin="last")
    single = [forecast(run, overrides=CPU, data=table, origin="last") for run in runs]
    assert set(both["origin"]) == {LAST}
    late = [each.filter(series="late")["forecast"].to_numpy() for each in (*single, both)]
    np.testing.assert_allclose(late[2], (late[0] + late[1]) / 2)
    assert set(both.filter(series="stale")["model"]) == {"seasonal naive"}


def test_series_that_one_run_leaves_out(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    drop = [*CPU, "data.short=drop"]
    both = forecast(runs, overrides=drop, data=panel())
    assert both["series"].unique().sort().to_list() == ["a", "bb", "toys", "void"]
    assert "Note: 1 series (few): not forecast by every one of the checkpoints: left out" in capsys.readouterr().out
    (member,) = load_ensemble(runs[0], pl.concat(LONG), CPU, refit=False)
    forecaster = member.forecaster
    parts = [forecaster._replace(scaled_series=[each], kinds=["model"]) for each in forecaster.scaled_series]
    with pytest.raises(InputError, match=r"no series that every one of the checkpoints can forecast"):
        align_series(parts)


def test_backtest_of_the_windows_that_all_runs_have(runs: list[Path]) -> None:
    table = panel(rows("short", 44))
    words = {"overrides": CPU, "data": table, "windows": 4}
    single = [backtest(run, **words) for run in runs]
    both = backtest(runs, **words)
    counts = [dict(each[:-2].select("series", "windows").iter_rows()) for each in (*single, both)]
    assert counts[0]["toys"] == 4
    assert "toys" not in counts[1]  # no code for its category
    assert counts[2] == {name: min(each[name] for each in counts[:2]) for name in counts[1]}
    mae = [each.filter(series="a")["mae"].item() for each in (*single, both)]
    assert mae[2] <= (mae[0] + mae[1]) / 2


def test_adaptive_intervals_of_several_runs_that_are_trained_anew(runs: list[Path]) -> None:
    words = {"overrides": CPU, "data": panel(), "windows": 4}
    plain = backtest(runs, refit=True, **words)
    adapted = backtest(runs, refit=True, adaptive=True, **words)
    scores = ["windows", "mase", "mse", "mae", "wql"]
    assert adapted.select(scores).equals(plain.select(scores))
    assert not adapted.equals(plain)
    selected = backtest(runs, **words)
    assert plain.select("series", "windows").equals(selected.select("series", "windows"))
    assert not plain["mae"].equals(selected["mae"])
