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


def launched_by(launcher: str, words: list[str]) -> list[tuple[list[str], dict[str, str]]]:
    """The commands of two processes that share a training, and what their launcher puts into the environment."""
    program = ["-m", "titans_seq.cli", "fit", str(SYNTHETIC), *words, "trainer.devices=2", "trainer.strategy=ddp"]
    if launcher == "lightning":  # the first process starts the other
        return [([sys.executable, *program], {})]
    if launcher == "torchrun":
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return [([*run, *program], {})]
    job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NAME": "titans", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1"}
    tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    ranks = ({"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01")
    return [([sys.executable, *program], {**job, **tasks, **rank}) for rank in ranks]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    answer = run_cli("fit", SYNTHETIC, *WORDS, f"run.dir={folder}")
    assert answer.status == 0, answer.err
    return folder


@pytest.mark.parametrize(
    "launcher",
    ["lightning", pytest.param("torchrun", marks=pytest.mark.slow), pytest.param("slurm", marks=pytest.mark.slow)],
)
def test_two_processes_equal_one(launcher: str, tmp_path: Path, alone: Path) -> None:
    together = tmp_path / "together"
    words = [*WORDS, f"run.dir={together}", *(["resume=auto"] if launcher == "slurm" else [])]
    processes = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in launched_by(launcher, words)
    ]
    answers = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), answers
    assert "".join(out for out, _ in answers).count("Run folder:") == 2, "one speaks, at the beginning and at the end"
    assert len(losses(alone)) == 20
    np.testing.assert_allclose(losses(together), losses(alone), rtol=0, atol=1e-6)
    results = [json.loads((folder / "results.json").read_text()) for folder in (alone, together)]
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
