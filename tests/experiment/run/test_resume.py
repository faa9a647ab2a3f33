"""Resuming: a run interrupted in any way gives bit-for-bit the results of an uninterrupted run."""

import contextlib
import csv
import os
import random
import shutil
import signal
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.common.digest import hash_arrays
from datamodules.time_series.datasets.simulated import SimulatedSeries
from tests.experiment.run.faults import Command, Death, DiskFull, Done, run
from tests.helpers import CONFIGS, REPOSITORY, SMALL_MODEL, Refuse, refusal, run_cli
from titans_seq.config import load_config, to_yaml
from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.resume import find_start_point, newest_seeds_folder
from titans_seq.schema import Config

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
# Three epochs of eight steps, with everything that has state: dropout, EMA weights, schedule, early stopping.
SHORT = [
    *SMALL_MODEL,
    "data.batch_size=16",
    "trainer.limit_batches=8",
    "trainer.max_epochs=3",
    "trainer.checkpoint_steps=3",
    "trainer.num_threads=1",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "task.warmup_steps=4",
    "logging.every_n_steps=2",
]
FIT = ["fit", SYNTHETIC, *SHORT]


def rows(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without the columns that depend on machine and time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("machine/")} for row in csv.DictReader(file)]


def assert_identical(found: Any, expected: Any, where: str = "") -> None:
    """Assert bit-for-bit equality of nested containers."""
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        # Bytes are compared, so that NaN equals NaN, and 0 differs from -0.
        assert found.numpy().tobytes() == expected.numpy().tobytes(), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_identical(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_identical(one, other, f"{where}/{number}")
    else:
        assert found == expected, where


def assert_same_run(folder: Path, reference: Path) -> None:
    """Assert that checkpoints and metrics of two runs are equal, except for times and paths."""
    for name in ("last.ckpt", "best.ckpt"):
        found, expected = (torch.load(each / "checkpoints" / name, weights_only=True) for each in (folder, reference))
        for content in (found, expected):
            content["hyper_parameters"]["config"]["run"] = None
            content.pop("titans_seq")
            content.get("resume", {}).pop("seconds", None)
            for state in content["callbacks"].values():
                for key in [key for key in state if "path" in key or key in ("dirpath", "best_k_models")]:
                    state.pop(key)
        assert_identical(found, expected, name)
    assert rows(folder) == rows(reference)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference")
    done = run([*FIT, "logging.wandb=off", f"run.dir={folder / 'run'}"], folder)
    assert done.status == 0, done.err
    return folder / "run"


def resume(folder: Path, *overrides: str) -> Done:
    """Resume a run until its end."""
    return run([*FIT, "logging.wandb=off", f"run.dir={folder}", "resume=auto", *overrides], folder.parent)


DEATHS = [
    Death("torch.optim.AdamW.step", 1),  # before the first checkpoint
    Death("torch.optim.AdamW.step", 6),
    Death("torch.optim.AdamW.step", 9),  # right after the end of an epoch
    Death("torch.optim.AdamW.step", 24),
    Death("torch.save", 2),
    Death("os.fsync", 5),
    Death("pathlib.Path.hardlink_to", 2),  # while last.ckpt is replaced
    Death("pathlib.Path.replace", 6),
    # After training, before the results are written.
    Death("titans_seq.experiment.forecasting.experiment.plot_forecasts", 1),
]


def test_killed_three_times(tmp_path: Path, reference: Path) -> None:
    folder = tmp_path / "run"
    for death in (Death("torch.optim.AdamW.step", 6), Death("pathlib.Path.hardlink_to", 1), Death("torch.save", 3)):
        killed = run([*FIT, "logging.wandb=off", f"run.dir={folder}", "resume=auto"], tmp_path, death)
        assert killed.status == -signal.SIGKILL, killed
        assert not (folder / "results.json").exists()
    done = resume(folder)
    assert done.status == 0, done.err
    assert_same_run(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: f"{death.name}-{death.count}")
def test_killed_at_a_given_call(tmp_path: Path, reference: Path, death: Death) -> None:
    folder = tmp_path / "run"
    killed = run([*FIT, "logging.wandb=off", f"run.dir={folder}"], tmp_path, death)
    assert killed.status == -signal.SIGKILL, killed
    assert not (folder / "results.json").exists()
    done = resume(folder)
    assert done.status == 0, done.err
    assert_same_run(folder, reference)


@pytest.mark.slow
def test_killed_at_twenty_random_times(tmp_path: Path, reference: Path) -> None:
    moments, kills, runs = random.Random(20), 0, 0
    began = time.monotonic()
    assert run([*FIT, "logging.wandb=off", f"run.dir={tmp_path / 'timed'}"], tmp_path).status == 0
    length = time.monotonic() - began
    while kills < 20:
        folder, runs = tmp_path / f"run{runs}", runs + 1
        for _ in range(4):  # kill each run up to four times; it may finish before
            command = Command([*FIT, "logging.wandb=off", f"run.dir={folder}", "resume=auto"], tmp_path)
            command.process.join(moments.uniform(0.1, 0.9) * length)
            command.kill()
            killed = command.wait()
            assert killed.status in (0, -signal.SIGKILL), killed
            kills += killed.status == -signal.SIGKILL
            assert (killed.status == 0) <= (folder / "results.json").exists()
        done = resume(folder)
        assert done.status == 0, done.err
        assert_same_run(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lmm", "mac"])
def test_a_classifier_killed_twice(tmp_path: Path, variant: str) -> None:
    arguments = ["fit", CONFIGS / "genomics" / "motif.yaml", f"model.variant={variant}", "logging.wandb=off"]
    arguments += [override for override in SHORT if not override.startswith(("data.context", "trainer.max_epochs"))]
    arguments += [
        "trainer.max_epochs=2",
        "model.attention.num_heads=2",
        "trainer.patience=1",
        "trainer.accumulate_batches=2",
    ]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    done = run([*arguments, f"run.dir={whole}"], tmp_path)
    assert done.status == 0, done.err
    for death in (Death("torch.optim.AdamW.step", 3), Death("torch.save", 2)):
        killed = run([*arguments, f"run.dir={folder}", "resume=auto"], tmp_path, death)
        assert killed.status == -signal.SIGKILL, killed
    done = run([*arguments, f"run.dir={folder}", "resume=auto"], tmp_path)
    assert done.status == 0, done.err
    assert_same_run(folder, whole)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_signal_writes_a_checkpoint_within_an_epoch(
    tmp_path: Path, reference: Path, sent: signal.Signals, status: int
) -> None:
    folder = tmp_path / "run"
    # Slowed down, so that the signal arrives during training.
    command = Command([*FIT, "logging.wandb=off", f"run.dir={folder}"], tmp_path, slow="torch.optim.AdamW.step")
    command.wait_for((folder / "checkpoints" / "last.ckpt").exists)
    command.kill(sent)
    stopped = command.wait()
    assert stopped.status == status, stopped
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("titans-seq:")]
    assert "interrupted in epoch" in line
    assert f"resume={folder}" in line
    assert "Traceback" not in stopped.err
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["resume"]["batches"] > 0
    done = run(["fit", f"resume={folder}"], tmp_path)  # the run's own configuration
    assert done.status == 0, done.err
    assert_same_run(folder, reference)


@pytest.mark.parametrize(
    "full",
    [DiskFull("os.fsync", 6), DiskFull("titans_seq.experiment.run.metrics_csv.MetricsCsv._flush", 12)],
    ids=["checkpoint", "metrics"],
)
def test_full_disk_is_an_error_and_keeps_the_last_checkpoint(tmp_path: Path, reference: Path, full: DiskFull) -> None:
    folder = tmp_path / "run"
    stopped = run([*FIT, "logging.wandb=off", f"run.dir={folder}"], tmp_path, full)
    assert stopped.status == 2, stopped
    (line,) = stopped.err.splitlines()
    assert "cannot be written: No space left on device; free some space, then resume with" in line
    assert f"resume={folder}" in line
    assert not (folder / "results.json").exists()
    assert not list(folder.rglob("*.part"))
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0
    done = resume(folder)
    assert done.status == 0, done.err
    assert_same_run(folder, reference)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_full_file_system(tmp_path: Path, reference: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", disk], check=True)
    try:
        folder = disk / "run"
        arguments = [*FIT, "logging.wandb=off", f"run.dir={folder}"]
        filler = disk / "filler"
        command = Command(arguments, tmp_path, slow="torch.optim.AdamW.step")
        command.wait_for((folder / "checkpoints" / "last.ckpt").exists)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        stopped = command.wait()
        assert stopped.status == 2, stopped
        assert "cannot be written: No space left on device" in stopped.err
        filler.unlink()
        done = resume(folder)
        assert done.status == 0, done.err
        assert_same_run(folder, reference)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    killed = run([*FIT, "logging.wandb=off", f"run.dir={folder}"], folder.parent, Death("torch.optim.AdamW.step", 14))
    assert killed.status == -signal.SIGKILL, killed
    return folder


def test_truncated_checkpoint_is_reported_and_the_previous_one_used(
    tmp_path: Path, stopped: Path, reference: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    last = folder / "checkpoints" / "last.ckpt"
    truncated = last.read_bytes()[:-1000]
    last.unlink()  # a hard link
    last.write_bytes(truncated)
    line = refusal(run_cli(*FIT, f"resume={last}", f"run.dir={folder}", cwd=tmp_path))
    assert f"{last}: cut short, damaged" in line
    assert f"newest intact checkpoint in the same folder: {last.with_name('previous-1.ckpt')}" in line
    done = resume(folder)
    assert done.status == 0, done.err
    assert f"note: {last}: cut short, damaged" in done.err
    (folder / "checkpoints" / "last.damaged").unlink()
    assert_same_run(folder, reference)


def test_flipped_bit_is_detected(tmp_path: Path, stopped: Path) -> None:
    content = bytearray((stopped / "checkpoints" / "last.ckpt").read_bytes())
    place = content.find(
        torch.load(stopped / "checkpoints" / "last.ckpt")["resume"]["processes"][0]["random"]["torch"].numpy()
    )
    content[place + 100] ^= 1
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(content)
    assert torch.load(path, weights_only=True), "torch.load must not detect the flipped bit"
    assert "fails its checksum" in refusal(run_cli("test", path))


def test_resuming_another_configuration_is_an_error_and_changes_nothing(stopped: Path) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    line = refusal(run_cli(*FIT, f"resume={stopped}", "task.learning_rate=1e-4", "seed=3"))
    assert "seed is 0 in" in line
    assert "3 now (and 1 more)" in line
    line = refusal(run_cli("fit", f"resume={stopped}", "model.dim=16"))
    assert f"resume: model.dim is 8 in {stopped / 'config.yaml'}, 16 now" in line
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_resuming_on_other_data_is_an_error(tmp_path: Path, stopped: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["titans_seq"]["data"]["sha256"] = "0" * 64
    path.unlink()
    torch.save(content, path)
    line = refusal(run_cli("fit", f"resume={folder}"))
    assert "the data differ from those of" in line
    assert "sha256" in line


def test_resume_errors(refuse: Refuse, tmp_path: Path, reference: Path) -> None:
    assert "resume=last: no run in runs/synthetic; leave resume out, or use resume=auto" in refuse(*FIT, "resume=last")
    assert "no such run folder or checkpoint" in refuse("fit", "resume=nowhere")
    assert "not a run's folder" in refuse("fit", f"resume={tmp_path}")
    best = reference / "checkpoints" / "best.ckpt"
    assert "contains weights only, not the training's progress" in refuse("fit", f"resume={best}")


def test_finished_run_is_left_unchanged(reference: Path) -> None:
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()}
    answer = run_cli("fit", f"resume={reference}")
    assert answer.status == 0, answer.err
    assert f"{reference} is finished: nothing to resume" in answer.out
    assert {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()} == before


def test_resume_last_is_the_newest_run_of_the_configuration(tmp_path: Path, stopped: Path) -> None:
    runs = tmp_path / "runs" / "synthetic"
    for name in ("a", "b"):
        shutil.copytree(stopped, runs / name)
    other = (runs / "b" / "config.yaml").read_text().replace("seed: 0", "seed: 1")
    (runs / "b" / "config.yaml").write_text(other)
    with contextlib.chdir(tmp_path):
        start = find_start_point(load_config([SYNTHETIC], [*SHORT, "resume=last"]))
        assert start.folder
        assert start.folder.path.name == "a"
        with pytest.raises(InputError, match=r"seed is 1 in runs/synthetic/b/config.yaml, 2 now"):
            find_start_point(load_config([SYNTHETIC], [*SHORT, "resume=last", "seed=2"]))
        start = find_start_point(load_config([SYNTHETIC], [*SHORT, "resume=auto", "seed=2"]))
        assert start.folder is None, (
            "resume=auto must start the seeds that have no run yet, so that a requeued loop over seeds continues"
        )


def test_resume_of_the_newest_run_of_a_folder(
    tmp_path: Path, reference: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, source, began in (("old", reference, 1e9), ("new", stopped, 2e9)):
        shutil.copytree(source, Path("runs/synthetic") / name)
        os.utime(f"runs/synthetic/{name}/config.yaml", (began, began))
    start = find_start_point(load_config([SYNTHETIC], [*SHORT, "resume=runs/synthetic/last"]))
    assert start.folder
    assert start.folder.path == Path("runs/synthetic/new")
    os.utime("runs/synthetic/old/config.yaml", (3e9, 3e9))
    answer = run_cli("fit", "resume=runs/synthetic/last")  # with the run's own configuration
    assert (answer.status, answer.err) == (0, "note: the newest run is runs/synthetic/old\n")
    assert "runs/synthetic/old is finished: nothing to resume" in answer.out


def test_checkpoint_metadata(reference: Path) -> None:
    content = torch.load(reference / "checkpoints" / "best.ckpt", weights_only=True)
    metadata = content["titans_seq"]
    assert metadata["titans_seq"] == version("titans-seq")
    assert bool(metadata["commit"]) == (REPOSITORY / ".git").exists()  # the container has no repository
    series = SimulatedSeries().load()
    assert metadata["data"]["borders"] == list(series.boundaries)
    assert metadata["data"]["sha256"] == hash_arrays(series.timestamps.astype(np.int64), series.values)
    assert content["hyper_parameters"]["config"]["model"]["dim"] == 8


def test_run_in_use_by_another_process_is_an_error(tmp_path: Path, stopped: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    (folder / "checkpoints" / "half.part").touch()
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    with RunFolder(folder).locked():
        assert "the run is in use by another process" in refusal(
            run_cli("fit", f"resume={folder}", "trainer.num_threads=1")
        )
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before


def test_seeds_are_found_by_their_configuration(tmp_path: Path, refuse: Refuse) -> None:
    def find(*overrides: str) -> Path | None:
        return newest_seeds_folder(load_config([SYNTHETIC], [*SHORT, "seeds=[0,1]", *overrides]))

    with contextlib.chdir(tmp_path):
        for number, overrides in enumerate((["model.dim=16"], [])):
            path = Path("runs/synthetic") / str(number) / "seed-1" / "config.yaml"
            path.parent.mkdir(parents=True)
            path.write_text(to_yaml(load_config([SYNTHETIC], [*SHORT, "seed=1", *overrides])))
        os.utime("runs/synthetic/0/seed-1/config.yaml", (2e9, 2e9))
        assert find() == Path("runs/synthetic/1")
        assert find("model.dim=16") == Path("runs/synthetic/0")
        assert find("model.dim=32") is None
        many = [*FIT, "seeds=[0,1]"]
        assert "resume=last: no runs of seeds" in refuse(*many, "resume=last", "run.dir=elsewhere")
        assert "not a folder of seeds" in refuse(*many, f"resume={tmp_path / 'runs' / 'synthetic'}")


def test_newest_run_is_a_seed_of_the_folder_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(config: Config, data: object = None) -> None:
        raise Interrupted(f"{config.run.dir}", 130)

    monkeypatch.setattr("titans_seq.studies.seeds.fit", stop)
    for name, began in (("a/seed-0", 1e9), ("a/seed-1", 2e9), ("b/seed-0", 1.5e9)):
        path = tmp_path / "runs" / "synthetic" / name / "config.yaml"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (began, began))
    answer = run_cli(*FIT, "seeds=[0,1]", "resume=runs/synthetic/last", cwd=tmp_path)
    assert "note: the newest run is runs/synthetic/a/seed-1" in answer.err
    assert "titans-seq: runs/synthetic/a/seed-0. " in answer.err


def test_error_of_an_interrupted_seed_explains_how_to_resume_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: Config, data: object = None) -> None:
        raise Interrupted("interrupted in epoch 1", 130)

    monkeypatch.setattr("titans_seq.studies.seeds.fit", stop)
    answer = run_cli(*FIT, "seeds=[3,4]", f"run.dir={tmp_path}")
    assert answer.status == 130
    assert f"seed 3 only; for all seeds, repeat the command with run.dir={tmp_path} resume=auto" in answer.err


def test_tilde_in_run_dir_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with contextlib.chdir(tmp_path):
        assert "already contains a run" in refusal(run_cli(*FIT, "run.dir=~/run"))
