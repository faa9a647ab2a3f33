"""Which checkpoint a path means: a file, a run's folder, or `FOLDER/last`, the newest run below a folder.

Imports no torch, so that a wrong path is reported at once.
"""

from pathlib import Path

from titans_seq.errors import InputError

BEST = "best.ckpt"  # the best weights by validation, in the folder `checkpoints` of a run
NEWEST = "last"  # as the name of a run: the newest one beside it


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that `path` means: itself, or the best one of a run's folder.

    The name `last` in place of a run's means the one that began last, of any experiment, sweep or seed below that
    folder. Raises InputError.
    """
    path = Path(path).expanduser()
    if path.name == NEWEST and not path.exists():
        path = newest_run(path.parent)
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


def newest_run(folder: Path) -> Path:
    """The run in or below `folder` that began last. Raises InputError where there is none."""
    runs = _runs_below(folder)
    if not runs:
        raise InputError(f"{folder / NEWEST}: no run below {folder}")
    return max(runs, key=lambda run: ((run / "config.yaml").stat().st_mtime_ns, run.name))


def _runs_below(folder: Path) -> list[Path]:
    # config.yaml is written when a run begins, and never again; runs/EXPERIMENT/TIME/seed-0 is the deepest.
    return [path.parent for depth in range(4) for path in folder.glob("*/" * depth + "config.yaml")]
