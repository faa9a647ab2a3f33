"""Fixtures of all tests."""

import os
from pathlib import Path

# Triton decides when it is imported, by whomever, whether its kernels will run in the interpreter.
os.environ["TRITON_INTERPRET"] = "1"

import pytest

from tests.helpers import DATA_ROOT, DATA_VARIABLE, Refuse, refusal, run_cli


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets.

    Without the variable there is nothing to test on, and the test skips; with it, a missing file is a failure: a
    mistyped path must not look like a passed suite.
    """
    if DATA_ROOT is None:
        pytest.skip(f"needs the real data: set {DATA_VARIABLE} to the folder that holds ETT-small/")
    for name in ("ETTh1", "ETTh2", "ETTm1", "ETTm2"):
        path = DATA_ROOT / "ETT-small" / f"{name}.csv"
        if not path.is_file():
            pytest.fail(f"{DATA_VARIABLE}={DATA_ROOT}, but there is no {path}")
    return DATA_ROOT


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Run a command that must be refused, in an empty folder that must stay empty; gives its one line."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.delenv(DATA_VARIABLE, raising=False)

    def run(*words: str | Path) -> str:
        line = refusal(run_cli(*words, cwd=folder))
        assert list(folder.iterdir()) == [], "a refused command left something behind"
        return line

    return run
