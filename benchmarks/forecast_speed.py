"""Training speed of the attention-only forecaster and of neuralforecast's PatchTST, on ETTh1, on one CPU thread.

Equal size (width 32, two layers, four heads, hidden width 64, patches of 16 hours), context 336, horizon 96, and
batches of 64 windows x 7 channels; an epoch has as many windows as ETTh1 has for training and ends with a full
validation. Each fit runs in its own process, once for one epoch and once for three; an epoch is half of the difference,
so that imports and set-up cancel. Time is the process's CPU time, which other programs on the machine hardly change.

    python -m venv PEER && PEER/bin/pip install neuralforecast
    python benchmarks/forecast_speed.py --peer-python PEER/bin/python
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTEXT, HORIZON, WINDOWS, CHANNELS = 336, 96, 64, 7
TRAIN, VALIDATION = 8640, 11520  # rows
STEPS = -(-(TRAIN - CONTEXT - HORIZON + 1) // WINDOWS)  # per epoch
EPOCHS = (1, 3)


def fit_ours(csv: Path, epochs: int) -> int:
    """Train our model; return its number of parameters."""
    from titans_seq.config import load_config
    from titans_seq.experiment import fit

    words = [
        "data.name=ETTh1", f"data.root={csv.parent.parent}",
        f"data.context_length={CONTEXT}", f"data.horizon={HORIZON}",
        f"data.batch_size={WINDOWS}", "model.variant=transformer", "model.dim=32", "model.num_layers=2",
        "model.attention.num_heads=4", "model.attention.window=null", "model.linear_path=none", "model.centre=mean",
        f"trainer.max_epochs={epochs}", f"trainer.patience={epochs}", "trainer.accelerator=cpu",
        "trainer.progress_bar=false", "trainer.num_threads=1", "logging.wandb=off",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return int(fit(load_config([], [*words, f"run.dir={folder}/run"])).results["parameters"])


def fit_peer(csv: Path, epochs: int) -> int:
    """Train the peer, whose batches consist of windows of single series; return its number of parameters."""
    import pandas as pd
    import torch
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import PatchTST

    torch.set_num_threads(1)
    wide = pd.read_csv(csv, parse_dates=["date"])[:VALIDATION]
    values = wide.drop(columns="date")
    wide[values.columns] = (values - values[:TRAIN].mean()) / values[:TRAIN].std(ddof=0)
    frame = wide.melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    model = PatchTST(
        h=HORIZON, input_size=CONTEXT, hidden_size=32, linear_hidden_size=64, encoder_layers=2, n_heads=4, patch_len=16,
        stride=16, loss=MSE(), max_steps=STEPS * epochs, val_check_steps=STEPS, batch_size=CHANNELS,
        windows_batch_size=WINDOWS * CHANNELS, inference_windows_batch_size=WINDOWS * CHANNELS, learning_rate=1e-3,
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
    )  # fmt: skip
    forecast = NeuralForecast(models=[model], freq="h")
    forecast.fit(frame, val_size=VALIDATION - TRAIN)
    return sum(p.numel() for p in forecast.models[0].parameters() if p.requires_grad)


def measure(python: str, side: str, csv: Path, epochs: int) -> dict[str, Any]:
    """Run one fit in a new process."""
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": root}
    if side == "peer":
        environment.pop("PYTHONPATH")
    command = [python, __file__, "--side", side, "--csv", str(csv), "--epochs", str(epochs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(peer_python: str, csv: Path, rounds: int) -> dict[str, Any]:
    """Run the rounds, alternating between both sides."""
    pythons, figures = {"ours": sys.executable, "peer": peer_python}, {}
    found: dict[str, list[list[dict[str, Any]]]] = {side: [] for side in pythons}
    for _ in range(rounds):
        for side, python in pythons.items():
            found[side].append([measure(python, side, csv, epochs) for epochs in EPOCHS])
    for side, results in found.items():
        epoch = [(long["cpu"] - short["cpu"]) / (EPOCHS[1] - EPOCHS[0]) for short, long in results]
        figures[side] = {
            "cpu_seconds_an_epoch": epoch,
            "windows_a_second": STEPS * WINDOWS / statistics.median(epoch),
            "parameters": results[0][0]["parameters"],
            "peak_mib": max(run["peak_mib"] for pair in results for run in pair),
            "versions": results[0][0]["versions"],
        }
    figures["times_as_fast"] = figures["ours"]["windows_a_second"] / figures["peer"]["windows_a_second"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with neuralforecast")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path, help="ETTh1.csv; $TITANS_SEQ_DATA/ETT-small/ETTh1.csv by default")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    csv = options.csv or Path(os.environ["TITANS_SEQ_DATA"]) / "ETT-small" / "ETTh1.csv"
    if options.side:
        started = time.process_time()
        parameters = (fit_ours if options.side == "ours" else fit_peer)(csv, options.epochs)
        cpu, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        from importlib.metadata import version

        names = ("torch", "lightning") if options.side == "ours" else ("torch", "pytorch-lightning", "neuralforecast")
        versions = {name: version(name) for name in names}
        print(json.dumps({"cpu": cpu, "peak_mib": round(peak), "parameters": parameters, "versions": versions}))
        return
    from record import record

    figures = compare(options.peer_python, csv, options.rounds)
    print(json.dumps(figures, indent=1))
    record("forecast_speed", figures)


if __name__ == "__main__":
    main()
