"""Resolve a path to a checkpoint or a run: a file, a run folder, or `FOLDER/last`, the newest run below a folder.

Imports no torch, so that a wrong path is reported at once.
"""

import os
from pathlib import Path

from titans_seq.errors import InputError

BEST = "best.ckpt"  # the best weights by validation, in the folder `checkpoints` of a run
REFIT = "refit.ckpt"  # beside it, with data.refit: the weights trained again on all rows
NEWEST = "last"  # in place of the name of a run: the newest run in the same folder


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint at `path`: the file itself, or the best checkpoint of a run folder.

    The name `last` stands for the run below that folder that started last, of any experiment, sweep or seed. Raises
    InputError.
    """
    path = _replace_newest(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint file or run folder")
    if not path.is_dir():
        return path
    best = path / "checkpoints" / BEST
    if best.is_file():
        return best
    if (path / "config.yaml").is_file():
        raise InputError(f"{path}: the run has no checkpoints/{BEST} yet")
    hint = f"; it contains runs: name one, or {path / NEWEST} for the newest" if _runs_below(path) else ""
    raise InputError(f"{path}: not a run's folder: it contains no checkpoints/{BEST}{hint}")


def find_forecasters(path: str | Path, *, refit: bool = False) -> list[Path]:
    """Return the checkpoints at `path`: as `find_checkpoint` does, or of every run below a folder of runs, by name.

    With `refit`, a run's folder gives the weights that were trained again on all rows, if it has them. Raises
    InputError.
    """
    folder = _replace_newest(path)
    below = [] if (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir() else _runs_below(folder)
    runs = sorted(below) or [folder]
    found = [find_checkpoint(run) for run in runs]
    again = [run / "checkpoints" / REFIT for run in runs]
    return [new if refit and new.is_file() else best for new, best in zip(again, found, strict=True)]


def find_resumed(resume: str) -> Path:
    """Return the run folder or checkpoint at the path `resume`, where the name `last` stands for the newest run.

    Raises InputError.
    """
    path = _replace_newest(resume)
    if not path.exists():
        raise InputError(f"resume={resume}: no such run folder or checkpoint; expected a path, last or auto")
    return path


def newest_run(folder: Path) -> Path:
    """Return the run in or below `folder` that started last; raises InputError if there is none."""
    runs = _runs_below(folder)
    if not runs:
        raise InputError(f"{folder / NEWEST}: no run below {folder}")
    return max(runs, key=lambda run: (start_time(run), run.name))


def start_time(run: Path) -> int:
    """Return when a run started, in nanoseconds: its config.yaml is written once, at the start."""
    return (run / "config.yaml").stat().st_mtime_ns


def _replace_newest(path: str | Path) -> Path:
    path = Path(os.path.expanduser(path))  # unlike Path.expanduser, returns ~name of an unknown user as it is
    return newest_run(path.parent) if path.name == NEWEST and not path.exists() else path


def _runs_below(folder: Path) -> list[Path]:
    # The deepest run folder is runs/EXPERIMENT/TIME/seed-0.
    return [path.parent for depth in range(4) for path in folder.glob("*/" * depth + "config.yaml")]
