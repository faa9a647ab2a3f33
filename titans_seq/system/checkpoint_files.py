"""Checkpoint files: written atomically, verified when read, never unpickled."""

import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from titans_seq.errors import InputError
from titans_seq.system.files import replacing
from titans_seq.system.run_folders import BEST

LAST = "last.ckpt"  # the latest training state


class DamagedCheckpointError(InputError):
    """The file is truncated, altered or not a checkpoint."""


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically: to a temporary file, synced to disk, then renamed.

    Raises OSError when the disk is full or unavailable; an existing file at `path` is unchanged then.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports a failed write
            file.flush()  # raises the system's own error if the buffer is not empty
            raise (error.__context__ if isinstance(error.__context__, OSError) else OSError(str(error))) from None
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `write_checkpoint` onto the CPU after verifying its checksums; executes no code.

    Raises InputError; for a damaged file it names the newest intact checkpoint in the same folder.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        return _read(path)
    except DamagedCheckpointError as damaged:
        good = newest_good(path.parent, besides=path)
        hint = f"; newest intact checkpoint in the same folder: {good}" if good else ""
        raise DamagedCheckpointError(f"{damaged}{hint}") from None


def newest_good(folder: Path, besides: Path | None = None) -> Path | None:
    """Return the newest intact checkpoint of a folder, None if there is none."""
    for path in by_age(folder):
        if besides is None or path.name != besides.name:
            try:
                _read(path)
            except DamagedCheckpointError:
                continue
            return path
    return None


def by_age(folder: Path) -> Iterator[Path]:
    """Yield the checkpoints of a folder, newest first: last.ckpt, its predecessors, best.ckpt, then all others."""
    names = [LAST, *(path.name for path in sorted(folder.glob(predecessor("*")), key=_number)), BEST]
    yield from (folder / name for name in names if (folder / name).is_file())
    others = (path for path in folder.glob("*.ckpt") if path.name not in names)
    yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


def predecessor(number: int | str) -> str:
    """Return the file name of last.ckpt after `number` newer ones replaced it."""
    return f"previous-{number}.ckpt"


def make_room_for_last(folder: Path, keep: int) -> None:
    """Link last.ckpt to previous-1.ckpt, so that a new one can replace it, and keep at most `keep` checkpoints."""
    for path in folder.glob(predecessor("*")):
        if _number(path) >= keep - 1:
            path.unlink()
    if keep < 2 or not (folder / LAST).exists():
        return
    for number in range(keep - 2, 0, -1):
        if (older := folder / predecessor(number)).exists():
            older.replace(folder / predecessor(number + 1))
    try:
        (folder / predecessor(1)).hardlink_to(folder / LAST)  # a link, so that last.ckpt exists at every moment
    except OSError:  # a file system without hard links
        (folder / LAST).replace(folder / predecessor(1))


def drop_predecessors(folder: Path) -> None:
    """Delete the predecessors of last.ckpt; a finished run keeps last.ckpt and best.ckpt only."""
    for path in folder.glob(predecessor("*")):
        path.unlink()


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _read(path: Path) -> dict[str, Any]:
    bad = f"{path}: cut short, damaged or not a checkpoint"
    if not zipfile.is_zipfile(path):  # torch would try its older format and fail with an arbitrary exception
        raise DamagedCheckpointError(
            f"{path}: cut short, damaged or not a checkpoint: not a zip archive as torch writes it"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if wrong := archive.testzip():  # torch does not verify the checksums that it writes
                raise DamagedCheckpointError(
                    f"{path}: cut short, damaged or not a checkpoint: {wrong} fails its checksum"
                )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedCheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged archive fails with arbitrary exceptions
        reason = str(error).partition("\n")[0] or type(error).__name__  # an EOFError has no message
        if isinstance(error, pickle.UnpicklingError):
            reason = "it contains objects other than tensors and plain values"
        raise DamagedCheckpointError(f"{bad}: {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint of titans_seq: expected a dictionary, got {type(content).__name__}")
    return content


def _sync_folder(folder: Path) -> None:
    """Sync the folder: otherwise a crash of the machine can undo the renaming."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # on Windows folders cannot be opened
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
