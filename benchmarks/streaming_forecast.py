"""Streaming forecaster: does a memory state carried since the first row of the series improve forecasts?

A `StreamForecaster` with an LMM backbone is trained on streams of the training rows, its memory passed from piece to
piece, and selected on validation, read as a stream from row 0. Then every test window of the long-term protocol is
forecast in three ways with the same weights: with the memory carried since row 0, with memories that read only the
window's own context, and by the linear path alone. A stream forecasts at every patch; streams that begin 0, 1, ...
patch_length - 1 rows later forecast at all origins, so that the windows are those of every other model.

    python benchmarks/streaming_forecast.py --data ETTh1 --horizon 96 --seeds 0 1 2
    python benchmarks/streaming_forecast.py --report     # docs/streaming_forecast.md from existing results
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bold import bold_best
from record import RESULTS, record
from torch import Tensor

from datamodules.time_series.datamodule import ForecastingDataModule
from titans_seq.backbone import build_backbone
from titans_seq.config import load_config
from titans_seq.experiment.forecasting.baselines import best_linear
from titans_seq.experiment.forecasting.data import build_series_source
from titans_seq.models.stream_forecaster import StreamForecaster
from titans_seq.schema import BackboneOptions, ForecastingConfig, MemoryOptions

FOLDER = RESULTS / "streaming_forecast"
PAGE = Path(__file__).parent.parent / "docs" / "streaming_forecast.md"
MARKER = "<!-- below: written by benchmarks/streaming_forecast.py --report -->"
CONTEXT, PATCH, PIECE = 512, 16, 32  # steps, steps, patches per truncated-backpropagation window
COPIES = 8  # streams per channel, each at another position of the series
WAYS = ("carried", "afresh", "linear")


class Split(NamedTuple):
    """Series (T, C) and its range of forecast origins, the rows right after a context."""

    series: Tensor
    first: int
    last: int  # excluded


def build(data: ForecastingDataModule, seed: int, horizon: int) -> StreamForecaster:
    """Build the model, initialised to the least-squares forecast."""
    torch.manual_seed(seed)
    options = BackboneOptions(dim=32, num_layers=1, dropout=0.3, memory=MemoryOptions(num_heads=4, chunk_size=16))
    model = StreamForecaster(
        build_backbone(options), dim=32, context_length=CONTEXT, horizon=horizon, patch_length=PATCH, dropout=0.3
    )
    model.linear_path.load_state_dict(best_linear(data, "shared").state_dict())
    model.linear_path.requires_grad_(False)  # the same in all three ways, so that only the memory makes a difference
    return model


def epoch(series: Tensor, horizon: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield pieces (B, T), their targets (B, N, H), and the context (B, L) if they begin streams, else None.

    Streams of all channels start at `COPIES` random rows of the first half, so a step sees several times of the year.
    """
    rows, length = len(series), PIECE * PATCH
    starts = torch.randint(0, (rows - CONTEXT) // 2, (COPIES,), generator=generator)
    count = (rows - CONTEXT - horizon - int(starts.max())) // length
    for number in range(count):
        begin = starts + CONTEXT + number * length
        piece = torch.cat([series[b : b + length].T for b in begin])
        ahead = torch.cat([series[b + PATCH : b + length + horizon].T for b in begin])
        before = torch.cat([series[s : s + CONTEXT].T for s in starts]) if number == 0 else None
        yield piece, ahead.unfold(1, horizon, PATCH), before


def train(
    model: StreamForecaster, train_rows: Tensor, validation: Split, seed: int, epochs: int, rate: float
) -> dict[str, Any]:
    """Train and restore the weights with the best validation score; return all scores, the initial one first."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    horizon = model.linear_path.bias.shape[-1]
    scores = [measure(model, validation, horizon, "carried")["mse"]]
    best = copy.deepcopy(model.state_dict())
    started, steps = time.process_time(), 0
    for number in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - number / epochs)
        model.train()
        state = None
        for piece, target, before in epoch(train_rows, horizon, generator):
            state = state.detach() if before is None else model.initial_state(before)
            forecast, state = model(piece, state)
            loss = (forecast - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
        if (number + 1) % 5 == 0 or number + 1 == epochs:
            scores.append(measure(model, validation, horizon, "carried")["mse"])
            print(
                f"seed {seed}, epoch {number + 1}: validation MSE {scores[-1]:.4f} (start {scores[0]:.4f})", flush=True
            )
            if scores[-1] == min(scores):
                best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return {"validation": scores, "steps": steps, "cpu_seconds": round(time.process_time() - started, 1)}


@torch.inference_mode()
def measure(model: StreamForecaster, split: Split, horizon: int, way: str) -> dict[str, float]:
    """Compute MSE and MAE over all origins of a split."""
    model.eval()
    squared = absolute = 0.0
    numbers = 0
    for phase in range(PATCH):
        start = phase
        if way != "carried":  # rows before the windows' contexts, and before those of their tokens, are not needed
            start += (split.first - 2 * CONTEXT - phase) // PATCH * PATCH
        stream = split.series[start:].T
        steps = (stream.shape[1] - CONTEXT) // PATCH * PATCH
        state, read = model.initial_state(stream[:, :CONTEXT]), stream[:, CONTEXT : CONTEXT + steps]
        if way == "afresh":
            skipped = CONTEXT // PATCH - 1
            forecast = model.forecast_windowed(read, state, CONTEXT // PATCH)
        else:
            skipped = 0
            forecast = model(read, state)[0] if way == "carried" else model.forecast_linear(read, state)
        origins = start + CONTEXT + PATCH * (torch.arange(forecast.shape[1]) + skipped + 1)
        kept = (origins >= split.first) & (origins < split.last)
        rows = origins[kept, None] + torch.arange(horizon)
        error = forecast[:, kept] - split.series[rows].movedim(-1, 0)  # (C, N, H)
        squared += float(error.double().square().sum())
        absolute += float(error.double().abs().sum())
        numbers += error.numel()
    expected = (split.last - split.first) * horizon * split.series.shape[1]
    assert numbers == expected, "every window once"
    return {"mse": squared / numbers, "mae": absolute / numbers}


def run(name: str, horizon: int, seed: int, epochs: int, rate: float) -> None:
    words = [f"data.name={name}", f"data.context_length={CONTEXT}", f"data.horizon={horizon}"]
    config = load_config([], words)
    assert isinstance(config, ForecastingConfig)
    data = ForecastingDataModule(build_series_source(config.data), context_length=CONTEXT, horizon=horizon)
    data.prepare_data()
    data.setup()
    borders, values = data.series.boundaries, torch.from_numpy(data.scaler.transform(data.series.values)).float()
    validation = Split(values[: borders.validation], borders.train, borders.validation - horizon + 1)
    test = Split(values[: borders.test], borders.validation, borders.test - horizon + 1)
    model = build(data, seed, horizon)
    figures: dict[str, Any] = {"data": name, "horizon": horizon, "context_length": CONTEXT, "seed": seed}
    figures |= train(model, values[: borders.train], validation, seed, epochs, rate)
    figures["selected_validation"] = {way: measure(model, validation, horizon, way) for way in WAYS}
    figures["test"] = {way: measure(model, test, horizon, way) for way in WAYS}
    figures["test_windows"] = test.last - test.first
    print(name, horizon, seed, figures["test"], flush=True)
    record(f"{name}_{horizon}_seed{seed}", figures, FOLDER)


def report() -> None:
    """Write the table in docs/streaming_forecast.md."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        figures = json.loads(path.read_text())["figures"]
        runs.setdefault((figures["data"], figures["horizon"]), []).append(figures)
    lines = ["| data | horizon | seeds | memory carried since row 0 | memory of the window alone | linear path alone |"]
    lines.append("|---|---|---|---|---|---|")
    for (name, horizon), found in runs.items():
        by_metric = []
        for metric in ("mse", "mae"):
            texts = []
            for way in WAYS:
                values = [figures["test"][way][metric] for figures in found]
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                texts.append(f"{statistics.fmean(values):.4f}{spread}")
            by_metric.append(bold_best(texts, min))
        cells = [" / ".join(parts) for parts in zip(*by_metric, strict=True)]
        lines.append(f"| {name} | {horizon} | {len(found)} | {' | '.join(cells)} |")
    text, _, _ = PAGE.read_text().partition(MARKER)
    PAGE.write_text(
        f"{text}{MARKER}\n\n"
        + "\n".join(lines)
        + "\n\nTest MSE / MAE on z-scores, all windows; bold: best of its row.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ETTh1")
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        for seed in options.seeds:
            if not (FOLDER / f"{options.data}_{options.horizon}_seed{seed}.json").exists():
                run(options.data, options.horizon, seed, options.epochs, options.rate)
    report()


if __name__ == "__main__":
    main()
