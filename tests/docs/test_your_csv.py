"""The commands of docs/your_csv.md run in the order of the page, on the example files that the first one writes."""

import re
import shlex
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.helpers import CONFIGS, REPOSITORY, TWO_STEPS, run_cli
from titans_seq.config import load_config, to_container
from titans_seq.tasks import save_pretrained
from titans_seq.tasks.universal import UniversalTask

PAGE = (REPOSITORY / "docs" / "your_csv.md").read_text()
TABLE, PLANS = re.findall(r"```csv\n(.*?)```", PAGE, flags=re.DOTALL)
LAST = datetime(2023, 12, 31)


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block, _ = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    commands = []
    for line in block.splitlines():
        program, command, *arguments = shlex.split(line)
        quick = {"example": [], "fit": TWO_STEPS}.get(command, ["trainer.accelerator=cpu"])
        answer = run_cli(command, *arguments, *quick)
        assert (program, answer.status) == ("titans-seq", 0), answer.err
        commands.append(command)
    assert commands == ["example", "fit", "backtest", "forecast", "explain"]
    assert Path("sales.csv").read_text().startswith(TABLE)
    assert Path("plans.csv").read_text().startswith(PLANS)

    forecast = pl.read_csv("forecast.csv", try_parse_dates=True)
    assert forecast.columns == [
        *("series", "timestamp", "channel", "origin", "step", "forecast"),
        *(f"q{level}" for level in ("0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95")),
        *(f"{end}_{share}" for share in (80, 95) for end in ("lower", "upper")),
    ]
    for _, part in forecast.group_by("series"):
        assert part["timestamp"].to_list() == [LAST + timedelta(days=i) for i in range(1, 15)]
    assert (tmp_path / "forecast.png").stat().st_size > 10_000
    assert set(pl.read_csv("explain.csv")["covariate"]) >= {"promo", "visitors", "region"}
    backtest = pl.read_csv("backtest.csv")
    assert backtest["channel"].to_list() == ["sales", "sales", "sales", "all", "seasonal naive"]


def test_the_command_for_fine_tuning_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "model.hidden=16"]
    universal = UniversalTask(to_container(load_config([CONFIGS / "forecasting" / "universal.yaml"], small)))
    monkeypatch.setattr("titans_seq.experiment.forecasting.pretrained.weights.SHIPPED", tmp_path)
    save_pretrained(universal, tmp_path / "universal", half=True)
    _, line = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    program, *arguments = shlex.split(line)
    assert run_cli("example", "sales").status == 0
    answer = run_cli(*arguments, *TWO_STEPS)
    assert (program, answer.status) == ("titans-seq", 0), answer.err
    assert "sales, 3 series: 112 steps to 14" in answer.out
