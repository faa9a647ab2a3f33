"""Another package called `datamodules` gives a one-line error, wherever it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with both packages, as in an installation."""
    for name in ("titans_seq", "datamodules", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / "home" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "home"


def configs(*searched: Path) -> subprocess.CompletedProcess[str]:
    """Run `titans-seq configs` in a new process that searches these folders before those of its environment."""
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in searched]!r}"
    code += "; from titans_seq.cli import main; sys.exit(main(['configs']))"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)


def test_no_error_if_both_packages_are_in_one_folder(home: Path) -> None:
    assert configs(home).returncode == 0


@pytest.mark.parametrize("file", ["datamodules/__init__.py", "datamodules.py"])
def test_another_package_earlier_on_the_path(home: Path, tmp_path: Path, file: str) -> None:
    other = tmp_path / "other" / file
    other.parent.mkdir(parents=True)
    other.write_text("raise SystemExit('it was imported')\n")
    done = configs(tmp_path / "other", home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    place = other if file == "datamodules.py" else other.parent
    assert line.startswith(f"titans-seq: {place}: another package with the name datamodules hides that of titans-seq")


def test_another_package_in_the_same_place(home: Path) -> None:
    shutil.rmtree(home / "datamodules" / "dna")
    (home / "datamodules" / "__init__.py").write_text('"""Data modules of somebody else."""\n')
    done = configs(home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"titans-seq: {home / 'datamodules'}: is missing or another package's; uninstall that one")
