"""Progress on the console: a bar on a terminal, a line per epoch in a file, nothing if it is switched off."""

import csv
import io
import sys
from pathlib import Path

import pytest

from tests.helpers import CONFIGS, SMALL_MODEL, run_cli
from titans_seq.system.console import can_redraw

SHORT = ["trainer.max_epochs=2", "trainer.limit_batches=2", "logging.wandb=off", "trainer.accelerator=cpu"]


def fit(folder: Path, *overrides: str, progress_bar: bool = True) -> str:
    words = [*SMALL_MODEL, *SHORT, f"trainer.progress_bar={str(progress_bar).lower()}", f"run.dir={folder}", *overrides]
    answer = run_cli("fit", CONFIGS / "forecasting" / "synthetic.yaml", *words)
    assert answer.status == 0, answer.err
    return answer.out


def progress(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("epoch ")]


def test_a_file_gets_a_line_per_epoch(tmp_path: Path) -> None:
    printed = fit(tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    scores = [float(row["val/mse"]) for row in rows if row["val/mse"]]
    assert len(scores) == 2
    assert progress(printed) == [f"epoch {i} of 2: val/mse {score:.4g}" for i, score in enumerate(scores, start=1)]
    assert "it/s" not in printed
    assert "\r" not in printed


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("callbacks", "trainer"):
        monkeypatch.setattr(f"titans_seq.experiment.run.{module}.can_redraw", lambda: True)
    printed = fit(tmp_path / "run")
    assert "it/s" in printed
    assert "v_num" not in printed
    assert not progress(printed)


def test_no_progress_if_it_is_switched_off_or_nothing_is_trained(tmp_path: Path) -> None:
    assert not progress(fit(tmp_path / "off", progress_bar=False))
    assert not progress(fit(tmp_path / "naive", "model.baseline=last_value"))


def test_a_terminal_can_be_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not can_redraw()
    monkeypatch.setattr(output, "isatty", lambda: True)
    assert can_redraw()
    monkeypatch.setattr(output, "isatty", lambda: False)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert can_redraw()
