"""Files that are whole or not there."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, whose file takes its place unless the block raises.

    Nobody ever finds half a file; what was at `path` is untouched until then.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text so; line ends are written as they are."""
    with replacing(path) as partial, partial.open("w", newline="") as file:
        file.write(text)


def take(file: IO[str]) -> bool:
    """Whether no other process has taken `file`, which is open for writing; it is ours until it is closed.

    A killed process lets go. A file system without locks keeps nobody away: True for all.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
