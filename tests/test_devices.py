"""Two processes train as one does on the same batches, and test each sample once."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.epochs import Share
from datamodules.windows import WindowLoader, Windows
from tests.helpers import CONFIGS, REPOSITORY, SMALL_MODEL, Refuse, run_cli

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
WORDS = [
    *SMALL_MODEL,
    "model.dropout=0",
    "model.head_dropout=0",
    "data.batch_size=16",
    "trainer.max_steps=20",
    "trainer.limit_batches=20",
    "trainer.num_threads=1",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "logging.wandb=off",
    "logging.every_n_steps=1",
]


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    answer = run_cli("fit", SYNTHETIC, *WORDS, f"run.dir={one}")
    assert answer.status == 0, answer.err
    words = [*WORDS, "trainer.devices=2", "trainer.strategy=ddp", f"run.dir={two}"]
    done = subprocess.run(
        [sys.executable, "-m", "titans_seq.cli", "fit", str(SYNTHETIC), *words],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder:") == 2, "one process speaks, at the beginning and at the end"
    assert len(losses(one)) == 20
    np.testing.assert_allclose(losses(two), losses(one), rtol=0, atol=1e-6)
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    for key in ("best_val/mse", "test/mse", "test/mae"):
        assert results[1][key] == pytest.approx(results[0][key], abs=1e-6)
    assert results[1]["test_windows"] == results[0]["test_windows"]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_parts_of_an_epoch_are_the_epoch(world: int, shuffle: bool) -> None:
    windows = Windows(np.arange(60.0).reshape(60, 1), 5, 1)  # 55 windows: 4 batches of 12, and 7
    whole = [batch.start.numpy() for batch in WindowLoader(windows, 12, shuffle=shuffle, seed=3)]
    loaders = [WindowLoader(windows, 12, shuffle=shuffle, seed=3, share=Share(rank, world)) for rank in range(world)]
    parts = [[batch.start.numpy() for batch in loader] for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(batches) for batches in parts]
    left_out = 7 % world if shuffle else 0  # equal parts are for training alone
    for number, rows in enumerate(whole):
        found = np.concatenate([batches[number] for batches in parts if number < len(batches)])
        np.testing.assert_array_equal(found, rows[: len(rows) - (left_out if number == 4 else 0)])
    if shuffle:
        assert all(len({len(batches[number]) for batches in parts}) == 1 for number in range(5))


def test_a_batch_that_cannot_be_shared_is_refused(refuse: Refuse) -> None:
    line = refuse("fit", SYNTHETIC, "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=15")
    assert "data.batch_size=15" in line
    assert "multiple" in line


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_a_strategy_that_this_machine_cannot_carry_out(refuse: Refuse, strategy: str) -> None:
    line = refuse("fit", SYNTHETIC, f"trainer.strategy={strategy}", "trainer.accelerator=cpu", "trainer.devices=2")
    assert f"trainer.strategy={strategy}: " in line


def test_a_strategy_that_lightning_does_not_know(refuse: Refuse) -> None:
    line = refuse("fit", SYNTHETIC, "trainer.strategy=dpp")
    assert "trainer.strategy=dpp" in line


def test_accumulated_batches_equal_a_larger_one(tmp_path: Path) -> None:
    folders = tmp_path / "large", tmp_path / "small"
    words = ["trainer.max_steps=4", "trainer.ema_decay=0", "trainer.gradient_clip=0.1"]
    for folder, batches in ((folders[0], 1), (folders[1], 2)):
        sizes = [f"data.batch_size={16 // batches}", f"trainer.accumulate_batches={batches}"]
        answer = run_cli("fit", SYNTHETIC, *WORDS, *words, *sizes, f"run.dir={folder}")
        assert answer.status == 0, answer.err
    # Sixteen windows a step either way, the same ones: only the sums are taken in another order.
    large, small = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders)
    assert large["global_step"] == small["global_step"] == 4
    for name, weight in large["state_dict"].items():
        torch.testing.assert_close(small["state_dict"][name], weight, rtol=0, atol=1e-6)
