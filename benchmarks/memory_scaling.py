"""Scaling of time and peak memory of the chunked op with the length, forward plus backward.

Prints the exponent of a power law fitted over n = 1,024 to 32,768; 1 is linear, and it must be at most 1.1.
Every length runs in its own process, so that peak memory is measured per length.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

LENGTHS = [1024, 2048, 4096, 8192, 16384, 32768]
HEADS, HEAD_DIM, CHUNK = 4, 64, 16


def measure(length: int, depth: int, repeats: int) -> dict[str, Any]:
    import torch

    from titans_seq.ops import titans_memory

    torch.manual_seed(0)
    shape = (1, length, HEADS)
    q, k, v = (torch.randn(*shape, HEAD_DIM, requires_grad=True) for _ in range(3))
    lr, momentum, forget = (torch.full(shape, g, requires_grad=True) for g in (0.02, 0.5, 0.01))
    widths = [HEAD_DIM] * (depth + 1)
    weights = [torch.randn(HEADS, a, b).div(a**0.5).requires_grad_() for a, b in pairwise(widths)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        unit_k = torch.nn.functional.normalize(k, dim=-1)
        # With forget_to="zero", a two-layer memory with these fixed gates collapses, and denormals distort the timing.
        y, _ = titans_memory(q, unit_k, v, lr, momentum, forget, weights, chunk_size=CHUNK, forget_to="initial")
        y.square().mean().backward()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"length": length, "seconds": statistics.median(seconds), "peak_mib": peak / 1024}


def exponent(points: list[dict[str, Any]], key: str) -> float:
    """Return the slope of log(value) over log(length) by least squares."""
    x = [math.log(p["length"]) for p in points]
    y = [math.log(p[key]) for p in points]
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, type=int, metavar=("LENGTH", "DEPTH"), help="measure one point, print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.repeats)))
        return
    from record import record

    figures = []
    for depth in (1, 2):
        points = []
        for length in LENGTHS:
            words = [sys.executable, __file__, "--repeats", str(options.repeats), "--one", str(length), str(depth)]
            environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
            points.append(json.loads(done.stdout))
            print(f"depth {depth}  n {length:>6}  {points[-1]['seconds']:8.3f} s  {points[-1]['peak_mib']:8.0f} MiB")
        slopes = {key: round(exponent(points, key), 3) for key in ("seconds", "peak_mib")}
        print(f"depth {depth}  exponent of time {slopes['seconds']}, of memory {slopes['peak_mib']} (at most 1.1)")
        figures.append({"depth": depth, "heads": HEADS, "head_dim": HEAD_DIM, "points": points, "exponents": slopes})
    record("memory_scaling", figures)


if __name__ == "__main__":
    main()
