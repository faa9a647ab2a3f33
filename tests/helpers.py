"""What several tests need: the command line in-process, the real data's folder, small files in ETT's format."""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints
from unittest import mock

import numpy as np

from titans_seq.schema import BackboneOptions

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"
ETT_CHANNELS = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
ETT_HEADER = ",".join(["date", *ETT_CHANNELS])

VARIANTS: tuple[str, ...] = get_args(get_type_hints(BackboneOptions)["variant"])

DATA_VARIABLE = "TITANS_SEQ_DATA"
DATA_ROOT = Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None

# A fit of seconds that goes through everything a long one does.
TWO_STEPS = [
    "trainer.max_steps=2",
    "trainer.limit_batches=2",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "logging.wandb=off",
]
# The smallest model that still has every part.
SMALL_MODEL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "data.context_length=72"]


class Answer(NamedTuple):
    """What a command gave back."""

    status: int
    out: str
    err: str


def run_cli(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str | None] | None = None) -> Answer:
    """`titans-seq WORDS...` in this process; `env` sets variables for the call, None removes one.

    What the command does to the environment and to warning filters is undone.
    """
    from titans_seq.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))
        for name, value in (env or {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's way out
            status = stop.code if isinstance(stop.code, int) else 1
    return Answer(status, out.getvalue(), err.getvalue())


def refusal(answer: Answer) -> str:
    """The one line of a command that refused its input; fails when it did anything else."""
    assert answer.status == 2, answer
    assert "Traceback" not in answer.err, answer.err
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("titans-seq: "), answer.err
    return lines[0]


Refuse = Callable[..., str]  # the fixture `refuse`: command words to the one line of the refusal


def ett_rows(count: int, step_minutes: int = 60) -> list[str]:
    """Lines of an ETT file without its header: seven random walks from one fixed seed."""
    values = np.random.default_rng(7).normal(size=(count, len(ETT_CHANNELS))).cumsum(axis=0)
    stamps = np.datetime64("2016-07-01T00:00:00") + np.arange(count) * np.timedelta64(step_minutes, "m")
    return [
        ",".join([str(stamp).replace("T", " "), *(f"{v:.6f}" for v in row)])
        for stamp, row in zip(stamps, values, strict=True)
    ]


def write_ett(root: Path, rows: Sequence[str], name: str = "ETTh1", header: str = ETT_HEADER) -> Path:
    """The file of set `name` below the data folder `root`, made of a header and `rows`."""
    path = root / "ETT-small" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
