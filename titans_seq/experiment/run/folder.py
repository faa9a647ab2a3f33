"""The folder of a run: creation, locking and its JSON files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from titans_seq.config import to_yaml
from titans_seq.errors import InputError
from titans_seq.schema import Config
from titans_seq.system.files import try_lock, write_atomically


class RunFolder:
    """`config.yaml`, `env.json`, `metrics.csv`, `results.json`, `checkpoints/` and `plots/` of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"

    @staticmethod
    def check_free(config: Config) -> None:
        """Raise InputError when `run.dir` already contains a run."""
        if config.run.dir and (Path(config.run.dir) / "config.yaml").exists():
            raise InputError(
                f"run.dir={config.run.dir}: already contains a run; resume it with resume=auto, or use another folder"
            )

    @classmethod
    def create(cls, config: Config) -> "RunFolder":
        """Create the folder, `run.dir` or runs/<experiment>/<time>, and write the resolved configuration into it.

        Raises InputError when it contains a run already or cannot be written.
        """
        text = to_yaml(config)  # before the file exists: a process killed meanwhile must not leave an empty one
        try:
            if config.run.dir:
                path = Path(config.run.dir)
                path.mkdir(parents=True, exist_ok=True)
            else:
                path = _make_unused(Path("runs") / config.experiment / f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
            with (path / "config.yaml").open("x") as handle:  # only one process can create it
                handle.write(text)
            folder = cls(path)
            folder.checkpoints.mkdir(exist_ok=True)
            folder.plots.mkdir(exist_ok=True)
        except FileExistsError:
            RunFolder.check_free(config)
            raise InputError(f"run.dir={config.run.dir}: is a file; expected a folder") from None
        except OSError as error:
            raise InputError(f"run.dir={config.run.dir or 'runs'}: cannot be written: {error.strerror}") from None
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against other processes inside the block; the lock ends with the process, even if it is killed.

        Raises InputError when another process holds the lock.
        """
        with (self.path / "config.yaml").open("r+") as handle:  # network file systems lock only writable files
            if not try_lock(handle):
                raise InputError(f"{self.path}: the run is in use by another process; wait for it to end")
            yield

    def write_json(self, name: str, content: dict[str, Any]) -> Path:
        """Write `content` to the file `name` of the folder."""
        path = self.path / name
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        return path


def _make_unused(path: Path) -> Path:
    """Create the folder `path`, with -2, -3, ... appended if it exists, as for runs that start in the same second."""
    candidate, count = path, 1
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            count += 1
            candidate = path.with_name(f"{path.name}-{count}")
        else:
            return candidate
