"""Another package called `datamodules` is named in one line, wherever it comes from."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with both packages, as an installation has them."""
    for name in ("titans_seq", "datamodules", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / "home" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "home"


def configs(*searched: Path) -> subprocess.CompletedProcess[str]:
    """`titans-seq configs` in a new process that searches these folders before those of its environment."""
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in searched]!r}"
    code += "; from titans_seq.cli import main; sys.exit(main(['configs']))"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)


def test_the_packages_side_by_side_are_no_clash(home: Path) -> None:
    assert configs(home).returncode == 0


@pytest.mark.parametrize("file", ["datamodules/__init__.py", "datamodules.py"])
def test_another_package_that_comes_first(home: Path, tmp_path: Path, file: str) -> None:
    other = tmp_path / "other" / file
    other.parent.mkdir(parents=True)
    other.write_text("raise SystemExit('it was imported')\n")
    done = configs(tmp_path / "other", home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    place = other if file == "datamodules.py" else other.parent
    assert line.startswith(f"titans-seq: {place}: another package with the name datamodules hides that of titans-seq")


def test_another_package_in_its_place(home: Path) -> None:
    shutil.rmtree(home / "datamodules" / "dna")
    (home / "datamodules" / "__init__.py").write_text('"""Data modules of somebody else."""\n')
    done = configs(home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"titans-seq: {home / 'datamodules'}: is missing or another package's; uninstall that one")
