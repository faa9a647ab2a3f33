"""Registers, spills and shared memory of every shipped kernel, compiled ahead of time: no GPU is needed.

For sm_80 and sm_90, from the cubin. A configuration that spills registers to memory or does not fit into the chip's
shared memory must not be shipped (`titans_seq.ops.memory.triton.configs`), and fails here. A row gives the maximum over
the variants of a kernel; those with first-order gradients do less work and are not compiled.

    python benchmarks/kernel_resources.py [--quick] [--missing]

A configuration takes some seconds in ptxas; `--missing` keeps the results file's rows if they are of the same source.
"""

import argparse
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import RESULTS

from titans_seq.ops.memory.triton.configs import (
    EXPANSIONS,
    MATRIX_CONFIGS,
    MATRIX_KERNELS,
    MLP_CONFIGS,
    MLP_KERNELS,
    MlpTiles,
    Tiles,
)
from titans_seq.system.environment import describe_environment

NAME = "kernel_resources"
KEYS = ("kernel", "arch", "depth", "head_dim", "hidden", "online", "precision", "columns", "warps", "stages")
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # maximum per program, by compute capability
LAUNCH = ("num_warps", "num_stages", "maxnreg")  # launch settings, not kernel arguments
OF_TOKENS = ("q", "k", "v", "y", "lr", "momentum", "forget")
AnyTiles = Tiles | MlpTiles


class Configuration(NamedTuple):
    """Kernel, tiles and architecture of one row of the table."""

    kernel: str
    tiles: AnyTiles
    arch: int

    def described(self) -> dict[str, Any]:
        """Return the columns that identify a row."""
        settings, tiles = self.tiles.settings(self.kernel), self.tiles
        columns = settings.get("V", settings.get("HB"))
        of_memory = (
            (1, tiles.head_dim, None, tiles.online)
            if isinstance(tiles, Tiles)
            else (2, tiles.head_dim, tiles.hidden, False)
        )
        launch = (columns, settings["num_warps"], settings["num_stages"])
        values = (self.kernel, f"sm_{self.arch}", *of_memory, tiles.precision, *launch)
        return dict(zip(KEYS, values, strict=True))

    def variants(self) -> list[dict[str, Any]]:
        """Return the flags that the launches set, except those that skip work."""
        online = isinstance(self.tiles, Tiles) and self.tiles.online
        places = ("tile",) if online else ("tile", "chunk", "given")
        passes = ({"READ": True, "KEEP": False}, {"READ": False, "KEEP": True})
        memories = ({"ACT": "gelu", "ANCHOR": True, "AT": "chunk"}, {"ACT": "silu", "ANCHOR": False, "AT": "tile"})
        return {
            "matrix_prepare": [{}],
            "matrix_walk": [{"AT": at, **flags} for at in places for flags in passes],
            "matrix_walk_backward": [{"AT": at, "FIRST_ORDER": False} for at in places],
            "matrix_finish_backward": [{"AT": at, "FIRST_ORDER": False} for at in places],
            "gates_backward": [{"PAST": online}],
            "mlp_walk": list(memories),
            "mlp_read": list(memories),
            "mlp_reads_backward": list(memories),
            "mlp_finish_backward": list(memories),
            "mlp_walk_backward": [{**memory, "FIRST_ORDER": False} for memory in memories],
        }[self.kernel]


def configurations() -> Iterator[Configuration]:
    """Yield all shipped configurations, with values as wide as keys, since the width makes no difference."""
    dtypes = {"bf16": torch.bfloat16, "ieee": torch.float32}
    for arch in SHARED_BYTES:
        for dim, online, precision in MATRIX_CONFIGS:
            for tiles in Tiles.candidates(dtypes[precision], dim, dim, online):
                for kernel in MATRIX_KERNELS:
                    yield Configuration(kernel, tiles, arch)
        for dim, precision in MLP_CONFIGS:
            for expansion in EXPANSIONS:
                for deep_tiles in MlpTiles.candidates(dtypes[precision], dim, dim, expansion * dim):
                    for kernel in MLP_KERNELS:
                        yield Configuration(kernel, deep_tiles, arch)


def quick_configurations() -> list[Configuration]:
    """Return small configurations, which do not spill with any version of Triton."""
    matrix = Tiles.of(torch.bfloat16, 32, 32, online=False)
    return [Configuration("matrix_walk", matrix, 80), Configuration("gates_backward", matrix, 90)]


def compile_kernel(name: str, tiles: AnyTiles, arch: int, flags: dict[str, Any]) -> Any:
    from triton import compile as compile_source
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from titans_seq.ops.memory.triton import kernels
    from titans_seq.ops.memory.triton.matrix import kernels as matrix_kernels
    from titans_seq.ops.memory.triton.mlp import kernels as mlp_kernels

    module = next(module for module in (kernels, matrix_kernels, mlp_kernels) if name in vars(module))
    kernel = getattr(module, name)
    constants = {**tiles.settings(name), **flags}
    options = {key: constants.pop(key) for key in LAUNCH if key in constants}
    types = {argument: type_of(argument, tiles) for argument in kernel.arg_names}
    signature = {argument: "constexpr" if argument in constants else kind for argument, kind in types.items()}
    places = {argument: (place,) for place, argument in enumerate(kernel.arg_names)}
    aligned = {places[a]: [["tt.divisibility", 16]] for a, kind in signature.items() if kind.startswith("*")}
    source = ASTSource(kernel, signature, {places[name]: value for name, value in constants.items()}, aligned)
    return compile_source(source, target=GPUTarget("cuda", arch, 32), options=options)


def type_of(argument: str, tiles: AnyTiles) -> str:
    """Return an argument's type in Triton's signature of a kernel, for bfloat16 or float32 tokens."""
    if not argument.endswith("_ptr"):
        return "i32"
    tokens = argument.removesuffix("_ptr").removeprefix("d_") in OF_TOKENS or argument == "scores_ptr"
    return "*bf16" if tokens and tiles.operand == torch.bfloat16 else "*fp32"


def resources(configuration: Configuration) -> dict[str, Any]:
    """Compute one row of the table: the maximum over the kernel's variants."""
    name, tiles, arch = configuration
    compiled = [compile_kernel(name, tiles, arch, flags) for flags in configuration.variants()]
    usage = [resource_usage(each.asm["cubin"]) for each in compiled]
    return {
        **configuration.described(),
        "registers": max(each["REG"] for each in usage),
        "spilled_bytes": max(each["STACK"] + each["LOCAL"] for each in usage),
        "shared_bytes": max(each.metadata.shared for each in compiled),
    }


def resource_usage(cubin: bytes) -> dict[str, int]:
    """Return the usage that cuobjdump (part of Triton) reads from a cubin; stack use of these kernels is spills."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        words = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", done.stdout)}


def fits(row: dict[str, Any]) -> bool:
    return row["spilled_bytes"] == 0 and row["shared_bytes"] <= SHARED_BYTES[int(row["arch"].removeprefix("sm_"))]


def source_digest() -> str:
    """Hash of the sources that the rows depend on."""
    from titans_seq.ops.memory.triton import configs, kernels
    from titans_seq.ops.memory.triton.matrix import kernels as matrix_kernels
    from titans_seq.ops.memory.triton.mlp import kernels as mlp_kernels

    sources = "".join(inspect.getsource(module) for module in (kernels, matrix_kernels, mlp_kernels, configs))
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def described_process() -> dict[str, Any]:
    """Head of the results; computed once, since the results file, once written, is an uncommitted change."""
    import triton

    return {"environment": {**describe_environment(), "triton": triton.__version__}, "source": source_digest()}


def write(path: Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write one row per line."""
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    path.write_text(json.dumps(head, indent=2)[:-2] + f',\n  "figures": [\n{lines}\n  ]\n}}\n')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small configurations; nothing is written")
    parser.add_argument("--missing", action="store_true", help="keep the results file's rows of the same source")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("kernel_resources: unset TRITON_INTERPRET; the interpreter compiles nothing", file=sys.stderr)
        return 2
    path, rows, head = RESULTS / f"{NAME}.json", [], described_process()
    if options.missing and path.is_file():
        found = json.loads(path.read_text())
        rows = found["figures"] if found["source"] == source_digest() else []
    known = {tuple(row[key] for key in KEYS) for row in rows}
    for configuration in quick_configurations() if options.quick else configurations():
        key = tuple(configuration.described().values())
        if key in known:
            continue
        known.add(key)
        start = time.perf_counter()
        row = resources(configuration)
        rows.append(row)
        verdict = "" if fits(row) else "  DOES NOT FIT"
        print(*row.values(), f"{time.perf_counter() - start:.0f}s{verdict}", sep="\t", flush=True)
        if not options.quick:
            write(path, head, rows)
    misfits = [row for row in rows if not fits(row)]
    print(f"{len(rows)} configurations, {len(misfits)} do not fit")
    return 1 if misfits else 0


if __name__ == "__main__":
    sys.exit(main())
