"""Locating, downloading and verifying published data files by their checksum."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from titans_seq.errors import InputError

DATA_VARIABLE = "TITANS_SEQ_DATA"
_TIMEOUT_S = 30
_BLOCK = 1 << 18


class PublishedFile(NamedTuple):
    """A published data file and its checksum."""

    path: str  # relative to the data root, in the layout that published repositories use
    url: str  # empty where there is no direct download
    sha256: str
    source: str = ""  # where the user gets it, if there is no direct download


def locate(file: PublishedFile, root: str | None) -> Path:
    """Return the local path of `file` in `root`, else $TITANS_SEQ_DATA, else the user's cache, where it is downloaded.

    Raises InputError when the file is missing and cannot be downloaded.
    """
    chosen = root or os.environ.get(DATA_VARIABLE)
    if chosen:
        candidates = [Path(chosen).expanduser() / file.path, Path(chosen).expanduser() / Path(file.path).name]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        key = "data.root" if root else DATA_VARIABLE
        otherwise = f"unset {key} to download it" if file.url else f"get it from {file.source}"
        raise InputError(
            f"{candidates[0].name} not found: looked for {candidates[0]} and {candidates[1]}. "
            f"Put it there, point {key} at the folder that holds it, or {otherwise}."
        )
    target = cache_folder() / file.path
    if not target.is_file() and not file.url:
        raise InputError(
            f"{target.name} is not at {target}, and there is no direct download of it. Get it from {file.source}, and "
            f"set data.root or {DATA_VARIABLE} to a folder that holds {file.path}."
        )
    if not target.is_file():
        _download(file, target)
    return target


def cache_folder() -> Path:
    """Return the download folder: $XDG_CACHE_HOME/titans_seq, else ~/.cache/titans_seq."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "titans_seq"


def verify(path: Path, file: PublishedFile) -> None:
    """Raise InputError unless the bytes at `path` are the published ones; the file is never modified."""
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != file.sha256:
        raise InputError(
            f"{path}: sha256 is {found[:12]}..., the published file has {file.sha256[:12]}...; the file was "
            f"changed or is not {Path(file.path).name}. Left unchanged: move it away, or download it "
            f"again{file.url and f' from {file.url}'}"
        )


def _download(file: PublishedFile, target: Path) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as response, partial.open("wb") as handle:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(desc=target.name, total=size, unit="B", unit_scale=True, file=sys.stderr) as bar:
                while block := response.read(_BLOCK):
                    handle.write(block)
                    bar.update(len(block))
        found = hashlib.sha256(partial.read_bytes()).hexdigest()
        if found != file.sha256:
            raise InputError(
                f"{file.url}: expected sha256 {file.sha256[:12]}..., got {found[:12]}...; the download was discarded"
            )
        partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise InputError(
            f"{target.name} is not at {target} and could not be downloaded from {file.url} ({reason}). "
            f"Set data.root or {DATA_VARIABLE} to a folder that holds {file.path}."
        ) from None
    finally:
        if target.parent.is_dir():
            partial.unlink(missing_ok=True)


def data_root(root: str | None) -> Path | None:
    """Return the data folder: `root`, else $TITANS_SEQ_DATA, else None (downloads go to the user's cache)."""
    chosen = root or os.environ.get(DATA_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set {'data.root' if root else DATA_VARIABLE} to the data folder")
    return folder


def first_file(candidates: Sequence[Path]) -> Path | None:
    """Return the first path that is a file, else None."""
    return next((path for path in candidates if path.is_file()), None)
