"""Short training runs in this process, and their results, for the tests of all tasks."""

import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.helpers import TWO_STEPS, run_cli
from titans_seq.tasks import Task

TaskT = TypeVar("TaskT", bound=Task)


class Finished(NamedTuple):
    """A finished run."""

    folder: Path
    results: dict[str, Any]  # results.json
    printed: str
    overrides: list[str]  # those of the section `data`

    @property
    def checkpoint(self) -> Path:
        return self.folder / str(self.results["checkpoint"])

    def task(self, kind: type[TaskT]) -> TaskT:
        """Load the task from the checkpoint with Lightning only."""
        return kind.load_from_checkpoint(self.checkpoint, map_location="cpu", weights_only=True).eval()


def fit(config: Path, folder: Path, *overrides: str, steps: list[str] = TWO_STEPS) -> Finished:
    """Run `titans-seq fit` into `folder`; it must succeed."""
    answer = run_cli("fit", config, *steps, *overrides, f"run.dir={folder}", cwd=folder.parent)
    assert answer.status == 0, answer.err
    results = json.loads((folder / "results.json").read_text())
    return Finished(folder, results, answer.out, [override for override in overrides if override.startswith("data.")])
