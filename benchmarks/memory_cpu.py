"""Training step of the memory layer on a CPU, compared with other layers.

Forward plus backward, gradients for input and parameters, width 256, 4 heads, batch 2, float32, two threads. Every
measurement is a process of its own, the arms alternate, medians over the rounds are printed:

    ours-*          NeuralMemory, chunk 64: gradients at each chunk's start, gates and reads per token
    peer-coarse-*   titans-pytorch at its defaults, chunk 64: all gradients at the initial weights, gates per chunk
    peer-exact-*    titans-pytorch's setting for the rule of ours-*: chunk_size=1, batch_size=64, norms off
    sdpa            causal attention: qkv projection, F.scaled_dot_product_attention, output projection
    fla-*           flash-linear-attention's naive chunked ops between projections: a Titans with LayerNorm in its
                    inner loss (and another inner gradient), and the gated delta rule, which has no momentum

`*-matrix` is a linear memory, `*-mlp` has two layers, expansion 4, GELU on both sides. The peers need their own
environment (install torch first and pinned, otherwise pip may download gigabytes of CUDA; triton is not needed):

    python3 -m venv PEERS && PEERS/bin/pip install torch==2.13.0 && PEERS/bin/pip install titans-pytorch
    PEERS/bin/pip install --no-deps flash-linear-attention fla-core
    python benchmarks/memory_cpu.py --peer-python PEERS/bin/python

Peak memory is the process's peak above its level before the input was created (Linux's VmHWM and VmRSS); the address
space is limited to 14 GiB. The machine's peak is that of large matmuls, measured alternating with the arms.
"""

import argparse
import importlib
import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, HEAD_DIM, BATCH, CHUNK, EXPANSION, THREADS = 256, 4, 64, 2, 64, 4, 2
MEMORY_LIMIT_GIB = 14
REPEAT_SECONDS = 30  # no further repeats after this time
ORACLE_LENGTH, PROFILED_LENGTH, MATMUL_SIZE = 2 * CHUNK + 32, 4096, 2048
DEPTHS = {"matrix": 1, "mlp": 2}
# Required speed-up of ours-* over the peer.
GOALS = {"peer-coarse-matrix": 2, "peer-coarse-mlp": 3, "peer-exact-matrix": 30, "peer-exact-mlp": 50}
PEERS = [*GOALS, "fla-titans", "fla-gated-delta-rule"]
ARMS = ["ours-matrix", "ours-mlp", "sdpa", *PEERS]

Layer = tuple[Callable[[Tensor], Tensor], list[Tensor]]  # a function of x (B, T, WIDTH), and its parameters
Figures = dict[str, Any]


def build(arm: str) -> Layer:
    family, _, kind = arm.rpartition("-")
    if arm == "sdpa":
        return attention()
    if arm.startswith("fla-"):
        return fla_naive(arm.removeprefix("fla-").replace("-", "_"))
    if family == "ours":
        from titans_seq.nn import NeuralMemory

        options: Any = {"expansion": EXPANSION, "chunk_size": CHUNK, "activation": "gelu"}
        layer: nn.Module = NeuralMemory(WIDTH, HEADS, depth=DEPTHS[kind], **options)
    else:
        layer = peer(DEPTHS[kind], exact=family == "peer-exact")
    return lambda x: layer(x)[0], list(layer.parameters())


def peer(depth: int, *, exact: bool) -> Any:
    from titans_pytorch import MemoryMLP, NeuralMemory

    memory = MemoryMLP(HEAD_DIM, depth=depth, expansion_factor=float(EXPANSION))
    common = {"heads": HEADS, "dim_head": HEAD_DIM, "model": memory}
    if not exact:
        return NeuralMemory(WIDTH, chunk_size=CHUNK, **common)
    # Gates and reads per token; batch_size tokens whose gradients are taken at the same weights.
    plain = {"chunk_size": 1, "batch_size": CHUNK, "pre_rmsnorm": False, "mem_model_norm_add_residual": False}
    layer = NeuralMemory(WIDTH, **plain, **common)
    with (
        torch.no_grad()
    ):  # as our initial gates; with half forgotten at every token, denormal numbers would distort the timing
        layer.to_adaptive_step[0].bias.fill_(-2)
        layer.to_decay_factor[0].bias.fill_(-5.3)
    return layer


def attention() -> Layer:
    qkv, out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def attend(x: Tensor) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(2))
        return out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    return attend, [*qkv.parameters(), *out.parameters()]


def fla_naive(op: str) -> Layer:
    root = next((Path(p, "fla") for p in sys.path if Path(p, "fla").is_dir()), Path())
    for name, folder in {"fla": root, "fla.ops": root / "ops", f"fla.ops.{op}": root / "ops" / op}.items():
        sys.modules[name] = types.ModuleType(
            name
        )  # replaces the package, so that its __init__ does not run (it would import triton)
        sys.modules[name].__path__ = [str(folder)]
    naive = importlib.import_module(f"fla.ops.{op}.naive")
    qkv, gates, out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 3 * HEADS), nn.Linear(WIDTH, WIDTH)
    norm = [torch.ones(HEADS, HEAD_DIM, requires_grad=True), torch.zeros(HEADS, HEAD_DIM, requires_grad=True)]
    bias = torch.tensor([-3.0, 0.0, 5.0]).repeat_interleave(HEADS)  # as our initial gates

    def layer(x: Tensor) -> Tensor:
        q, k, v = qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(2)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        lr, momentum, keep = (gates(x) + bias).sigmoid().unflatten(-1, (3, HEADS)).unbind(2)
        if op == "titans":
            columns = (gate.unsqueeze(-1) for gate in (lr, 1 - keep, momentum))
            return out(naive.chunk_titans_linear_ref(q, k, v, *norm, *columns, chunk_size=CHUNK)[0].flatten(2))
        return out(naive.naive_chunk_gated_delta_rule(q, k, v, keep.log(), lr, chunk_size=CHUNK)[0].flatten(2))

    return layer, [*qkv.parameters(), *gates.parameters(), *out.parameters(), *norm]


def flops_per_token(depth: int, *, projections: bool) -> int:
    """Count the floating-point operations of the matmuls for one token, forward and backward.

    Per head and layer of the memory (i to o features), forward: the key pass (2 i o), the inner backward pass through
    all layers but the first (2 i o), the update and the read of W and S (4 i o each), and the read of the chunk's
    writes, which is linear attention (2 c i + 2 c o). Outside: qkv, output gate and output (10 width^2), and the gates.
    The backward pass has two products for each. Recomputation to save memory is not counted.
    """
    widths = [HEAD_DIM, *[HEAD_DIM * EXPANSION] * (depth - 1), HEAD_DIM]
    forward = 2 * WIDTH * (5 * WIDTH + 3 * HEADS) if projections else 0
    for layer, (i, o) in enumerate(pairwise(widths)):
        forward += HEADS * ((12 if layer else 10) * i * o + 2 * CHUNK * (i + o))
    return 3 * forward


def timed(action: Callable[[], Any], repeats: int) -> list[float]:
    """Return the seconds of each repeat after a warm-up, or of the warm-up if it uses up the time."""
    seconds: list[float] = []
    while len(seconds) <= repeats and sum(seconds) < REPEAT_SECONDS:
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds[1:] or seconds


def measure(arm: str, length: int, repeats: int) -> Figures:
    function, parameters = build(arm)
    level = _resident_mib("VmRSS")
    x = torch.randn(BATCH, length, WIDTH, requires_grad=True)

    def step() -> None:
        for tensor in (x, *parameters):
            tensor.grad = None
        function(x).square().mean().backward()

    seconds = statistics.median(timed(step, repeats))
    peak = _resident_mib("VmHWM") - level
    assert all(tensor.grad.isfinite().all() for tensor in (x, *parameters) if tensor.grad is not None), "not finite"
    return {"seconds": seconds, "tokens_per_second": BATCH * length / seconds, "peak_mib": peak}


def _resident_mib(field: str) -> float:
    """Return VmRSS or its peak VmHWM in MiB; unlike ru_maxrss, not inherited from the parent process."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) / 1024


def matmul_peak(size: int) -> Figures:
    """Return the GFLOP/s of the fastest of some large float32 matmuls."""
    a, b, out = (torch.randn(size, size) for _ in range(3))
    return {"gflops": 2 * size**3 / min(timed(lambda: torch.mm(a, b, out=out), 10)) / 1e9}


_MATMULS = ("mm", "bmm", "addmm", "baddbmm", "addmm_", "baddbmm_")
_COPIES = ("copy_", "cat", "stack", "clone", "fill_", "zero_")
_SUMS = ("sum", "mean", "linalg_vector_norm")
_VIEWS = re.compile(
    "select|slice|as_strided|transpose|.*view|unsqueeze|.*flatten|reshape|matmul|mT|resolve_conj|empty.*"
)


def profile(length: int) -> Figures:
    """Profile the matrix memory: fraction of the machine's peak, as layer and as op alone, and time by operator."""
    from titans_seq.ops import titans_memory

    function, _ = build("ours-matrix")
    x, shape = torch.randn(BATCH, length, WIDTH, requires_grad=True), (BATCH, length, HEADS)
    q, k, v = (F.normalize(torch.randn(*shape, HEAD_DIM), dim=-1).requires_grad_() for _ in range(3))
    gates = [torch.full(shape, gate, requires_grad=True) for gate in (0.05, 0.5, 0.005)]
    weights = [torch.randn(HEADS, HEAD_DIM, HEAD_DIM).div(HEAD_DIM**0.5).requires_grad_()]
    actions = {
        "layer": lambda: function(x).square().mean().backward(),
        "op": lambda: titans_memory(q, k, v, *gates, weights, chunk_size=CHUNK)[0].square().mean().backward(),
    }
    peak, figures = matmul_peak(MATMUL_SIZE)["gflops"], {}
    for name, action in actions.items():
        seconds = statistics.median(timed(action, 5))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
            action()
        gflop = BATCH * length * flops_per_token(1, projections=name == "layer") / 1e9
        figures[name] = {"seconds": seconds, "share_of_peak": gflop / seconds / peak, "gflop_counted": gflop}
        figures[name] |= _breakdown(profiler.key_averages(group_by_input_shape=True), peak)
    return figures


def _breakdown(events: Iterable[Any], peak: float) -> Figures:
    """Return fractions of self CPU time by kind of operator, and the matmuls' work and fraction of the peak."""
    micros, flops = dict.fromkeys(("matmuls", "elementwise", "copies", "sums", "launching"), 0.0), 0
    for event in events:
        name = event.key.removeprefix("aten::")
        kind = "copies" if name in _COPIES else "sums" if name in _SUMS else "elementwise"
        if name in _MATMULS:
            kind = "matmuls"
            a, b = event.input_shapes[:2] if name in ("mm", "bmm") else event.input_shapes[1:3]
            flops += 2 * math.prod(a) * b[-1] * event.count
        elif not event.key.startswith("aten::") or _VIEWS.fullmatch(name):
            kind = "launching"  # views, and the Python inside autograd's nodes
        micros[kind] += event.self_cpu_time_total
    shares = {f"time_{kind}": value / sum(micros.values()) for kind, value in micros.items()}
    inside = flops / micros["matmuls"] / 1e3 / peak
    return {**shares, "gflop_executed": flops / 1e9, "share_of_peak_inside_matmuls": inside}


def oracle(length: int) -> Figures:
    """Compare titans-pytorch's exact setting with `titans_memory` in float64: largest differences over largest values.

    The two are the same function under this mapping, derived from its source (0.5.5):
    - its loss is the mean over a head's features, ours the sum: lr = sigmoid(to_adaptive_step) / head_dim;
    - momentum = sigmoid(to_momentum), forget = sigmoid(to_decay_factor), in the order of ours: S_t = momentum_t S_{t-1}
      + u_t, then W_t = (1 - forget_t) W_{t-1} + S_t, with S_0 = 0;
    - chunk_size=1 puts one padding token before the queries and reads with W_0 .. W_n, so that token t reads W_t, which
      includes its own write, as in ours; batch_size is our chunk_size, and the last batch may be short;
    - outside the memory: a sigmoid gate per head (retrieve_gate), then combine_heads, both applied here to our reads.
    """
    from titans_seq.ops import titans_memory

    figures: Figures = {}
    for kind, depth in DEPTHS.items():
        layer = peer(depth, exact=True).double()
        for i, weight in enumerate(
            layer.memory_model_parameters
        ):  # replaced, because they are views of one memory shared by all heads
            fresh = torch.randn(*weight.shape, dtype=torch.float64) / weight.shape[1] ** 0.5
            layer.memory_model_parameters[i] = nn.Parameter(fresh)
        x = torch.randn(BATCH, length, WIDTH, dtype=torch.float64, requires_grad=True)
        qkv = [to(x).unflatten(-1, (HEADS, -1)) for to in (layer.to_queries, layer.to_keys, layer.to_values)]
        linears = (layer.to_adaptive_step, layer.to_momentum, layer.to_decay_factor, layer.retrieve_gate)
        lr, momentum, forget, out_gate = (linear[0](x).sigmoid() for linear in linears)
        weights, options = list(layer.memory_model_parameters), {"chunk_size": CHUNK, "activation": "gelu"}
        y, _ = titans_memory(*qkv, lr / HEAD_DIM, momentum, forget, weights, **options)
        outputs = layer(x)[0], layer.combine_heads((y * out_gate.unsqueeze(-1)).flatten(2))
        # memory_model's own parameters are a template that the forward pass does not use
        inputs = [x, *(p for name, p in layer.named_parameters() if not name.startswith("memory_model."))]
        cotangent = torch.randn_like(x)
        theirs, mine = ([out, *torch.autograd.grad(out, inputs, cotangent)] for out in outputs)
        output, *gradients = (((a - b).abs().max() / a.abs().max()).item() for a, b in zip(theirs, mine, strict=True))
        figures[kind] = {"output": output, "worst_gradient": max(gradients), "gradients": len(gradients)}
    return figures


def one(what: str, length: int, repeats: int) -> Figures:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_GIB * 2**30,) * 2)
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    others = {"matmul": matmul_peak, "profile": profile, "oracle": oracle}
    return others[what](length) if what in others else measure(what, length, repeats)


def in_own_process(what: str, length: int, options: argparse.Namespace) -> Figures:
    """Measure in a new process; return the figures, or the reason for a failure."""
    python, limit = options.peer_python if what in ("oracle", *PEERS) else sys.executable, options.time_limit
    if python is None:
        return {"failed": "not available: no --peer-python"}
    words = [python, __file__, "--one", what, str(length), "--repeats", str(options.repeats)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(Path(__file__).parents[1])}
    try:
        done = subprocess.run(words, check=False, env=environment, timeout=limit, text=True, capture_output=True)
    except subprocess.TimeoutExpired:
        return {"failed": f"over {limit:g} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if re.search("MemoryError|not enough memory|can't allocate memory|bad_alloc", done.stderr) or done.returncode == -9:
        return {"failed": "out of memory"}
    return {"failed": " ".join([f"exit status {done.returncode}", *done.stderr.strip().splitlines()[-1:]])}


def measure_arms(options: argparse.Namespace) -> dict[int, dict[str, Figures]]:
    """Return medians by length and arm; an arm that failed once is not run again."""
    table: dict[int, dict[str, Figures]] = {}
    failed: dict[str, Figures] = {}
    for length in sorted(options.lengths):
        arms = [a for a in options.arms if length in options.exact_lengths or not a.startswith("peer-exact")]
        found: dict[str, list[Figures]] = {arm: [] for arm in ["matmul", *arms]}
        for _ in range(options.rounds):
            for arm in (arm for arm in found if arm not in failed):
                figures = in_own_process(arm, MATMUL_SIZE if arm == "matmul" else length, options)
                found[arm].append(figures)
                if "failed" in figures:
                    failed[arm] = {"failed": f"{figures['failed']} (n {length})"}
        table[length] = {arm: failed[arm] for arm in found if arm in failed}
        for arm, rounds in ((arm, rounds) for arm, rounds in found.items() if arm not in failed):
            table[length][arm] = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
        report(length, table[length])
    return table


def report(length: int, found: dict[str, Figures]) -> None:
    """Print one length; adds to our arms their fraction of the matmul peak and their ratios to the peers."""
    peak = found["matmul"].get("gflops", math.nan)
    print(f"n {length}   large matmuls {peak:.0f} GFLOP/s")
    for arm in (arm for arm in ARMS if arm in found):
        numbers = "{seconds:9.3f} s {tokens_per_second:9.0f} tokens/s {peak_mib:7.0f} MiB"
        print(f"  {arm:21}{found[arm].get('failed') or numbers.format(**found[arm])}")
    for kind, depth in DEPTHS.items():
        arm = f"ours-{kind}"
        if "seconds" not in (mine := found.get(arm, {})):
            continue
        mine["share_of_peak"] = mine["tokens_per_second"] * flops_per_token(depth, projections=True) / 1e9 / peak
        print(f"  {arm}: {mine['share_of_peak']:.2f} of the machine's matmul peak")
        for other, goal in GOALS.items():
            if other.endswith(kind) and "seconds" in (theirs := found.get(other, {})):
                faster, memory = theirs["seconds"] / mine["seconds"], mine["peak_mib"] / theirs["peak_mib"]
                mine[f"against {other}"] = {"times_as_fast": faster, "part_of_memory": memory}
                target = f"target: {goal} times" + (", a tenth of the memory" if "exact" in other else "")
                print(f"  {arm} against {other}: {faster:.1f} times as fast, {memory:.3f} of its memory ({target})")


def crossing(table: dict[int, dict[str, Figures]], arm: str) -> str:
    """Return the length from which the arm is faster than attention, interpolated log-log between measured lengths."""
    ratios = []
    for n, found in table.items():
        mine, attention = (found.get(a, {}).get("seconds", math.nan) for a in (arm, "sdpa"))
        ratios.append((n, mine / attention))
    for (n, slower), (m, faster) in reversed(list(pairwise(ratios))):
        if faster < 1 <= slower:
            return f"faster from n = {n * (m / n) ** (math.log(slower) / math.log(slower / faster)):.0f}"
    return "faster at every length measured" if ratios[0][1] < 1 else "no crossing in the lengths measured"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of the peers' environment")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 2048, 8192, 32768])
    parser.add_argument(
        "--exact-lengths", nargs="+", type=int, default=[512], help="lengths at which peer-exact-* is measured too"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="repeats of a step per process, after a warm-up")
    parser.add_argument("--time-limit", type=float, default=180, help="seconds for one process")
    parser.add_argument("--oracle", action="store_true", help="only compare the numerical results")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "LENGTH"), help="measure in this process and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]), options.repeats)))
        return
    agreement = in_own_process("oracle", ORACLE_LENGTH, options)
    print(json.dumps({"titans-pytorch's exact setting against titans_memory": agreement}, indent=2))
    if options.oracle:
        return
    from record import record

    table = measure_arms(options)
    crossings = {arm: crossing(table, arm) for arm in ("ours-matrix", "ours-mlp")}
    shares = in_own_process("profile", PROFILED_LENGTH, options)
    print(json.dumps({"against sdpa": crossings, f"ours-matrix, n {PROFILED_LENGTH}": shares}, indent=2))
    record("memory_cpu", {"oracle": agreement, "lengths": table, "crossing": crossings, "profile": shares})


if __name__ == "__main__":
    main()
