"""The folder of a run and the files in it."""

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
        """Raise InputError when `run.dir` holds a run already."""
        if config.run.dir and (Path(config.run.dir) / "config.yaml").exists():
            raise InputError(
                f"run.dir={config.run.dir}: holds a run already; go on with it by resume=auto, or name another folder"
            )

    @classmethod
    def create(cls, config: Config) -> "RunFolder":
        """Make the folder, `run.dir` or runs/<experiment>/<time>, and write the resolved configuration into it."""
        try:
            if config.run.dir:
                path = Path(config.run.dir)
                path.mkdir(parents=True, exist_ok=True)
            else:
                path = _make_unused(Path("runs") / config.experiment / f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
            with (path / "config.yaml").open("x") as handle:  # whoever creates it owns the folder
                handle.write(to_yaml(config))
            folder = cls(path)
            folder.checkpoints.mkdir(exist_ok=True)
            folder.plots.mkdir(exist_ok=True)
        except FileExistsError:
            RunFolder.check_free(config)
            raise InputError(f"run.dir={config.run.dir}: is a file; name a folder") from None
        except OSError as error:
            raise InputError(f"run.dir={config.run.dir or 'runs'}: cannot be written: {error.strerror}") from None
        return folder

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keep other processes from this run until the end; one that is killed lets go of it.

        Raises InputError when another one has it.
        """
        with (self.path / "config.yaml").open("r+") as handle:  # network file systems lock what can be written alone
            if not try_lock(handle):
                raise InputError(f"{self.path}: another process is at this run")
            yield

    def write_json(self, name: str, content: dict[str, Any]) -> Path:
        """Write `content` to the file `name` of the folder."""
        path = self.path / name
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        return path


def _make_unused(path: Path) -> Path:
    """Make the folder `path`, or with -2, -3, ... appended where runs start within one second."""
    candidate, count = path, 1
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            count += 1
            candidate = path.with_name(f"{path.name}-{count}")
        else:
            return candidate
