"""Checksums of arrays and files."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """Return one SHA-256 over the dtypes, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, keyed by its path relative to the common parent folder."""
    found = sorted({path.absolute() for path in paths})
    if not found:
        return {}
    folder = Path(os.path.commonpath([path.parent for path in found]))
    return {path.relative_to(folder).as_posix(): digest_of_file(path) for path in found}


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
