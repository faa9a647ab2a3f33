"""Stream of two million tokens: memory and time per token of Titans' variants and of full attention with a cache.

Random bytes through an untrained model (embedding, two blocks of width 64, norm, head over 256 bytes) in pieces of
4,096, the state passed from piece to piece, without gradients. The last peer is the same stack with full attention and
a cache of all keys and values, which the library does not support in streams: this script has its own cache, which
grows by doubling. It stops when a piece takes `PATIENCE` times as long as the first, or when the process uses
`MEMORY_CAP` MiB, whichever comes first; the result records which and where.

    python benchmarks/streaming.py              # all models, each in a process of its own; skips those already measured
    python benchmarks/streaming.py --report     # from existing results: results/streaming.json, docs/streaming.png

Required of the variants: peak memory of any piece of the last 90 % within 5 % of that of the first 10 %, and as much
CPU time per token in the last tenth as in the second. Memory is the process's high-water mark, reset before every
piece, so it includes a piece's temporary memory; it is read from Linux's /proc.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import RESULTS, record
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.backbone import Stack, build_backbone
from titans_seq.nn.rotary import apply_rotary, rotary_angles
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions

FOLDER = RESULTS / "streaming"
PICTURE = Path(__file__).parent.parent / "docs" / "streaming.png"
TOKENS, PIECE, DIM, HEADS, WINDOW, SEGMENT, CHUNK = 2_097_152, 4096, 64, 2, 256, 256, 64
PATIENCE, MEMORY_CAP = 100, 8192  # limits of full attention: multiple of the first piece's time, MiB
QUERIES = 256  # queries of full attention at a time, so that the mask stays small
VARIANTS = {"lmm": "LMM", "mal": "MAL", "mag": "MAG", "mac": "MAC"}
NAMES = {**VARIANTS, "full_attention": "full attention"}


class Cache(NamedTuple):
    """Key-value cache with preallocated (B, H, capacity, D), of which `seen` are filled."""

    keys: Tensor
    values: Tensor
    seen: int


class FullAttention(nn.Module):
    """Full causal attention with a cache, to replace a block's `SlidingWindowAttention`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, cache: Cache | None = None, *, mask: None = None) -> tuple[Tensor, Cache]:
        """Map x (B, T, dim) to (B, T, dim) and the extended cache."""
        q, k, v = torch.unflatten(self.qkv(x), -1, (3, self.num_heads, -1)).unbind(2)  # (B, T, H, D)
        seen = cache.seen if cache else 0
        end = seen + x.shape[1]
        cos, sin = rotary_angles(q.shape[-1] // 2, end, x)
        q, k = (apply_rotary(part, cos[seen:], sin[seen:]) for part in (q, k))
        keys, values = _append(cache, k.transpose(1, 2), v.transpose(1, 2))
        outputs = []
        for first in range(0, x.shape[1], QUERIES):
            block = q[:, first : first + QUERIES].transpose(1, 2)
            last = seen + first + block.shape[2]
            sees = torch.arange(last) <= torch.arange(seen + first, last)[:, None]
            outputs.append(F.scaled_dot_product_attention(block, keys[:, :, :last], values[:, :, :last], sees))
        return self.out(torch.cat(outputs, dim=2).transpose(1, 2).flatten(2)), Cache(keys, values, end)


def _append(cache: Cache | None, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    if cache is None:
        return _with_buffer(k), _with_buffer(v)
    need = cache.seen + k.shape[2]
    keys, values = cache.keys, cache.values
    if keys.shape[2] < need:
        keys, values = _with_buffer(keys), _with_buffer(values)
    keys[:, :, cache.seen : need] = k
    values[:, :, cache.seen : need] = v
    return keys, values


def _with_buffer(x: Tensor) -> Tensor:
    """Return x (B, H, T, D) with a free buffer of the same size after it."""
    roomy = x.new_empty(*x.shape[:2], 2 * x.shape[2], x.shape[3])
    roomy[:, :, : x.shape[2]] = x
    return roomy


class ByteModel(nn.Module):
    """Byte model with the logits of the byte that follows the last."""

    def __init__(self, name: str) -> None:
        super().__init__()
        options = BackboneOptions(
            variant=name if name in VARIANTS else "transformer",  # type: ignore[arg-type]
            dim=DIM,
            num_layers=2,
            dropout=0.0,
            num_persistent=4,
            segment_length=SEGMENT,
            memory=MemoryOptions(num_heads=HEADS, chunk_size=CHUNK),
            attention=AttentionOptions(num_heads=HEADS, window=WINDOW),
        )
        self.embedding = nn.Embedding(256, DIM)
        self.backbone: Stack = build_backbone(options)
        if name not in VARIANTS:
            for block in self.backbone.blocks:
                block.attention = FullAttention(DIM, HEADS)
        self.norm = nn.RMSNorm(DIM, eps=1e-6)
        self.head = nn.Linear(DIM, 256)

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map tokens (B, T) and a state to logits (B, 256) and the next state."""
        x, state = self.backbone(self.embedding(tokens), state)
        return self.head(self.norm(x[:, -1])), state


class Peak:
    """High-water mark of the process's memory since the last call, in MiB."""

    def __init__(self) -> None:
        self.reset = Path("/proc/self/clear_refs")
        self.status = Path("/proc/self/status")

    def __call__(self) -> float:
        """Read and reset."""
        line = next(line for line in self.status.read_text().splitlines() if line.startswith("VmHWM"))
        self.reset.write_text("5")
        return int(line.split()[1]) / 1024


@torch.inference_mode()
def measure(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model, generator = ByteModel(name).eval(), torch.Generator().manual_seed(0)
    model(torch.randint(256, (1, PIECE), generator=generator), None)  # warm-up, not counted
    peak, state, finite, ended = Peak(), None, True, "all tokens seen"
    points: list[dict[str, float]] = []
    peak()
    for piece in range(TOKENS // PIECE):
        tokens = torch.randint(256, (1, PIECE), generator=generator)
        start, wall = time.process_time(), time.perf_counter()
        logits, state = model(tokens, state)
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
        finite &= bool(logits.isfinite().all())
        points.append({"tokens": (piece + 1) * PIECE, "us_per_token": seconds / PIECE * 1e6, "peak_mib": peak()})
        points[-1]["wall_us_per_token"] = wall / PIECE * 1e6
        if name not in VARIANTS and seconds > PATIENCE * points[0]["us_per_token"] * PIECE / 1e6:
            ended = f"a piece takes more than {PATIENCE} times the first"
            break
        if points[-1]["peak_mib"] > MEMORY_CAP:
            ended = f"more than {MEMORY_CAP} MiB"
            break
    figures = {"model": name, "parameters": sum(p.numel() for p in model.parameters()), "finite": finite}
    return {**figures, "ended": ended, **verdict(points), "points": thin(points)}


def verdict(points: list[dict[str, float]]) -> dict[str, Any]:
    """Return the number of tokens, and how constant memory and time were."""
    count = len(points)
    tenth = max(1, count // 10)
    level = points[tenth - 1]["peak_mib"]
    off = [abs(p["peak_mib"] / level - 1) for p in points[tenth:]]
    second, last = (
        statistics.median(p["us_per_token"] for p in part) for part in (points[tenth : 2 * tenth], points[-tenth:])
    )
    return {
        "tokens": points[-1]["tokens"],
        "peak_mib_after_tenth": level,
        "peak_mib_largest": max(p["peak_mib"] for p in points),
        "memory_off_level": round(max(off), 4) if off else None,
        "us_per_token_second_tenth": round(second, 2),
        "us_per_token_last_tenth": round(last, 2),
        "time_last_to_second": round(last / second, 3),
    }


def thin(points: list[dict[str, float]], most: int = 128) -> list[dict[str, float]]:
    """Reduce to at most `most` points, each with the median time and the maximum memory of its pieces."""
    step = -(-len(points) // most)
    groups = [points[i : i + step] for i in range(0, len(points), step)]
    times = ("us_per_token", "wall_us_per_token")
    return [
        {"tokens": group[-1]["tokens"], "peak_mib": round(max(p["peak_mib"] for p in group), 2)}
        | {key: round(statistics.median(p[key] for p in group), 2) for key in times}
        for group in groups
    ]


def picture(figures: list[dict[str, Any]]) -> None:
    from matplotlib import pyplot as plt

    colours = dict(zip(NAMES, ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#000000"), strict=True))  # Okabe-Ito
    dashes = dict(zip(NAMES, ("-", "--", "-.", ":", "-"), strict=True))
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for found in figures:
        name, points = found["model"], found["points"]
        for panel, key in zip(panels, ("peak_mib", "us_per_token"), strict=True):
            x, y = [p["tokens"] for p in points], [p[key] for p in points]
            style = {"color": colours[name], "linestyle": dashes[name], "linewidth": 2}
            panel.plot(x, y, label=NAMES[name] if panel is panels[0] else None, **style)
            if name not in VARIANTS:
                panel.plot(x[-1], y[-1], "X", color=colours[name], markersize=10)
                style = {"xytext": (8, -3), "textcoords": "offset points", "fontsize": 9}
                panel.annotate(f"stopped at {x[-1]:,} tokens", (x[-1], y[-1]), **style)
    for panel, label in zip(panels, ("peak memory of the process (MiB)", "CPU time per token (µs)"), strict=True):
        panel.set(xlabel="tokens seen (Mi: 1,048,576)", ylabel=label, xlim=(0, TOKENS * 1.02))
        panel.xaxis.set_major_formatter(lambda value, _position: f"{value / 2**20:.1f} Mi")
        panel.set_xticks([i * 2**19 for i in range(5)])
        panel.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    panels[1].set_yscale("log")
    figure.suptitle(f"One stream in pieces of {PIECE:,} bytes, width {DIM}, two layers, one CPU thread", fontsize=11)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(PICTURE, dpi=130)


def report() -> None:
    figures = [json.loads(path.read_text())["figures"] for name in NAMES if (path := FOLDER / f"{name}.json").exists()]
    for found in figures:
        finite = "" if found["finite"] else "NOT FINITE, "
        memory = (
            f"{found['peak_mib_after_tenth']:.0f} MiB after a tenth, off by at most {found['memory_off_level']:.1%}"
        )
        pace = f"{found['us_per_token_last_tenth']} us a token, {found['time_last_to_second']} times the second tenth's"
        print(f"{found['model']}: {found['tokens']:,} tokens ({found['ended']}), {finite}{memory}, {pace}")
    record("streaming", figures)
    picture(figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=NAMES, help="measure this one, in this process")
    parser.add_argument("--report", action="store_true", help="join and plot existing results; no measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.model:
        record(options.model, measure(options.model), FOLDER)
        return
    missing = [] if options.report else [name for name in NAMES if not (FOLDER / f"{name}.json").exists()]
    for name in missing:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, sys.argv[0], "--model", name], check=True, env=environment)
    report()


if __name__ == "__main__":
    main()
