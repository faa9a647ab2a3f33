"""The commands of docs/verbs.md run in the order of the page, with shortened training."""

import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from tests.helpers import DATA_VARIABLE, REPOSITORY, TWO_STEPS, run_cli
from titans_seq.cli.parser import COMMANDS

PAGE = (REPOSITORY / "docs" / "verbs.md").read_text()
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_the_session_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)  # the page uses the built-in datasets
    monkeypatch.chdir(tmp_path)
    seen = set()
    for line in LINES:
        program, *arguments = shlex.split(line, comments=True)
        seen.add(arguments[0])
        if arguments[0] == "sweep":
            continue  # six training runs; tests/studies/test_sweep.py runs shorter ones
        short = TWO_STEPS if arguments[0] == "fit" else []
        if arguments[0] in (
            "validate",
            "test",
            "predict",
            "mutagenesis",
            "variants",
            "forecast",
            "backtest",
            "explain",
        ):
            short = ["trainer.accelerator=cpu", "trainer.progress_bar=false"]
        answer = run_cli(*arguments, *short)
        assert (program, answer.status) == ("titans-seq", 0), (line, answer.err)
    assert seen == set(COMMANDS), "the page must show every command"
    for name in (
        "predictions.parquet",
        "forecast.csv",
        "backtest.csv",
        "explain.csv",
        "answers.csv",
        "effects.csv",
        "variants.csv",
    ):
        table = pl.read_parquet(name) if name.endswith("parquet") else pl.read_csv(name)
        assert len(table), name
    for name in ("compare.png", "forecast.png", "effects.png", "model/model.safetensors", "model.pt2"):
        assert (tmp_path / name).stat().st_size, name
