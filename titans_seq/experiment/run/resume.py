"""Find the run and checkpoint that `resume` refers to, and check that its configuration has not changed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from titans_seq.callbacks.checkpoints import RESUME
from titans_seq.config import differences, load_config, merged
from titans_seq.errors import InputError
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.loggers import print_note
from titans_seq.schema import Config
from titans_seq.system.checkpoint_files import LAST, DamagedCheckpointError, by_age, read_checkpoint
from titans_seq.system.run_folders import find_resumed, start_time

# Keys that may differ on resume: they change where a run computes and what it keeps, not what it computes.
CHANGEABLE_KEYS = {
    "resume",
    "run.dir",
    "logging.wandb",
    "logging.project",
    "logging.artifact",
    "data.root",
    "model.memory.backend",
    *(
        f"trainer.{name}"
        for name in (
            "compile",
            "accelerator",
            "devices",
            "num_nodes",
            "strategy",
            "num_threads",
            "profiler",
            "progress_bar",
            "checkpoint_steps",
            "checkpoint_minutes",
            "keep_checkpoints",
        )
    ),
}


@dataclass(frozen=True)
class StartPoint:
    """The point from which a training starts: new, or resumed from a checkpoint."""

    config: Config  # the run's own, with the changeable keys as configured now
    folder: RunFolder | None = None  # of the run to resume; None: a new run
    checkpoint: Path | None = None  # None: the run has none yet and starts again in its folder
    content: dict[str, Any] | None = None  # of the checkpoint
    damaged: tuple[Path, ...] = ()  # newer checkpoints that are unreadable

    @property
    def progress(self) -> dict[str, Any]:
        """Epoch, batches, logged rows and seconds so far."""
        return self.content[RESUME] if self.content else {"epoch": 0, "batches": 0, "rows": 0, "seconds": 0.0}


def find_start_point(config: Config) -> StartPoint:
    """Resolve `config.resume`. Raises InputError when there is no such run, or when its configuration differs."""
    resume = config.resume
    if resume is None:
        return StartPoint(config)
    if resume in ("last", "auto"):
        folder = _newest(config)
        if folder is None:
            if resume == "auto":
                return StartPoint(replace(config, resume=None))
            raise InputError(f"resume=last: no run in {_runs_folder(config)}; leave resume out, or use resume=auto")
        return _start_point_in(folder, config)
    path = find_resumed(resume)
    if path.is_dir():
        return _start_point_in(_run_in(path), config)
    folder = _run_in(path.parent.parent)
    content = _read_resumable(path)
    if content is None:
        raise InputError(f"resume={resume}: contains weights only, not the training's progress; use {LAST}")
    return StartPoint(_configuration(folder, config), folder, path, content)


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results.json of a run; None where the run is not finished."""
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not readable: {error}") from None
    if not isinstance(results, dict):
        raise InputError(f"{path}: not the results of a run")
    return results


def newest_seeds_folder(config: Config) -> Path | None:
    """The newest folder with runs of this configuration over several seeds."""
    found = [path.parent for path in (Path("runs") / config.experiment).glob("*/seed-*/config.yaml")]
    for run in sorted(found, key=start_time, reverse=True):
        seed = run.name.removeprefix("seed-")
        if seed.isdecimal() and _has_config(run, replace(config, seed=int(seed), seeds=[])):
            return run.parent
    return None


def _run_in(path: Path) -> RunFolder:
    if not (path / "config.yaml").is_file():
        raise InputError(f"resume={path}: not a run's folder: it contains no config.yaml")
    return RunFolder(path)


def _start_point_in(folder: RunFolder, config: Config) -> StartPoint:
    configuration = _configuration(folder, config)
    damaged = []
    for path in by_age(folder.checkpoints):
        try:
            content = _read_resumable(path)
        except DamagedCheckpointError as error:
            print_note(str(error))
            damaged.append(path)
            continue
        if content is not None:
            return StartPoint(configuration, folder, path, content, tuple(damaged))
    return StartPoint(configuration, folder, damaged=tuple(damaged))


def _read_resumable(path: Path) -> dict[str, Any] | None:
    content = read_checkpoint(path)
    if RESUME in content and "processes" not in content[RESUME]:
        raise InputError(
            f"{path}: written by an earlier version, whose trainings cannot be resumed; it can still be tested"
        )
    return content if RESUME in content else None


def _newest(config: Config) -> RunFolder | None:
    """The newest run of this configuration; else one of another configuration, for the error that it differs."""
    runs = sorted(_runs(config), key=start_time, reverse=True)
    others = runs if config.run.dir or config.resume == "last" else []
    path = next((run for run in runs if _has_config(run, config)), others[0] if others else None)
    return None if path is None else RunFolder(path)


def _has_config(run: Path, config: Config) -> bool:
    try:
        return not differences(load_config([run / "config.yaml"]), config, CHANGEABLE_KEYS)
    except InputError:  # written by an older version, with other keys
        return False


def _runs(config: Config) -> Iterator[Path]:
    base = _runs_folder(config)
    if config.run.dir:
        yield from (file.parent for file in base.glob("config.yaml"))
    else:
        yield from (file.parent for file in base.glob("*/config.yaml"))


def _runs_folder(config: Config) -> Path:
    return Path(config.run.dir) if config.run.dir else Path("runs") / config.experiment


def _configuration(folder: RunFolder, config: Config) -> Config:
    """The run's own configuration with the changeable keys of `config`; raises InputError when other keys differ."""
    file = folder.path / "config.yaml"
    own = load_config([file])
    found = differences(own, config, CHANGEABLE_KEYS)
    if found:
        key, before, now = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(
            f"resume: {key} is {before} in {file}, {now} now{more}; a run keeps its own configuration: restore the "
            "value, or leave resume out"
        )
    return merged(own, config, CHANGEABLE_KEYS - {"resume", "run.dir"}, str(file))
