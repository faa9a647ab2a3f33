"""Several checkpoints that are forecast together."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

from tests.experiment.forecasting.sales import OVERRIDES, Panel
from tests.helpers import CONFIGS, refusal, run_cli
from titans_seq.errors import InputError
from titans_seq.experiment import backtest, forecast
from titans_seq.experiment.forecasting import inference

CPU = ["trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def runs(panel: Panel) -> Path:
    """A folder with runs of two seeds on the panel."""
    folder = panel.folder / "seeds"
    words = [CONFIGS / "forecasting" / "table.yaml", f"data.path={panel.table}", *OVERRIDES]
    answer = run_cli("fit", *words, "seeds=[1,2]", f"run.dir={folder}", cwd=panel.folder)
    assert answer.status == 0, answer.err
    return folder


def test_forecast_is_the_mean_of_the_runs(
    panel: Panel, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: list[Figure]
) -> None:
    single = [forecast(runs / f"seed-{seed}", overrides=CPU, data=panel.table, future=panel.plans) for seed in (1, 2)]
    capsys.readouterr()
    both = forecast(runs, tmp_path / "f.parquet", CPU, data=panel.table, future=panel.plans, plot=tmp_path / "p.png")
    assert "Note: forecasts are means of 2 checkpoints: " in capsys.readouterr().out
    numbers = [name for name, dtype in both.schema.items() if dtype.is_float()]
    assert {"forecast", "q0.1", "q0.9", "lower_80", "upper_95"} <= set(numbers)
    for name in numbers:
        assert not single[0][name].equals(single[1][name])
        mean = (single[0][name] + single[1][name]) / 2
        assert (both[name] - mean).abs().max() < 1e-9  # type: ignore[operator]
    assert both.drop(numbers).equals(single[0].drop(numbers))
    (line,) = [each for each in figures[0].axes[0].get_lines() if each.get_label() == "forecast"]
    assert list(line.get_ydata())[1:] == pytest.approx(both.filter(series="a")["forecast"].to_list())  # type: ignore[arg-type]


def test_several_paths_are_a_folder_of_runs(panel: Panel, runs: Path, tmp_path: Path) -> None:
    tables = []
    for words in ([runs], [runs / "seed-1", runs / "seed-2" / "checkpoints" / "best.ckpt"]):
        common = ["--data", panel.table, "--future", panel.plans, "--out", tmp_path / "f.parquet", *CPU]
        answer = run_cli("forecast", *words, *common)
        assert answer.status == 0, answer.err
        tables.append(pl.read_parquet(tmp_path / "f.parquet"))
    assert tables[0].equals(tables[1])
    line = refusal(run_cli("forecast", runs / "seed-1", "nothing", "--data", panel.table))
    assert "nothing: no such checkpoint file or run folder" in line


def test_backtest_scores_the_mean_of_the_runs(panel: Panel, runs: Path) -> None:
    tables = [backtest(each, overrides=CPU, windows=2) for each in (runs / "seed-1", runs / "seed-2", runs)]
    mse = [table.filter(channel="all")["mse"][0] for table in tables]
    assert mse[2] < (mse[0] + mse[1]) / 2  # of a mean of two different forecasts
    assert tables[2].columns == tables[0].columns


def test_runs_that_do_not_match_are_an_error(panel: Panel, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = inference.load_trained

    def changed(checkpoint: Path, *arguments: object) -> inference.TrainedForecaster:
        found = load(checkpoint, *arguments)  # type: ignore[arg-type]
        if "seed-2" not in str(checkpoint):
            return found
        return found._replace(config=replace(found.config, data=replace(found.config.data, horizon=5)))

    monkeypatch.setattr(inference, "load_trained", changed)
    with pytest.raises(InputError, match=r"seed-2.*best\.ckpt: horizon 5 does not match 7 of .*seed-1"):
        forecast(runs, overrides=CPU, data=panel.table, future=panel.plans)


def test_runs_on_other_series_are_an_error(panel: Panel, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = inference.load_trained

    def changed(checkpoint: Path, *arguments: object) -> inference.TrainedForecaster:
        found = load(checkpoint, *arguments)  # type: ignore[arg-type]
        if "seed-2" not in str(checkpoint):
            return found
        return found._replace(scaled_series=found.scaled_series[1:], kinds=found.kinds[1:])

    monkeypatch.setattr(inference, "load_trained", changed)
    with pytest.raises(InputError, match=r"seed-2.*best\.ckpt: its data have other series.* than those of .*seed-1"):
        forecast(runs, overrides=CPU, future=panel.plans)
