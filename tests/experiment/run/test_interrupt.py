"""Signals: training stops with an intact checkpoint and names it; other commands stop at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, run_cli
from titans_seq.tasks import ClassificationTask

LONG = ["trainer.max_epochs=1000", "trainer.patience=1000", "trainer.progress_bar=false", "logging.wandb=off"]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_last_checkpoint(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    folder = tmp_path / "run"
    config = CONFIGS / "forecasting" / "synthetic.yaml"
    arguments = ["fit", str(config), *SMALL_MODEL, *LONG, "trainer.limit_batches=4", f"run.dir={folder}"]
    # Restore the default handler, because a shell may start its children with SIGINT ignored.
    restore = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = restore + "from titans_seq.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 60
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert last.exists(), process.stderr and process.stderr.read()
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    (line,) = [line for line in err.splitlines() if line.startswith("titans-seq:")]
    assert "interrupted in epoch" in line
    assert str(last) in line
    assert "Traceback" not in err
    assert "state_dict" in torch.load(last, weights_only=True)
    assert not (folder / "results.json").exists()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a two-step run; the parent of the run folder contains a FASTA file to predict."""
    folder = tmp_path_factory.mktemp("interrupted")
    overrides = [CONFIGS / "genomics" / "motif.yaml", *TWO_STEPS, "model.dim=8", "run.dir=run"]
    assert run_cli("fit", *overrides, cwd=folder).status == 0
    (folder / "reads.fa").write_text(">read\nACGTTGCAGATTCGACCTGA\n")
    return folder / "run" / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("arguments", ["test", "predict --input reads.fa", "mutagenesis --input reads.fa"])
def test_other_commands_stop_at_once(classifier: Path, arguments: str, sent: signal.Signals, status: int) -> None:
    command, *options = arguments.split()
    steps = []

    def step(*_: Any) -> None:
        steps.append(1)
        os.kill(os.getpid(), sent)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    folder, out = classifier.parents[2], [] if command == "test" else ["--out", "answers.csv"]
    with mock.patch.object(ClassificationTask, "test_step" if command == "test" else "predict_step", step):
        answer = run_cli(command, classifier, *options, *out, cwd=folder)
    assert (answer.status, answer.err.splitlines()[-1]) == (status, "titans-seq: interrupted")
    assert len(steps) == 1
    assert not list(folder.glob("answers*"))
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
