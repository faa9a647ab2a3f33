"""W&B never asks, and never ends a training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import CONFIGS, DATA_VARIABLE, REPOSITORY, SMALL_MODEL, TWO_STEPS, run_cli

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"


def test_without_a_key_wandb_is_offline_and_nobody_is_asked(tmp_path: Path) -> None:
    # A process of its own: wandb reads keys from the environment and the home folder, and keeps what it read.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), DATA_VARIABLE: ""}
    words = [*SMALL_MODEL, *TWO_STEPS, "logging.wandb=null", f"run.dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "titans_seq.cli", "fit", str(SYNTHETIC), *words],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no W&B key found: logging offline") == 1
    records = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(records) == 1
    for text in (b"test/mse", b"val/mse", b"forecast"):
        assert text in records[0].read_bytes()


@pytest.mark.parametrize("message", ["", "no such server\nsecond line"])
def test_a_wandb_that_fails_is_one_note_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr("wandb.init", fail)
    words = [*SMALL_MODEL, *TWO_STEPS, "logging.wandb=offline", f"run.dir={tmp_path / 'run'}"]
    answer = run_cli("fit", SYNTHETIC, *words)
    assert answer.status == 0, answer.err
    reason = message.partition("\n")[0] or "RuntimeError"
    assert answer.err.splitlines() == [f"note: W&B is off for this run: {reason}"]
    assert (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "wandb").exists()
