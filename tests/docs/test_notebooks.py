"""Notebook sources run in fast mode, and the stored notebooks match them, with outputs and without errors."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from tests.helpers import DATA_VARIABLE, REPOSITORY

SOURCES = sorted((REPOSITORY / "notebooks").glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source_runs_in_fast_mode(source: Path, data_root: Path) -> None:
    environment = {
        **os.environ,
        "TITANS_SEQ_FAST": "1",
        DATA_VARIABLE: str(data_root.resolve()),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-W", "ignore", source.name]
    done = subprocess.run(command, cwd=source.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_stored_notebook_is_the_executed_source(source: Path) -> None:
    source_cells = jupytext.read(source).cells
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
    assert [cell.source for cell in stored] == [cell.source for cell in source_cells], "run `make notebooks`"
    code = [cell for cell in stored if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run `make notebooks`"
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_notebooks() -> None:
    assert SOURCES
