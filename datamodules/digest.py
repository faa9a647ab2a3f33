"""What tells data from other data."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_of(*arrays: NDArray[Any]) -> str:
    """SHA-256 over types, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def digests_of_files(paths: Iterable[Path]) -> dict[str, str]:
    """The sha256 of each file by its name, as the sums published beside data are."""
    return {path.name: digest_of_file(path) for path in paths}


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
