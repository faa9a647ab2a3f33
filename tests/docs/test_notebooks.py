"""Notebook sources run in fast mode, and the stored notebooks match them, with outputs and without errors."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from tests.helpers import DATA_VARIABLE, REPOSITORY

STAMP = runpy.run_path(str(REPOSITORY / "notebooks" / "tools" / "stamp.py"))
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
    shown = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    machine_paths = [text for text in shown if re.search(r"(?<![\w.])/[a-z_]+/\w", text)]
    assert not machine_paths, "a notebook must not show paths of the machine that ran it"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_figures_match_the_current_plotting_code(source: Path) -> None:
    assert STAMP["stamped"](source.with_suffix(".ipynb")) == STAMP["plotting_code"](source.stem), "run `make notebooks`"


PLOTTING_CODE = '''"""Plots."""

# The size in inches.
SIZE = (6, 4)


def draw() -> None:
    """Draw."""
    save(dpi=110)
'''


@pytest.mark.parametrize(
    ("before", "after", "outdated"),
    [
        ("dpi=110", "dpi=111", True),
        ("(6, 4)", "(6, 5)", True),
        ("Plots.", "Figures.", False),
        ("Draw.", "Draw it.", False),
        ("in inches", "in in", False),
    ],
)
def test_changed_plotting_code_makes_a_stamped_notebook_outdated(
    before: str, after: str, outdated: bool, tmp_path: Path
) -> None:
    package, notebook = tmp_path / "titans_seq", tmp_path / "02_inside_the_memory.ipynb"
    package.mkdir()
    (package / "plots.py").write_text(PLOTTING_CODE)
    shutil.copy(REPOSITORY / "notebooks" / notebook.name, notebook)
    STAMP["stamp"](notebook, package)
    assert STAMP["stamped"](notebook) == STAMP["plotting_code"](notebook.stem, package)
    (package / "plots.py").write_text(PLOTTING_CODE.replace(before, after))
    assert (STAMP["stamped"](notebook) != STAMP["plotting_code"](notebook.stem, package)) is outdated


def test_every_notebook_lists_the_folders_of_its_plots() -> None:
    assert set(STAMP["SHOWS"]) == {source.stem for source in SOURCES}


def test_there_are_notebooks() -> None:
    assert SOURCES
