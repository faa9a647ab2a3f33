"""Memory kernels on a GPU: correctness, race conditions, and speed against peers and hardware limits.

Needs only torch and triton, and takes less than ten minutes; measurements that do not fit are skipped and listed:

    python benchmarks/memory_gpu.py                  # writes results/memory_gpu_<card>.json
    python benchmarks/memory_gpu.py --dry-run        # tiny sizes in Triton's interpreter on a CPU, writes nothing

Correctness: outputs, state and all gradients against the float64 token loop, relative. Races: compute-sanitizer's
memcheck and racecheck on small shapes, if the tool is there. Speed: 16 heads of 64, chunks of 16, bfloat16, depth 1,
and depth 2 with expansion 4, forward and forward plus backward, medians; peers that cannot be imported are reported as
missing. The floor is the larger of bytes over the measured copy bandwidth and operations over the measured matmul rate,
as counted in titans_seq/ops/memory/README.md.
"""

import argparse
import importlib
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that the package need not be installed on the GPU machine
DRY = "--dry-run" in sys.argv
if DRY:  # before triton is imported
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from record import record
from torch import Tensor
from torch.nn import functional as F

from titans_seq.ops import titans_memory
from titans_seq.ops.memory.triton.configs import MlpTiles, Tiles

DEVICE = torch.device("cpu" if DRY else "cuda")
HEADS, DIM = (1, 32) if DRY else (16, 64)
SHAPES = [(1, 20)] if DRY else [(8, 8192), (1, 131072), (1, 1048576)]  # batch, tokens
CHECK_SECONDS, BUDGET_SECONDS, ARM_SECONDS = 270, 540, 4
TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
START = time.monotonic()
Run = Callable[[], Tensor]
Arm = tuple[Run, list[Tensor]]  # a forward pass, and the tensors that get gradients


def make_inputs(
    batch: int, tokens: int, dtype: torch.dtype, dim: int = DIM, heads: int = HEADS, hidden: tuple[int, ...] = ()
) -> list[Tensor]:
    """Return q, k, v, lr, momentum, forget, and the initial weights in float32, layer by layer."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(batch, tokens, heads, *shape, device=DEVICE, generator=generator)

    q, k = (F.normalize(randn(dim), dim=-1) for _ in range(2))
    gates = (0.1 * torch.sigmoid(randn()), 0.8 * torch.sigmoid(randn()), torch.sigmoid(randn() - 4))
    layers = itertools.pairwise((dim, *hidden, dim))
    weights = [torch.randn(heads, *layer, device=DEVICE, generator=generator) / layer[0] ** 0.5 for layer in layers]
    return [*(x.to(dtype).requires_grad_() for x in (q, k, randn(dim), *gates)), *(w.requires_grad_() for w in weights)]


def everything(inputs: list[Tensor], cut: int, **options: Any) -> list[Tensor]:
    """Return outputs, final state and all gradients of two calls, the second continuing the first."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    tokens, weights = leaves[:6], leaves[6:]
    outputs, state = [], None
    for first, stop in ((0, cut), (cut, tokens[0].shape[1])):
        y, state = titans_memory(*(x[:, first:stop] for x in tokens), weights, state, **options)
        outputs.append(y)
    assert state is not None
    results = [torch.cat(outputs, dim=1), *state.weights, *state.surprise]
    loss = sum((x.double() * torch.linspace(-1, 1, x.numel(), device=DEVICE).view_as(x)).sum() for x in results)
    return results + list(torch.autograd.grad(loss, leaves))


def correctness() -> Iterator[dict[str, Any]]:
    """Yield the largest relative error of any result, for every shipped head dimension, rule, depth and type.

    Most of the time is spent on compiling.
    """
    dims, chunks, length = ((32,), (16,), 21) if DRY else ((64, 32, 128), (16, 40), 75)
    memories = [("chunk", 0), ("online", 0), ("chunk", 1 if DRY else 4)]
    for dim, (gradient, expansion), (dtype, tolerance) in itertools.product(dims, memories, TOLERANCES.items()):
        if DRY and dtype == torch.bfloat16:
            continue  # the interpreter miscomputes bfloat16, triton-lang/triton#11584
        of_depth_2 = MlpTiles.candidates(dtype, dim, dim, expansion * dim)
        if not DRY and not (of_depth_2 if expansion else Tiles.candidates(dtype, dim, dim, gradient == "online")):
            continue
        for chunk in chunks[:1] if gradient == "online" else chunks:
            hidden = (expansion * dim,) if expansion else ()
            inputs = make_inputs(2 - DRY, length, dtype, dim, heads=2 - DRY, hidden=hidden)
            row = {"dim": dim, "gradient": gradient, "expansion": expansion, "dtype": str(dtype), "chunk": chunk}
            if time.monotonic() - START > CHECK_SECONDS:
                yield {**row, "left_out": "no time was left", "passed": None}
                continue
            yield compared(row, inputs, length // 3, tolerance, "reference", gradient=gradient, chunk_size=chunk)
    if not DRY:  # long enough for the split into ranges that run in parallel
        for gradient in ("chunk", "online"):
            inputs = make_inputs(1, 4096, torch.float32, 64, heads=1)
            yield compared({"stretches": True, "gradient": gradient}, inputs, 1, 1e-4, "chunked", gradient=gradient)


def compared(
    row: dict[str, Any], inputs: list[Tensor], cut: int, tolerance: float, oracle: str, **options: Any
) -> dict[str, Any]:
    """Return a row with the largest relative error, and whether it is within tolerance."""
    found = everything(inputs, cut, backend="triton", **options)
    expected = everything([x.double() for x in inputs], cut, backend=oracle, **options)
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)]
    worst = max(errors) if all(map(math.isfinite, errors)) else math.inf
    return {**row, "error": worst, "passed": worst <= tolerance}


def sanitize() -> dict[str, str]:
    """Run a small forward and backward pass in compute-sanitizer; return its reports."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        return {"compute-sanitizer": "not found on this machine"}
    verdicts = {}
    for check in ("memcheck", "racecheck"):
        words = [tool, f"--tool={check}", "--error-exitcode=9", sys.executable, __file__, "--small"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=False)
        verdicts[check] = "clean" if done.returncode == 0 else (done.stdout + done.stderr)[-600:]
    return verdicts


def small() -> None:
    """Run the small pass that the sanitizer checks."""
    for gradient in ("chunk", "online"):
        everything(make_inputs(1, 37, torch.bfloat16, 64, heads=2), 12, gradient=gradient, backend="triton")
    everything(make_inputs(1, 37, torch.bfloat16, 64, heads=2, hidden=(64,)), 12, chunk_size=24, backend="triton")


def ours(inputs: list[Tensor], **options: Any) -> Arm:
    tokens, weights = inputs[:6], inputs[6:]
    return lambda: titans_memory(*tokens, weights, **options)[0], inputs


def deeper(inputs: list[Tensor]) -> list[Tensor]:
    """Return the same tokens with initial weights for a memory of depth 2 with expansion 4."""
    size = (HEADS, DIM, 4 * DIM)
    first = torch.randn(size, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0)) / DIM**0.5
    return [*inputs[:6], first.requires_grad_(), (first.detach().mT / 2).contiguous().requires_grad_()]


def compiled(inputs: list[Tensor], **options: Any) -> Arm:
    run, leaves = ours(inputs, **options)
    return torch.compile(run), leaves


def sdpa(inputs: list[Tensor]) -> Arm:
    q, k, v = (x.transpose(1, 2) for x in inputs[:3])
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), inputs[:3]


def fla_gated_delta_rule(inputs: list[Tensor]) -> Arm:
    op = importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule
    q, k, v, lr, _, forget = inputs[:6]
    log_keep = torch.log1p(-forget.detach().float()).requires_grad_()
    return lambda: op(q, k, v, log_keep, lr)[0], [q, k, v, lr, log_keep]


def fla_ttt_linear(inputs: list[Tensor]) -> Arm:
    op = importlib.import_module("fla.ops.ttt").chunk_ttt_linear
    q, k, v, lr, *_ = inputs
    scale, shift = (torch.full((HEADS, DIM), x, device=DEVICE, dtype=q.dtype).requires_grad_() for x in (1.0, 0.0))
    return lambda: op(q, k, v, scale, shift, lr.unsqueeze(-1))[0], [q, k, v, lr]


def titans_pytorch(inputs: list[Tensor]) -> Arm:
    """Build titans-pytorch's layer, which includes projections: chunk 64, its default rule (see memory_cpu.py)."""
    layer = importlib.import_module("titans_pytorch").NeuralMemory(
        dim=HEADS * DIM, heads=HEADS, dim_head=DIM, chunk_size=64
    )
    layer = layer.to(DEVICE, torch.bfloat16)
    x = inputs[0].detach().flatten(2).requires_grad_()
    return lambda: layer(x)[0], [x, *layer.parameters()]


ARMS: dict[str, Callable[[list[Tensor]], Arm]] = {
    "triton-chunk": lambda x: ours(x, backend="triton"),
    "triton-online": lambda x: ours(x, backend="triton", gradient="online"),
    "chunked-eager": lambda x: ours(x, backend="chunked"),
    "triton-depth-2": lambda x: ours(deeper(x), backend="triton"),
    "chunked-eager-depth-2": lambda x: ours(deeper(x), backend="chunked"),
    "sdpa": sdpa,
    "fla-gated-delta-rule": fla_gated_delta_rule,
    "fla-ttt-linear": fla_ttt_linear,
    "titans-pytorch": titans_pytorch,
    "chunked-compiled": lambda x: compiled(x, backend="chunked"),
}


def seconds_of(run: Callable[[], Any]) -> float:
    """Return the median over repeats after a warm-up; a slow run is repeated only once."""

    def once() -> float:
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        return time.perf_counter() - start

    first = once()
    if DRY:
        return first
    second = once()
    return statistics.median([once() for _ in range(max(1, min(20, int(ARM_SECONDS / second) if second else 20)))])


def synchronize() -> None:
    if not DRY:
        torch.cuda.synchronize()


def measure(arm: Callable[[list[Tensor]], Arm], batch: int, tokens: int) -> dict[str, Any]:
    """Return the seconds forward, and forward plus backward, or the reason for a failure."""
    if time.monotonic() - START > BUDGET_SECONDS:
        return {"left_out": "no time was left"}
    dtype = torch.float32 if DRY else torch.bfloat16
    try:
        run, leaves = arm(make_inputs(batch, tokens, dtype))
        with torch.no_grad():
            forward = seconds_of(run)
        both = seconds_of(lambda: torch.autograd.grad(run().float().sum(), leaves, allow_unused=True))
    except Exception as error:  # noqa: BLE001 - a failing peer (out of memory, for example) must not stop the others
        return {"left_out": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    finally:
        if not DRY:
            torch.cuda.empty_cache()
    return {"forward": forward, "forward_backward": both}


def machine() -> dict[str, float]:
    """Measure copy bandwidth in bytes/s, counting reads and writes, and the bfloat16 matmul rate in FLOP/s."""
    size = 256 if DRY else 8192
    x = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16)
    y = torch.empty_like(x)
    copy, matmul = seconds_of(lambda: y.copy_(x)), seconds_of(lambda: torch.mm(x, x, out=y))
    return {"bytes_per_second": 2 * x.numel() * x.element_size() / copy, "flop_per_second": 2 * size**3 / matmul}


def floor(batch: int, tokens: int, chunk: int, rates: dict[str, float]) -> dict[str, float]:
    """Return lower bounds in seconds of a forward pass: moving its bytes only, and its arithmetic only."""
    per_head = batch * tokens * HEADS
    bytes_moved = per_head * (4 * DIM + 3) * 2
    operations = per_head * (12 * DIM**2 + 6 * chunk * DIM + chunk**2)
    return {"bytes": bytes_moved / rates["bytes_per_second"], "flop": operations / rates["flop_per_second"]}


def goals(rows: dict[str, Any], least: dict[str, float]) -> dict[str, Any]:
    """Return the performance goals as ratios; None where an arm was skipped."""
    best, online, eager, delta = (
        rows[name].get("forward") for name in ("triton-chunk", "triton-online", "chunked-eager", "fla-gated-delta-rule")
    )
    return {
        "times_as_fast_as_eager (20)": eager / best if eager and best else None,
        "online_times_as_fast_as_gated_delta_rule (1)": delta / online if delta and online else None,
        "forward_over_floor (at most 3)": best / max(least.values()) if best else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, nothing written")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not DRY and not torch.cuda.is_available():
        print("memory_gpu: requires a CUDA device; use --dry-run to run without one", file=sys.stderr)
        return 2
    if options.small:
        small()
        return 0
    checks = []
    for row in correctness():
        print(row, flush=True)
        checks.append(row)
    figures: dict[str, Any] = {"correctness": checks, "sanitizer": {} if DRY else sanitize(), "machine": machine()}
    print(json.dumps({key: figures[key] for key in ("sanitizer", "machine")}), flush=True)
    figures["speed"] = []
    for batch, tokens in SHAPES:
        rows = {}
        for name, arm in ARMS.items():
            if DRY and name == "chunked-compiled":
                continue  # needs a compiler
            rows[name] = measure(arm, batch, tokens)
            print(batch, tokens, name, rows[name], flush=True)
        least = floor(batch, tokens, 16, figures["machine"])
        shape = {"batch": batch, "tokens": tokens, "heads": HEADS, "dim": DIM}
        figures["speed"].append({**shape, "floor": least, "arms": rows, "goals": goals(rows, least)})
        print(figures["speed"][-1]["goals"], flush=True)
    figures["seconds"] = time.monotonic() - START
    if not DRY:
        import triton

        figures["triton"] = triton.__version__
        record(f"memory_gpu_{torch.cuda.get_device_name().replace(' ', '_')}", figures)
    return 0 if all(row["passed"] is not False for row in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
