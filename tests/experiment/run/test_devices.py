"""Distributed training: two processes train like one on the same batches, and test each sample once."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.common.loading import ProcessShard
from datamodules.time_series.windows import WindowLoader, Windows
from tests.helpers import CONFIGS, REPOSITORY, SMALL_MODEL, Refuse, run_cli

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
MOTIF, PRETRAIN = (CONFIGS / "genomics" / f"{name}.yaml" for name in ("motif", "pretrain"))
OVERRIDES = [
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

SHORT = ["model.dim=8", "model.memory.num_heads=2", "data.batch_size=16", *OVERRIDES[-5:]]


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def launch_commands(
    launcher: str, arguments: list[str], config: Path = SYNTHETIC, strategy: str = "ddp"
) -> list[tuple[list[str], dict[str, str]]]:
    """Commands of a training run on two processes, each with the environment variables set by its launcher."""
    shared = ["trainer.devices=2", f"trainer.strategy={strategy}"]
    program = ["-m", "titans_seq.cli", "fit", str(config), *arguments, *shared]
    if launcher == "lightning":  # the first process starts the other
        return [([sys.executable, *program], {})]
    if launcher == "torchrun":
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return [([*run, *program], {})]
    job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NAME": "titans", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1"}
    tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    ranks = ({"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01")
    return [([sys.executable, *program], {**job, **tasks, **rank}) for rank in ranks]


def run_together(commands: list[tuple[list[str], dict[str, str]]]) -> str:
    """Run the commands in parallel and return all that they print; they must succeed."""
    processes = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in commands
    ]
    answers = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), answers
    return "".join(out for out, _ in answers)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    answer = run_cli("fit", SYNTHETIC, *OVERRIDES, f"run.dir={folder}")
    assert answer.status == 0, answer.err
    return folder


@pytest.mark.parametrize(
    "launcher",
    ["lightning", pytest.param("torchrun", marks=pytest.mark.slow), pytest.param("slurm", marks=pytest.mark.slow)],
)
def test_two_processes_equal_one(launcher: str, tmp_path: Path, alone: Path) -> None:
    together = tmp_path / "together"
    overrides = [*OVERRIDES, f"run.dir={together}", *(["resume=auto"] if launcher == "slurm" else [])]
    printed = run_together(launch_commands(launcher, overrides))
    assert printed.count("Run folder:") == 2, "only one process prints, at the start and at the end"
    assert len(losses(alone)) == 20
    np.testing.assert_allclose(losses(together), losses(alone), rtol=0, atol=1e-6)
    results = [json.loads((folder / "results.json").read_text()) for folder in (alone, together)]
    for key in ("best_val/mse", "test/mse", "test/mae"):
        assert results[1][key] == pytest.approx(results[0][key], abs=1e-6)
    assert results[1]["test_windows"] == results[0]["test_windows"]


def test_two_processes_train_seed_after_seed(tmp_path: Path) -> None:
    overrides = [*OVERRIDES, "trainer.max_steps=2", "seeds=[0,1]", f"run.dir={tmp_path}"]
    printed = run_together(launch_commands("lightning", overrides))
    assert printed.count("Run folders:") == 1
    assert {path.parent.name for path in tmp_path.glob("*/results.json")} == {"seed-0", "seed-1"}


UNUSED = "ddp_find_unused_parameters_true"
FREEZING = {
    "fixed": (["task.frozen_blocks=1"], "ddp"),
    "gradual": (["task.unfreeze=gradual"], UNUSED),
}


@pytest.mark.parametrize("freezing", FREEZING)
def test_two_processes_freeze_like_one(freezing: str, tmp_path: Path) -> None:
    overrides, strategy = FREEZING[freezing]
    overrides = [*SHORT, "trainer.max_epochs=4", "trainer.limit_batches=2", *overrides]
    answer = run_cli("fit", MOTIF, *overrides, f"run.dir={tmp_path / 'alone'}")
    assert answer.status == 0, answer.err
    run_together(launch_commands("lightning", [*overrides, f"run.dir={tmp_path / 'together'}"], MOTIF, strategy))
    assert len(losses(tmp_path / "alone")) == 8
    np.testing.assert_allclose(losses(tmp_path / "together"), losses(tmp_path / "alone"), rtol=0, atol=1e-6)


def test_two_processes_resume_within_a_stream(tmp_path: Path) -> None:
    overrides = [*SHORT, "trainer.max_steps=40", "trainer.limit_batches=40", "trainer.checkpoint_steps=7"]
    last = [tmp_path / run / "checkpoints" / "last.ckpt" for run in ("whole", "cut")]
    run_together(launch_commands("lightning", [*overrides, f"run.dir={tmp_path / 'whole'}"], PRETRAIN, UNUSED))

    ((command, _),) = commands = launch_commands(
        "lightning", [*overrides, f"run.dir={tmp_path / 'cut'}", "resume=auto"], PRETRAIN, UNUSED
    )
    killed = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 600
    while not last[1].exists() and time.monotonic() < end:
        assert killed.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    stopped = torch.load(last[1], weights_only=True)
    assert stopped["global_step"] < 40
    streams = [process["task"] for process in stopped["resume"]["processes"]]
    assert len(streams) == 2
    assert any(not torch.equal(x, streams[1][name]) for name, x in streams[0].items()), (
        "each process must have its own streams"
    )

    run_together(commands)
    whole, cut = (torch.load(path, weights_only=True) for path in last)
    assert whole["global_step"] == cut["global_step"] == 40
    assert all(torch.equal(cut["state_dict"][name], weight) for name, weight in whole["state_dict"].items())


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_of_all_processes_form_the_epoch(world: int, shuffle: bool) -> None:
    windows = Windows(np.arange(60.0).reshape(60, 1), 5, 1)  # 55 windows: 4 batches of 12, and 7
    whole = [batch.start.numpy() for batch in WindowLoader(windows, 12, shuffle=shuffle, seed=3)]
    loaders = [
        WindowLoader(windows, 12, shuffle=shuffle, seed=3, shard=ProcessShard(rank, world)) for rank in range(world)
    ]
    parts = [[batch.start.numpy() for batch in loader] for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(batches) for batches in parts]
    left_out = 7 % world if shuffle else 0  # only training drops rows to give all processes equal parts
    for number, rows in enumerate(whole):
        found = np.concatenate([batches[number] for batches in parts if number < len(batches)])
        np.testing.assert_array_equal(found, rows[: len(rows) - (left_out if number == 4 else 0)])
    if shuffle:
        assert all(len({len(batches[number]) for batches in parts}) == 1 for number in range(5))


def test_batch_size_must_be_divisible_by_the_processes(refuse: Refuse) -> None:
    line = refuse("fit", SYNTHETIC, "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=15")
    assert "data.batch_size=15" in line
    assert "multiple" in line


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_strategy_unavailable_on_this_machine(refuse: Refuse, strategy: str) -> None:
    two = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.gradient_clip=0", "trainer.ema_decay=0"]
    line = refuse("fit", SYNTHETIC, f"trainer.strategy={strategy}", *two)
    assert f"trainer.strategy={strategy}: " in line


@pytest.mark.parametrize(("key", "value"), [("gradient_clip", "1"), ("ema_decay", "0.9")])
def test_options_unsupported_with_sharded_weights(refuse: Refuse, key: str, value: str) -> None:
    overrides = ["trainer.strategy=fsdp", "trainer.gradient_clip=0", "trainer.ema_decay=0", f"trainer.{key}={value}"]
    assert f"trainer.{key}: must be 0 with trainer.strategy=fsdp" in refuse("fit", SYNTHETIC, *overrides)


def test_unknown_strategy(refuse: Refuse) -> None:
    line = refuse("fit", SYNTHETIC, "trainer.strategy=dpp")
    assert "trainer.strategy=dpp" in line


def test_accumulated_batches_equal_a_larger_one(tmp_path: Path) -> None:
    folders = tmp_path / "large", tmp_path / "small"
    overrides = ["trainer.max_steps=4", "trainer.ema_decay=0", "trainer.gradient_clip=0.1"]
    for folder, batches in ((folders[0], 1), (folders[1], 2)):
        sizes = [f"data.batch_size={16 // batches}", f"trainer.accumulate_batches={batches}"]
        answer = run_cli("fit", SYNTHETIC, *OVERRIDES, *overrides, *sizes, f"run.dir={folder}")
        assert answer.status == 0, answer.err
    # The same sixteen windows per step in both runs; only the order of summation differs.
    large, small = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders)
    assert large["global_step"] == small["global_step"] == 4
    for name, weight in large["state_dict"].items():
        torch.testing.assert_close(small["state_dict"][name], weight, rtol=0, atol=1e-6)
