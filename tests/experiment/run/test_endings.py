"""Resuming, whatever ends a training and whenever checkpoints are written: bit for bit the uninterrupted run."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.experiment.run.test_resume import assert_same_run, rows
from tests.helpers import CONFIGS, SMALL_MODEL
from titans_seq.config import load_config
from titans_seq.errors import Interrupted
from titans_seq.experiment import fit

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
# Three epochs of four steps, with everything that has state.
SHORT = [
    *SMALL_MODEL,
    "data.batch_size=16",
    "trainer.limit_batches=4",
    "trainer.max_epochs=3",
    "trainer.num_threads=1",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.ema_decay=0.5",
    "task.warmup_steps=2",
    "task.intervals=[]",
    "logging.every_n_steps=1",
    "logging.wandb=off",
]
ENDINGS = {  # overrides, and the number of steps at which the training ends
    "max_epochs": (["trainer.max_epochs=2"], 8),
    "max_steps within an epoch": (["trainer.max_steps=6"], 6),
    "max_steps at the end of an epoch": (["trainer.max_steps=8"], 8),
    "max_steps beyond the epochs": (["trainer.max_steps=100"], 12),
    "max_minutes": (["trainer.max_minutes=6.5"], 7),
    "early stopping": (["trainer.patience=1", "task.learning_rate=0"], 8),
}
SCHEDULES = {
    "ends of epochs": [],
    "every second step": ["trainer.checkpoint_steps=2"],
    "every 1.5 minutes": ["trainer.checkpoint_minutes=1.5"],
}


class Killed(BaseException):
    """Ends a training between two steps; nothing in the project catches it."""


class Fault(NamedTuple):
    """A kill, or with `stopped` a SIGTERM, before the step with this number in a process, counted from 1."""

    step: int
    stopped: bool = False


@contextmanager
def process(monkeypatch: pytest.MonkeyPatch, fault: Fault | None = None) -> Iterator[list[int]]:
    """Run like a new process in which every step takes a minute; yields a list that gets a 1 at every step."""
    original, steps = torch.optim.AdamW.step, []

    def step(self: Any, closure: Any = None) -> Any:
        if fault and len(steps) + 1 == fault.step:
            if not fault.stopped:
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)
        result = original(self, closure)
        steps.append(1)
        return result

    with monkeypatch.context() as patched:
        patched.setattr("torch.optim.AdamW.step", step)
        patched.setattr("titans_seq.callbacks.checkpoints.time.monotonic", lambda: 60.0 * len(steps))
        patched.setattr("titans_seq.experiment.forecasting.experiment.plot_forecasts", lambda path, **_: path.touch())
        patched.setattr("titans_seq.experiment.run.training.plot_training", lambda *_: False)
        yield steps


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, overrides: list[str], *faults: Fault) -> int:
    """Train into `folder`, killed by each fault and resumed; returns the steps of the last process."""
    config = load_config([SYNTHETIC], [*SHORT, *overrides, f"run.dir={folder}", "resume=auto"])
    for fault in faults:
        with process(monkeypatch, fault), pytest.raises(Interrupted if fault.stopped else Killed):
            fit(config)
        assert not (folder / "results.json").exists()
    with process(monkeypatch) as steps:
        fit(config)
    return len(steps)


def some_faults(random_numbers: random.Random, steps: int) -> list[Fault]:
    """One fault, or two, before the end of a training of so many steps."""
    first = Fault(random_numbers.randint(1, steps), random_numbers.random() < 0.5)
    return [first, *([Fault(1)] if random_numbers.random() < 0.5 else [])]


DRAWS = random.Random(26)
DRAWN = [(ending, DRAWS.choice(list(SCHEDULES)), DRAWS.randrange(2**16)) for ending in ENDINGS]


@pytest.mark.parametrize(("ending", "schedule", "seed"), DRAWN, ids=[f"{e}, {s}" for e, s, _ in DRAWN])
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, schedule: str, seed: int
) -> None:
    overrides, last = ENDINGS[ending]
    overrides = [*overrides, *SCHEDULES[schedule]]
    steps = train(monkeypatch, tmp_path / "whole", overrides)
    assert steps == last, "the training must end as the case says"
    faults = some_faults(random.Random(seed), steps)
    train(monkeypatch, tmp_path / "run", overrides, *faults)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_max_steps_killed_right_after_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    overrides = ["trainer.max_steps=5", f"trainer.accumulate_batches={accumulate}"]
    after_an_epoch = 4 // accumulate + 1
    train(monkeypatch, tmp_path / "whole", overrides)
    train(monkeypatch, tmp_path / "run", overrides, Fault(after_an_epoch), Fault(1), Fault(1, stopped=True))
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert len(rows(tmp_path / "run")) >= 5
