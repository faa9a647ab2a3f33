"""Forward pass over a million tokens: outputs must stay finite, and the last tenth as fast as the first.

Random tokens and gates, one head of 64, chunk 64, fed in ten pieces with the state carried from one to the next. A deep
memory that forgets to zero can collapse to zero (`titans_seq/ops/memory/README.md`). Its numbers then become denormal,
where CPUs are several times slower, which shows in the time ratio of last to first tenth. It must be at most 1.3.
"""

import argparse
import math
import time
from typing import Any

import torch
from record import record

from titans_seq.ops import MemoryState, titans_memory

HEAD_DIM, CHUNK, PIECES = 64, 64, 10
ARMS: dict[str, dict[str, Any]] = {
    "matrix": {"depth": 1},
    "matrix, online": {"depth": 1, "gradient": "online"},
    "two layers": {"depth": 2},
    "two layers, forget to initial": {"depth": 2, "forget_to": "initial"},
}


@torch.inference_mode()
def measure(arm: dict[str, Any], dtype: torch.dtype, tokens: int) -> dict[str, Any]:
    options = dict(arm)
    depth = options.pop("depth")
    generator = torch.Generator().manual_seed(0)
    shape = (1, tokens // PIECES, 1)
    weights = [torch.randn(1, HEAD_DIM, HEAD_DIM, generator=generator) / math.sqrt(HEAD_DIM) for _ in range(depth)]
    state: MemoryState | None = None
    seconds, largest = [], 0.0
    for _ in range(PIECES):
        q, k, v = (torch.randn(*shape, HEAD_DIM, generator=generator).to(dtype) for _ in range(3))
        k = torch.nn.functional.normalize(k, dim=-1)
        # Uniform gates; lr small enough that a chunk's writes together stay below the step at which the rule diverges.
        lr, momentum, forget = (scale * torch.rand(shape, generator=generator) for scale in (0.02, 0.9, 0.1))
        gates = (gate.to(dtype) for gate in (lr, momentum, forget))
        start = time.process_time()
        y, state = titans_memory(q, k, v, *gates, weights, state, chunk_size=CHUNK, **options)
        seconds.append(time.process_time() - start)
        largest = max(largest, y.abs().max().item())  # NaN and inf propagate
    assert state is not None
    finite = math.isfinite(largest) and all(torch.isfinite(w).all() for w in [*state.weights, *state.surprise])
    return {
        "tokens": tokens,
        "finite": bool(finite),
        "largest_output": largest,
        "memory_norm": [w.norm().item() for w in state.weights],
        "microseconds_per_token": [round(s / (tokens // PIECES) * 1e6, 2) for s in seconds],
        "last_to_first": round(seconds[-1] / seconds[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(ARMS["matrix"], torch.float32, 10_000)  # warm-up
    figures = []
    for name, arm in ARMS.items():
        for dtype in (torch.float32, torch.bfloat16):
            found = measure(arm, dtype, options.tokens)
            print(
                f"{name}, {dtype}: {'finite' if found['finite'] else 'NOT FINITE'}, last to first tenth "
                f"{found['last_to_first']}, {found['microseconds_per_token'][0]} us a token, "
                f"norms {found['memory_norm']}"
            )
            figures.append({"memory": name, "dtype": str(dtype), **found})
    record("memory_long", figures)


if __name__ == "__main__":
    main()
