"""Checkpoint files that are whole or not there: written under another name, verified when read, never unpickled."""

import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from titans_seq.errors import InputError
from titans_seq.system.files import replacing

LAST, BEST = "last.ckpt", "best.ckpt"  # where training stands, and the weights that validation chose


class DamagedCheckpointError(InputError):
    """The file is not what was written: cut short, altered, or never a checkpoint."""


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write to a temporary name, make sure that it is on the disk, then rename: nobody ever finds half a file.

    Raises OSError when the disk is full or gone; what was at `path` is untouched then.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's words for a write that failed
            file.flush()  # says what the system said, if the buffer still holds something
            raise (error.__context__ if isinstance(error.__context__, OSError) else OSError(str(error))) from None
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU, after every byte's checksum was compared. Executes nothing.

    Raises InputError, naming the newest good checkpoint beside a damaged one.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        return _read(path)
    except DamagedCheckpointError as damaged:
        good = newest_good(path.parent, besides=path)
        hint = f"; the newest good one beside it: {good}" if good else ""
        raise DamagedCheckpointError(f"{damaged}{hint}") from None


def newest_good(folder: Path, besides: Path | None = None) -> Path | None:
    """The newest checkpoint of a folder that is whole."""
    for path in by_age(folder):
        if besides is None or path.name != besides.name:
            try:
                _read(path)
            except DamagedCheckpointError:
                continue
            return path
    return None


def by_age(folder: Path) -> Iterator[Path]:
    """The checkpoints of a folder, newest first: last.ckpt, then its predecessors, then best.ckpt."""
    names = [LAST, *(path.name for path in sorted(folder.glob(predecessor("*")), key=_number)), BEST]
    yield from (folder / name for name in names if (folder / name).is_file())
    others = (path for path in folder.glob("*.ckpt") if path.name not in names)
    yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


def predecessor(number: int | str) -> str:
    """The name of last.ckpt after `number` others took its place."""
    return f"previous-{number}.ckpt"


def make_room_for_last(folder: Path, keep: int) -> None:
    """Let last.ckpt have the name previous-1.ckpt too, so that the next one can take its place; `keep` are kept."""
    for path in folder.glob(predecessor("*")):
        if _number(path) >= keep - 1:
            path.unlink()
    if keep < 2 or not (folder / LAST).exists():
        return
    for number in range(keep - 2, 0, -1):
        if (older := folder / predecessor(number)).exists():
            older.replace(folder / predecessor(number + 1))
    try:
        (folder / predecessor(1)).hardlink_to(folder / LAST)  # last.ckpt is there at every moment
    except OSError:  # a file system without hard links
        (folder / LAST).replace(folder / predecessor(1))


def drop_predecessors(folder: Path) -> None:
    """What is left of a finished run: last.ckpt and best.ckpt."""
    for path in folder.glob(predecessor("*")):
        path.unlink()


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _read(path: Path) -> dict[str, Any]:
    bad = f"{path}: cut short, damaged or not a checkpoint"
    if not zipfile.is_zipfile(path):  # torch would read it as its older format, and fail in any way whatever
        raise DamagedCheckpointError(
            f"{path}: cut short, damaged or not a checkpoint: not the archive that torch writes"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if wrong := archive.testzip():  # torch does not compare the checksums that it writes
                raise DamagedCheckpointError(
                    f"{path}: cut short, damaged or not a checkpoint: {wrong} fails its checksum"
                )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedCheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in any way whatever
        reason = str(error).partition("\n")[0] or type(error).__name__  # an EOFError says nothing
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and plain values"
        raise DamagedCheckpointError(f"{bad}: {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint of titans_seq: it holds a {type(content).__name__}")
    return content


def _sync_folder(folder: Path) -> None:
    """Without it a crash of the machine can undo the renaming."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
