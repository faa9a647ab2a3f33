"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
