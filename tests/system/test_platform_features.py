"""Without fcntl, resource and SIGUSR1, as on Windows, the package trains, and `doctor` lists what is missing.

The missing features are simulated in a new process, before anything is imported.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers import CONFIGS, REPOSITORY, SMALL_MODEL, TWO_STEPS

WINDOWS = """
    import enum, signal, sys
    sys.modules["fcntl"] = sys.modules["resource"] = None  # an import raises ModuleNotFoundError
    names = {name: each.value for name, each in signal.Signals.__members__.items() if name in ("SIGINT", "SIGTERM")}
    signal.Signals = enum.IntEnum("Signals", names)  # signal.SIGUSR1 stays: Lightning takes it on every other system
"""
# The part of msvcrt that locks use: a byte of a file belongs to the handle that locked it first.
MSVCRT = """
    import os, types
    held = {}
    def locking(handle, mode, count):
        assert (mode, count) == (2, 1)
        place = (os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR))
        if held.setdefault(place, handle) != handle:
            raise PermissionError(13, "Permission denied")
    msvcrt = types.ModuleType("msvcrt")
    msvcrt.locking, msvcrt.LK_NBLCK = locking, 2
    msvcrt.__spec__ = types.SimpleNamespace(name="msvcrt")
    sys.modules["msvcrt"] = msvcrt
"""
LOCKS = """
    from pathlib import Path
    from titans_seq.system.files import try_lock
    Path("locked").write_text("content")
    with open("locked", "r+") as one, open("locked", "r+") as other:
        print(try_lock(one), try_lock(other), one.read(), other.read())
"""


def run(code: str, folder: Path) -> str:
    """Run a program in `folder` and return its output."""
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(*arguments: str) -> str:
    return f"\n    from titans_seq.cli import main\n    assert main({list(arguments)!r}) in (0, None)\n"


def test_only_one_module_uses_platform_features() -> None:
    pattern = re.compile(r"import (fcntl|resource|msvcrt|termios|pwd|grp)\b|signal\.SIG(?!INT\b|TERM\b)")
    files = [path for package in ("titans_seq", "datamodules") for path in (REPOSITORY / package).rglob("*.py")]
    found = {path.name for path in files if pattern.search(path.read_text())}
    assert found == {"platform_features.py"}


def test_training_works_without_peak_memory(tmp_path: Path) -> None:
    config = str(CONFIGS / "forecasting" / "synthetic.yaml")
    arguments = ["fit", config, *SMALL_MODEL, *TWO_STEPS, "logging.every_n_steps=1", "run.dir=run"]
    run(WINDOWS + command(*arguments), tmp_path)
    columns = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "machine/samples_per_second" in columns
    assert "peak_memory" not in columns


def test_doctor_lists_missing_features(tmp_path: Path) -> None:
    lines = [
        line for line in run(WINDOWS + command("doctor"), tmp_path).splitlines() if line.startswith("missing here")
    ]
    assert ["file locks" in lines[0], "peak memory" in lines[1], "SIGUSR1" in lines[2]] == [True, True, True]
    if sys.platform != "win32":
        assert "missing here" not in run(command("doctor"), tmp_path)


@pytest.mark.parametrize(
    ("system", "answer"), [("", "True False"), (WINDOWS + MSVCRT, "True False"), (WINDOWS, "True True")]
)
def test_files_are_locked_if_the_system_has_locks(system: str, answer: str, tmp_path: Path) -> None:
    assert run(system + LOCKS, tmp_path).split() == [*answer.split(), "content", "content"]
