"""The worked examples of docs/extending.md are applied to a copy of the repository, and the result trains."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, SMALL_MODEL, TWO_STEPS

PAGE = REPOSITORY / "docs" / "extending.md"
# Section: maximum number of files it may touch, overrides of the training run, arguments of the tests to run.
SECTIONS = {
    "A variant": (4, ["model.variant=ema"], ["tests/backbone/test_variants.py", "-k", "ema"]),
    "A data set": (4, ["data.name=tides"], []),
    "A head": (4, ["model.head_hidden=16"], []),
    "An equation": (10, ["model.memory.gradient=huber"], ["tests/ops/test_huber.py"]),
}


def blocks(section: str) -> list[tuple[str, str, str]]:
    """(language, file, content) of each code block of a section."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(\w+)\n# (\S+)\n(.*?)```", text, re.DOTALL)


def apply(path: Path, diff: str) -> None:
    """Apply a diff without line numbers, whose hunks are separated by blank lines."""
    text = path.read_text()
    for hunk in diff.strip("\n").split("\n\n"):
        lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
        old, new = ("".join(f"{rest}\n" for mark, rest in lines if mark != without) for without in "+-")
        assert text.count(old) == 1, f"{path.name} contains {text.count(old)} times, expected once:\n{old}"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_worked_example_works(section: str, tmp_path: Path) -> None:
    for folder in ("titans_seq", "datamodules", "configs", "tests", "docs", "benchmarks"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    changes = blocks(section)
    most, overrides, tests = SECTIONS[section]
    assert 1 < len(changes) <= most
    for language, file, content in changes:
        if language == "diff":
            apply(tmp_path / file, content)
        else:
            assert not (tmp_path / file).exists()
            (tmp_path / file).write_text(content)
    fit = ["-m", "titans_seq.cli", "fit", "configs/forecasting/synthetic.yaml"]
    run(tmp_path, *fit, *SMALL_MODEL, *TWO_STEPS, *overrides)
    if tests:
        done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
        assert int(re.findall(r"(\d+) passed", done)[0]) > 5, done
    for suite in (file for _, file, _ in changes if file.endswith("_suite.yaml")):
        assert "missing" in run(tmp_path, "-m", "titans_seq.cli", "benchmark", suite, "--list")


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
