"""Shared test helpers: the CLI in-process, the folder of the real data, small files in ETT's format."""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints
from unittest import mock

import numpy as np

from titans_seq.schema import MIXER_KEYS, BackboneOptions

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"
ETT_CHANNELS = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
ETT_HEADER = ",".join(["date", *ETT_CHANNELS])

VARIANTS: tuple[str, ...] = get_args(get_type_hints(BackboneOptions)["variant"])


def for_variant(words: list[str]) -> list[str]:
    """Adapt overrides of a small model to its variant: other papers' layers have heads and no persistent tokens."""
    variant = next((word.partition("=")[2] for word in reversed(words) if word.startswith("model.variant=")), "lmm")
    if variant not in MIXER_KEYS:
        return words
    return [*(word for word in words if not word.startswith("model.num_persistent=")), "model.mixer.num_heads=2"]


DATA_VARIABLE = "TITANS_SEQ_DATA"
DATA_ROOT = Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None

# Overrides for a fit of a few seconds that runs every stage of a long one.
TWO_STEPS = [
    "trainer.max_steps=2",
    "trainer.limit_batches=2",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "logging.wandb=off",
]
# Overrides for a very small model with all its components.
SMALL_MODEL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "data.context_length=72"]


class CommandResult(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


def run_cli(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
) -> CommandResult:
    """Run `titans-seq ARGUMENTS...` in this process; `env` sets variables for the call, None removes one.

    Changes that the command makes to the environment and to warning filters are undone.
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
            status = main([str(each) for each in arguments])
        except SystemExit as stop:  # raised by argparse
            status = stop.code if isinstance(stop.code, int) else 1
    return CommandResult(status, out.getvalue(), err.getvalue())


def refusal(result: CommandResult) -> str:
    """Return the error line of a command that must have failed with an input error, in exactly one line."""
    assert result.status == 2, result
    assert "Traceback" not in result.err, result.err
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("titans-seq: "), result.err
    return lines[0]


Refuse = Callable[..., str]  # the fixture `refuse`: command arguments to the error line


def ett_rows(count: int, step_minutes: int = 60) -> list[str]:
    """Return the lines of an ETT file without its header: seven random walks with a fixed seed."""
    values = np.random.default_rng(7).normal(size=(count, len(ETT_CHANNELS))).cumsum(axis=0)
    stamps = np.datetime64("2016-07-01T00:00:00") + np.arange(count) * np.timedelta64(step_minutes, "m")
    return [
        ",".join([str(stamp).replace("T", " "), *(f"{v:.6f}" for v in row)])
        for stamp, row in zip(stamps, values, strict=True)
    ]


def write_ett(root: Path, rows: Sequence[str], name: str = "ETTh1", header: str = ETT_HEADER) -> Path:
    """Write `header` and `rows` as the file of dataset `name` in the data folder `root`; return its path."""
    path = root / "ETT-small" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
