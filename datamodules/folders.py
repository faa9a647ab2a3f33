"""Where a user's own copies of published DNA sets are looked for."""

import os
from collections.abc import Sequence
from pathlib import Path

from datamodules.download import DATA_VARIABLE
from titans_seq.errors import InputError


def data_root(root: str | None) -> Path | None:
    """The data folder: `root`, else $TITANS_SEQ_DATA, else None (downloads go to the user's cache)."""
    chosen = root or os.environ.get(DATA_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set {'data.root' if root else DATA_VARIABLE} to the data folder")
    return folder


def first_file(candidates: Sequence[Path]) -> Path | None:
    """The first of these that is a file."""
    return next((path for path in candidates if path.is_file()), None)
