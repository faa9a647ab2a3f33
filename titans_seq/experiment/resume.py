"""Which run a resumed training belongs to, and whether it may go on."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from titans_seq.callbacks.checkpoints import RESUME
from titans_seq.checkpoint_files import LAST, DamagedCheckpointError, by_age, read_checkpoint
from titans_seq.config import from_container, load_config, to_container
from titans_seq.errors import InputError
from titans_seq.experiment.run_folder import RunFolder
from titans_seq.experiment.trackers import say
from titans_seq.schema import Config

# Keys that may change between the parts of a run: where it runs and what is kept, not what is computed.
FREE = {
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
            "progress_bar",
            "checkpoint_steps",
            "checkpoint_minutes",
            "keep_checkpoints",
        )
    ),
}


@dataclass(frozen=True)
class Start:
    """Where a training begins."""

    config: Config  # that of the run, with the free keys as they are asked for now
    folder: RunFolder | None = None  # of the run that goes on; None: a new one
    checkpoint: Path | None = None  # None: the run has none yet, and begins anew in its folder
    content: dict[str, Any] | None = None  # of the checkpoint
    damaged: tuple[Path, ...] = ()  # newer checkpoints that cannot be read

    @property
    def standing(self) -> dict[str, Any]:
        """Epoch, batches and logged rows so far."""
        return self.content[RESUME] if self.content else {"epoch": 0, "batches": 0, "rows": 0, "seconds": 0.0}


def find_start(config: Config) -> Start:
    """What `resume` stands for. Raises InputError when there is no such run, or when it is another experiment."""
    wanted = config.resume
    if wanted is None:
        return Start(config)
    if wanted in ("last", "auto"):
        folder = _newest(config)
        if folder is None:
            if wanted == "auto":
                return Start(_without_resume(config))
            raise InputError(f"resume=last: no run in {_where(config)}; leave it out, or resume=auto")
        return _start_in(folder, config)
    path = Path(wanted).expanduser()
    if path.is_dir():
        return _start_in(_run_in(path), config)
    if not path.is_file():
        raise InputError(f"resume={wanted}: no such run folder or checkpoint; or one of: last, auto")
    folder = _run_in(path.parent.parent)
    content = _resumable(path)
    if content is None:
        raise InputError(f"resume={wanted}: holds weights to be measured, not where training stood; take {LAST}")
    return Start(_continued(folder, config), folder, path, content)


def changes(own: Config, asked: Config) -> list[tuple[str, Any, Any]]:
    """Keys that matter and differ, with both values."""
    before, now = dict(leaves(asdict(own))), dict(leaves(asdict(asked)))
    keys = [key for key in (*now, *(before.keys() - now.keys())) if key not in FREE]
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def finished(folder: Path) -> dict[str, Any] | None:
    """The results of a run that is done."""
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not a readable result: {error}") from None
    if not isinstance(results, dict):
        raise InputError(f"{path}: not the results of a run")
    return results


def newest_repeats(config: Config) -> Path | None:
    """The newest folder that holds runs of this configuration with several seeds."""
    found = [path.parent for path in (Path("runs") / config.experiment).glob("*/seed-*/config.yaml")]
    for run in sorted(found, key=_begun, reverse=True):
        seed = run.name.removeprefix("seed-")
        if seed.isdecimal() and _is_of(run, replace(config, seed=int(seed), seeds=[])):
            return run.parent
    return None


def _begun(run: Path) -> float:
    return (run / "config.yaml").stat().st_mtime


def _run_in(path: Path) -> RunFolder:
    if not (path / "config.yaml").is_file():
        raise InputError(f"resume={path}: not a run's folder: it holds no config.yaml")
    return RunFolder(path)


def _start_in(folder: RunFolder, config: Config) -> Start:
    continued = _continued(folder, config)
    damaged = []
    for path in by_age(folder.checkpoints):
        try:
            content = _resumable(path)
        except DamagedCheckpointError as error:
            say(str(error))
            damaged.append(path)
            continue
        if content is not None:
            return Start(continued, folder, path, content, tuple(damaged))
    return Start(continued, folder, damaged=tuple(damaged))


def _resumable(path: Path) -> dict[str, Any] | None:
    content = read_checkpoint(path)
    if RESUME in content and "processes" not in content[RESUME]:
        raise InputError(f"{path}: an earlier version wrote it, whose training cannot go on; it can still be measured")
    return content if RESUME in content else None


def _newest(config: Config) -> RunFolder | None:
    """The newest run of this configuration; of others the one in `run.dir`, or that is the last, to be refused."""
    runs = sorted(_runs(config), key=_begun, reverse=True)
    others = runs if config.run.dir or config.resume == "last" else []
    path = next((run for run in runs if _is_of(run, config)), others[0] if others else None)
    return None if path is None else RunFolder(path)


def _is_of(run: Path, config: Config) -> bool:
    try:
        return not changes(load_config([run / "config.yaml"]), config)
    except InputError:  # of an older version, with other keys
        return False


def _runs(config: Config) -> Iterator[Path]:
    base = _where(config)
    if config.run.dir:
        yield from (file.parent for file in base.glob("config.yaml"))
    else:
        yield from (file.parent for file in base.glob("*/config.yaml"))


def _where(config: Config) -> Path:
    return Path(config.run.dir) if config.run.dir else Path("runs") / config.experiment


def _continued(folder: RunFolder, config: Config) -> Config:
    """The run's own configuration with the free keys of the one asked for; raises when others differ."""
    file = folder.path / "config.yaml"
    own = load_config([file])
    found = changes(own, config)
    if found:
        key, before, now = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(
            f"resume: {key} is {before} in {file}, {now} now{more}; a run goes on as it began: set it back, or leave "
            "resume out"
        )
    container = to_container(own)
    for key, value in leaves(asdict(config)):
        if key in FREE - {"resume", "run.dir"}:
            *sections, name = key.split(".")
            section = container
            for each in sections:
                section = section[each]
            section[name] = value
    return from_container(container, source=str(file))


def _without_resume(config: Config) -> Config:
    return from_container({**to_container(config), "resume": None}, source="config")


def leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names and values of the keys of a configuration as a dictionary."""
    for name, value in section.items():
        if isinstance(value, dict) and f"{prefix}{name}" != "data.bed":
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
