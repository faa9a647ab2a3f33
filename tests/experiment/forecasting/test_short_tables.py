"""Fitting very short tables with the sizes that the error proposes."""

from pathlib import Path

import pytest

from tests.helpers import run_cli


@pytest.mark.parametrize("rows", [20, 6])
def test_fit_with_the_proposed_sizes(tmp_path: Path, rows: int) -> None:
    values = "\n".join(f"2024-01-{i + 1:02},{100 + i % 7}" for i in range(rows))
    (tmp_path / "few.csv").write_text(f"date,y\n{values}\n")
    words = ["fit", "forecasting/table", f"data.path={tmp_path / 'few.csv'}"]
    words += ["model.dim=16", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logging.wandb=off"]
    refused = run_cli(*words, cwd=tmp_path)
    assert refused.status == 2
    proposed = refused.err.partition(". For all splits ")[2].removesuffix(" would fit\n").split()
    assert proposed
    answer = run_cli(*words, *proposed, cwd=tmp_path)
    assert answer.status == 0, answer.err
