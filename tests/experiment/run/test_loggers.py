"""W&B logging never prompts the user and never stops a training run."""

import csv
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.run.faults import Command, Death, run
from tests.helpers import CONFIGS, DATA_VARIABLE, REPOSITORY, SMALL_MODEL, TWO_STEPS, run_cli

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"


def test_wandb_is_offline_without_a_key_and_does_not_prompt(tmp_path: Path) -> None:
    # A new process, because wandb reads keys from the environment and the home folder and caches them.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), DATA_VARIABLE: ""}
    arguments = [*SMALL_MODEL, *TWO_STEPS, "logging.wandb=null", f"run.dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "titans_seq.cli", "fit", str(SYNTHETIC), *arguments],
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
def test_failing_wandb_is_noted_and_the_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr("wandb.init", fail)
    overrides = [*SMALL_MODEL, *TWO_STEPS, "logging.wandb=offline", f"run.dir={tmp_path / 'run'}"]
    answer = run_cli("fit", SYNTHETIC, *overrides)
    assert answer.status == 0, answer.err
    reason = message.partition("\n")[0] or "RuntimeError"
    assert answer.err.splitlines() == [f"note: W&B is off for this run: {reason}"]
    assert (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "wandb").exists()


OFFLINE = [*SMALL_MODEL, "data.batch_size=16", "trainer.limit_batches=6", "trainer.max_epochs=2"]
OFFLINE += ["trainer.checkpoint_steps=2", "trainer.num_threads=1", "trainer.progress_bar=false"]
OFFLINE += ["trainer.accelerator=cpu", "logging.every_n_steps=2", "logging.memory=true", "logging.wandb=offline"]


def history(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """History rows and summary of the only offline run of a folder, read by W&B's own tool."""
    (record,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    read = [
        subprocess.check_output([wandb, "leet", "inspect", "--json", *more, record]) for more in ([], ["--summary"])
    ]
    records = [json.loads(line) for line in read[0].splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return rows, json.loads(read[1])


def test_offline_run_equals_metrics_csv_after_being_killed_and_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["fit", SYNTHETIC, *OFFLINE, f"run.dir={folder}", "resume=auto"]
    killed = run(arguments, tmp_path, Death("torch.optim.AdamW.step", 10))
    assert killed.status == -signal.SIGKILL, killed
    identity = (folder / "wandb" / "id").read_text().strip()
    # A process that is not forked, because W&B's service process then outlives it until all is written.
    command = [sys.executable, "-m", "titans_seq.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, summary = history(folder)
    assert summary["run_id"] == identity == (folder / "wandb" / "id").read_text().strip()
    assert summary["state"] == "finished"
    assert summary["config"]["model"]["dim"] == 8
    assert {"forecast", "predictions"} <= summary["summary"].keys()
    with (folder / "metrics.csv").open(newline="") as file:
        expected = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    # Figures and tables are flattened and may have their own rows.
    rows = [{k: v for k, v in row.items() if not k.startswith(("_", "forecast", "predictions"))} for row in found]
    rows = [row for row in rows if row.keys() - {"trainer/global_step"}]
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row.pop("trainer/global_step") == wanted.pop("step")
        assert row == wanted
    logged = {name for row in expected for name in row}
    assert {"train/loss", "gradient_norm", "lr-AdamW/pg1", "val/mse", "test/mse", "memory/0/surprise"} <= logged
    assert {"machine/tokens_per_second", "machine/samples_per_second", "machine/peak_memory_gib"} <= logged


class FakeServer(http.server.BaseHTTPRequestHandler):
    """The part of W&B's server that a run needs to start."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        project = {"id": "UA==", "name": "p", "entity": {"id": "RQ==", "name": "e"}}
        bucket = {"id": "QnVja2V0", "displayName": "d", "project": project, "historyLineCount": 0}
        data: dict[str, Any] = {"viewer": {"id": "VQ==", "entity": "e", "flags": "{}", "teams": {"edges": []}}}
        if self.path == "/graphql":
            bucket["name"] = (json.loads(body).get("variables") or {}).get("name")
        data |= {"upsertBucket": {"bucket": bucket, "inserted": True}, "model": {"bucket": None}}
        answer = json.dumps({"data": data} if self.path == "/graphql" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    """A server on a local port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def online(port: int, home: Path) -> dict[str, str]:
    """Environment variables of a user who is logged in to the server at `port`."""
    waits = {"WANDB_FINISH_TIMEOUT": "3", "WANDB_INIT_TIMEOUT": "20"}
    return {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "a" * 40, "HOME": str(home), **waits}


def test_training_continues_if_the_server_goes_away(tmp_path: Path, server: http.server.ThreadingHTTPServer) -> None:
    folder = tmp_path / "run"
    arguments = ["fit", SYNTHETIC, *OFFLINE, "logging.wandb=online", f"run.dir={folder}"]
    command = Command(arguments, tmp_path, env=online(server.server_port, tmp_path), slow="torch.optim.AdamW.step")
    command.wait_for((folder / "checkpoints" / "last.ckpt").exists)
    server.shutdown()
    server.server_close()
    done = command.wait()
    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    assert list(folder.glob("wandb/run-*")), "the run must have started online"
    assert (folder / "results.json").exists()
    with (folder / "metrics.csv").open(newline="") as file:
        assert [row["test/mse"] for row in csv.DictReader(file)][-1]


def test_unreachable_server_means_offline(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeServer) as closed:
        port = closed.server_port
    arguments = ["fit", SYNTHETIC, *OFFLINE, "logging.wandb=online", f"run.dir={folder}"]
    done = run(arguments, tmp_path, env={**online(port, tmp_path), "WANDB_INIT_TIMEOUT": "3"})
    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    assert "logging offline" in done.err
    assert list(folder.glob("wandb/offline-run-*"))
    shutil.rmtree(folder)
