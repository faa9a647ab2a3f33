"""Features that some operating systems lack (Windows, for example): file locks, peak memory, signals."""

import os
import signal
import sys
from importlib.util import find_spec
from typing import IO

# Sent by the user, by a machine that shuts down, and by a scheduler before it ends the job (SLURM's --signal); the last
# is Ctrl-Break, which only Windows has.
_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK")
# On Windows a locked byte cannot be read, so this one is past the end of every file.
_BEYOND_EVERY_FILE = 2**30


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals of this system that request a program to stop."""
    return tuple(signal.Signals[name] for name in _STOP_SIGNALS if name in signal.Signals.__members__)


def lock_at_once(file: IO[str]) -> None:
    """Lock `file` until it is closed; does nothing on a system without locks.

    Raises OSError, a BlockingIOError or PermissionError if another process holds the lock.
    """
    if _has("fcntl"):
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif _has("msvcrt"):
        _lock_on_windows(file.fileno())


def peak_memory() -> float | None:
    """Return the peak memory of this process in bytes; None if the system does not report it."""
    if not _has("resource"):
        return None
    import resource  # noqa: PLC0415 - not on Windows

    # ru_maxrss is in KiB on Linux, in bytes on macOS.
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def missing_features() -> list[str]:
    """Return what does not work on this system, one line each."""
    missing = []
    if not _has("fcntl") and not _has("msvcrt"):
        missing.append("file locks: a second process can write to the same run")
    if not _has("resource"):
        missing.append("the peak memory of runs on a CPU: metrics.csv has no such column")
    if "SIGUSR1" not in signal.Signals.__members__:
        missing.append("SIGUSR1: a scheduler cannot ask a run to stop before it is killed")
    return missing


def _has(module: str) -> bool:
    return module in sys.builtin_module_names or find_spec(module) is not None


def _lock_on_windows(handle: int) -> None:
    import msvcrt  # noqa: PLC0415 - on Windows alone

    before = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, _BEYOND_EVERY_FILE, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    finally:
        os.lseek(handle, before, os.SEEK_SET)
