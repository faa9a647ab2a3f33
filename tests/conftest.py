"""Fixtures shared by all tests."""

import os
from pathlib import Path
from typing import Any

# Triton reads this variable when it is first imported: run its kernels in the interpreter.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
from matplotlib.figure import Figure

from tests.helpers import DATA_ROOT, DATA_VARIABLE, Refuse, refusal, run_cli


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of the real datasets.

    The test is skipped if the variable is not set. If it is set, a missing file is a failure, so that a mistyped path
    does not look like a passed suite.
    """
    if DATA_ROOT is None:
        pytest.skip(f"needs the real data: set {DATA_VARIABLE} to the folder that contains ETT-small/")
    for name in ("ETTh1", "ETTh2", "ETTm1", "ETTm2"):
        path = DATA_ROOT / "ETT-small" / f"{name}.csv"
        if not path.is_file():
            pytest.fail(f"{DATA_VARIABLE}={DATA_ROOT}, but {path} does not exist")
    return DATA_ROOT


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Run a command that must fail with an input error in an empty folder, and return its error line.

    The folder must stay empty.
    """
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.delenv(DATA_VARIABLE, raising=False)

    def run(*arguments: str | Path) -> str:
        line = refusal(run_cli(*arguments, cwd=folder))
        assert list(folder.iterdir()) == [], "a command with invalid input left files behind"
        return line

    return run


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved during the test, in order, so that a test can read what they show."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved
