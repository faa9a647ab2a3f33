"""Atomic file writing and file locks."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from titans_seq.system.platform_features import lock_at_once

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; its file replaces `path` unless the block raises.

    A partly written file is never visible at `path`; an existing file there is unchanged until the replacement.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text atomically; line endings are not translated."""
    with replacing(path) as partial, partial.open("w", newline="") as file:
        file.write(text)


def try_lock(file: IO[str]) -> bool:
    """Lock `file`, which is open for writing, until it is closed; return False if another process holds the lock.

    The lock of a killed process is released. Always True on a file system or an operating system without locks.
    """
    try:
        lock_at_once(file)
    except (BlockingIOError, PermissionError):  # the second is what Windows raises
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
