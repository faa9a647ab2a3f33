"""Peak memory of one training step at n = 131,072: width 256, 4 heads of 64, two-layer memory, CPU; at most 6 GB.

Prints the peak resident memory of the whole process after the forward and after the backward pass.
"""

import argparse
import resource
import time

import torch
from record import record

from titans_seq.nn import NeuralMemory


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--chunk-size", type=int, default=64)
    options = parser.parse_args()
    torch.manual_seed(0)
    layer = NeuralMemory(256, 4, depth=2, expansion=4, chunk_size=options.chunk_size, forget_to="initial")
    x = torch.randn(1, options.tokens, 256, requires_grad=True)
    start = time.perf_counter()
    y, _ = layer(x)
    forward = {"seconds": round(time.perf_counter() - start, 1), "peak_gib": round(peak_gib(), 2)}
    y.square().mean().backward()
    step = {"seconds": round(time.perf_counter() - start, 1), "peak_gib": round(peak_gib(), 2)}
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    print(f"n {options.tokens}, chunk {options.chunk_size}: forward {forward}, forward and backward {step}")
    record("memory_peak", {**vars(options), "forward": forward, "step": step})


if __name__ == "__main__":
    main()
