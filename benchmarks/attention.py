"""Sliding-window and full causal attention, forward plus backward: time, peak memory and their scaling with length.

Both are the same layer with the same projections; the full one is a single call of SDPA without a mask. Prints the
exponent of a power law fitted over the lengths; 1 is linear, 2 quadratic. Every point runs in its own process, so
that peak memory is measured per point.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from memory_scaling import exponent

LENGTHS = [1024, 2048, 4096, 8192, 16384]
DIM, HEADS, WINDOW, PERSISTENT = 256, 4, 256, 16
LAYERS = {"window": WINDOW, "full": None}


def measure(layer_name: str, length: int, repeats: int) -> dict[str, Any]:
    import torch

    from titans_seq.nn.attention import SlidingWindowAttention

    torch.manual_seed(0)
    layer = SlidingWindowAttention(DIM, HEADS, window=LAYERS[layer_name], num_persistent=PERSISTENT)
    x = torch.randn(1, length, DIM, requires_grad=True)
    layer(x[:, :WINDOW])[0].square().mean().backward()  # warm-up: one-time allocations must not count for this length
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        layer(x)[0].square().mean().backward()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"length": length, "seconds": statistics.median(seconds), "peak_mib": peak / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--one", nargs=2, metavar=("LAYER", "LENGTH"), help="measure one point, print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.repeats)))
        return
    from record import record

    figures = []
    for name, window in LAYERS.items():
        points = []
        for length in options.lengths:
            words = [sys.executable, __file__, "--repeats", str(options.repeats), "--one", name, str(length)]
            environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            points.append(json.loads(done.stdout))
            print(f"{name:6}  n {length:>6}  {points[-1]['seconds']:8.3f} s  {points[-1]['peak_mib']:8.0f} MiB")
        slopes = {key: round(exponent(points, key), 3) for key in ("seconds", "peak_mib")}
        print(f"{name:6}  exponent of time {slopes['seconds']}, of memory {slopes['peak_mib']}")
        sizes = {"dim": DIM, "heads": HEADS, "window": window, "persistent": PERSISTENT}
        figures.append({"layer": name, **sizes, "points": points, "exponents": slopes})
    record("attention", figures)


if __name__ == "__main__":
    main()
