"""Data frames in place of files: fit, forecast and backtest."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from tests.experiment.forecasting.sales import OVERRIDES, Panel, sales
from tests.helpers import CONFIGS, refusal, run_cli
from titans_seq.config import load_config
from titans_seq.errors import InputError
from titans_seq.experiment import backtest, fit, forecast

CPU = ["trainer.accelerator=cpu"]


class PandasLike:
    """The part of a pandas frame that is used: columns by name, an index without a name, construction from a dict."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.content = {name: np.asarray(values) for name, values in columns.items()}
        self.columns = list(self.content)
        self.index = SimpleNamespace(name=None, dtype=np.dtype("int64"))

    def __getitem__(self, name: str) -> pl.Series:
        return pl.Series(name, self.content[name].tolist())

    def reset_index(self) -> "PandasLike":
        return self


@pytest.fixture(scope="module")
def from_frame(panel: Panel) -> Path:
    """The folder of a run like that of `panel`, trained on a frame."""
    folder = panel.folder / "frame"
    config = load_config([CONFIGS / "forecasting" / "table.yaml"], [*OVERRIDES, f"run.dir={folder}"])
    run = fit(config, sales())
    assert run.folder == folder
    return folder


def test_fit_on_a_frame_equals_fit_on_its_file(panel: Panel, from_frame: Path) -> None:
    first = torch.load(panel.checkpoint, weights_only=True)["state_dict"]
    second = torch.load(from_frame / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(x, second[name]) for name, x in first.items())
    assert yaml.safe_load((from_frame / "config.yaml").read_text())["data"]["path"] == "<data frame>"


def test_commands_on_a_run_of_a_frame_ask_for_its_data(panel: Panel, from_frame: Path, tmp_path: Path) -> None:
    for command in ("test", "forecast", "backtest"):
        line = refusal(run_cli(command, from_frame, *CPU, cwd=tmp_path))
        assert "data.path: the run was trained on a data frame; give its data again: --data FILE or data.path=" in line
    line = refusal(run_cli("fit", f"resume={from_frame}", cwd=tmp_path))
    assert "resume it in Python" in line
    answer = run_cli("test", from_frame, f"data.path={panel.table}", *CPU)
    assert answer.status == 0, answer.err


def test_forecast_and_backtest_of_frames_equal_those_of_files(
    panel: Panel, from_frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plans = sales(21).drop("sales", "kind")
    files = forecast(panel.checkpoint, overrides=CPU, data=panel.table, future=panel.plans)
    frames = forecast(from_frame, overrides=CPU, data=sales(), future=plans)
    assert isinstance(frames, pl.DataFrame)
    assert frames.equals(files)
    pandas = PandasLike(sales().to_dict(as_series=False))
    found = forecast(from_frame, overrides=CPU, data=pandas, future=plans)
    assert isinstance(found, PandasLike)
    assert found.content["forecast"].tolist() == files["forecast"].to_list()
    scores = backtest(panel.checkpoint, overrides=CPU, data=panel.table, windows=2)
    assert backtest(from_frame, overrides=CPU, data=sales(), windows=2).equals(scores)
    assert list(tmp_path.iterdir()) == []


def test_the_pretrained_forecaster_takes_frames(panel: Panel) -> None:
    words = ["data.id=store", "data.target=[sales]"]
    files = forecast(None, overrides=words, data=panel.table, horizon=3)
    assert forecast(None, overrides=words, data=sales(), horizon=3).equals(files)


def test_frames_have_an_origin_and_notes_like_files(panel: Panel, capsys: pytest.CaptureFixture[str]) -> None:
    new = sales().filter(store="a").head(20).with_columns(store=pl.lit("new"), kind=pl.lit("huge"))
    table, plans = pl.concat([sales(), new]), sales(21).drop("sales", "kind")
    found = forecast(panel.checkpoint, overrides=CPU, data=table, future=plans, origin="2022-07-19")
    assert set(found["origin"].cast(pl.String).str.head(10)) == {"2022-07-19"}
    models = dict(found.select("series", "model").unique().iter_rows())
    assert models == {**dict.fromkeys("abc", "lmm"), "new": "seasonal naive"}
    assert "Note: 1 series (new: 2022-01-20): end before the origin, 2022-07-19" in capsys.readouterr().out


def test_errors_of_frames(panel: Panel) -> None:
    config = load_config([CONFIGS / "forecasting" / "table.yaml"], OVERRIDES)
    with pytest.raises(InputError, match=r"data: expected a polars or pandas data frame; got dict"):
        fit(config, {"date": []})
    with pytest.raises(InputError, match=r"data.path=x.csv: has no effect with a data frame"):
        fit(load_config([CONFIGS / "forecasting" / "table.yaml"], ["data.path=x.csv"]), sales())
    with pytest.raises(InputError, match=r"data.encoding: has no effect with a data frame; remove it"):
        fit(load_config([CONFIGS / "forecasting" / "table.yaml"], ["data.encoding=cp1252"]), sales())
    with pytest.raises(InputError, match=r"data.separator: has no effect"):
        forecast(None, overrides=["data.separator=;"], data=sales(), horizon=3)
    with pytest.raises(InputError, match=r"data: a data frame needs data.name=table; got data.name=synthetic"):
        fit(load_config(), sales())
    with pytest.raises(InputError, match=r"future: expected a polars or pandas data frame; got int"):
        forecast(panel.checkpoint, overrides=CPU, future=3)
