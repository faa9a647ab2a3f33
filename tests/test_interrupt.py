"""A training that is asked to stop says what it leaves, and leaves it whole."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers import CONFIGS, SMALL_MODEL

LONG = ["trainer.max_epochs=1000", "trainer.patience=1000", "trainer.progress_bar=false", "logging.wandb=off"]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_last_checkpoint(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    folder = tmp_path / "run"
    config = CONFIGS / "forecasting" / "synthetic.yaml"
    words = ["fit", str(config), *SMALL_MODEL, *LONG, "trainer.limit_batches=4", f"run.dir={folder}"]
    # A shell may have told its children to ignore SIGINT.
    restore = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = restore + "from titans_seq.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
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
