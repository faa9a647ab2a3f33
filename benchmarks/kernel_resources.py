"""Registers, spills and shared memory of every kernel that is shipped, compiled ahead of time: no GPU is needed.

For sm_80 and sm_90, from the cubin. A configuration that spills registers to memory or does not fit into the chip's
shared memory is not to be shipped (`titans_seq.ops.memory.tiles`), and fails here. Compiled are the variants that do
the most: those without outputs, or with first-order gradients, leave work out.

    python benchmarks/kernel_resources.py [--quick] [--missing]

A configuration takes some seconds of ptxas; `--missing` keeps the rows that the results file has, for the same source.
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
from pathlib import Path
from typing import Any

import torch
from record import RESULTS

from titans_seq.environment import describe_environment
from titans_seq.ops.memory.tiles import CHUNK, SHIPPED, Tiles

NAME = "kernel_resources"
KERNELS = ("matrix_prepare", "matrix_walk", "matrix_walk_backward", "matrix_finish_backward")
KEYS = ("kernel", "arch", "head_dim", "chunk", "online", "precision", "columns", "warps")
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # of one program, by compute capability
# What the launches choose for the variant that does the most.
FLAGS = {
    "matrix_prepare": {},
    "matrix_walk": {"AT": "chunk", "READ": True, "KEEP": False},
    "matrix_walk_backward": {"AT": "chunk", "FIRST_ORDER": False},
    "matrix_finish_backward": {"AT": "chunk", "FIRST_ORDER": False},
}
OF_TOKENS = ("q", "k", "v", "y", "lr", "momentum", "forget")


def configurations(quick: bool) -> list[tuple[str, Tiles, int]]:
    """Kernel, tiles and compute capability."""
    dtypes = {"bf16": torch.bfloat16, "ieee": torch.float32}
    tiles = [Tiles.of(dtypes[precision], dim, dim, online) for dim, online, precision in SHIPPED]
    if quick:  # the smallest, for which any version of Triton finds registers enough
        return [(name, tiles[0], arch) for name, arch in zip(KERNELS[1:], SHARED_BYTES, strict=False)]
    return [(name, tile, arch) for arch in SHARED_BYTES for tile in tiles for name in KERNELS]


def compile_kernel(name: str, tiles: Tiles, arch: int) -> Any:
    from triton import compile as compile_source
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from titans_seq.ops.memory import kernels

    kernel = getattr(kernels, name)
    constants = {**tiles.settings(name), **FLAGS[name]}
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    types = {argument: type_of(argument, tiles) for argument in kernel.arg_names}
    signature = {argument: "constexpr" if argument in constants else kind for argument, kind in types.items()}
    places = {argument: (place,) for place, argument in enumerate(kernel.arg_names)}
    aligned = {places[a]: [["tt.divisibility", 16]] for a, kind in signature.items() if kind.startswith("*")}
    source = ASTSource(kernel, signature, {places[name]: value for name, value in constants.items()}, aligned)
    return compile_source(source, target=GPUTarget("cuda", arch, 32), options=options)


def type_of(argument: str, tiles: Tiles) -> str:
    """In Triton's signatures; of a kernel on bfloat16 or float32 tokens."""
    if not argument.endswith("_ptr"):
        return "i32"
    tokens = argument.removesuffix("_ptr").removeprefix("d_") in OF_TOKENS or argument == "scores_ptr"
    return "*bf16" if tokens and tiles.operand == torch.bfloat16 else "*fp32"


def resources(name: str, tiles: Tiles, arch: int) -> dict[str, Any]:
    """One row of the table."""
    compiled = compile_kernel(name, tiles, arch)
    usage = resource_usage(compiled.asm["cubin"])
    return {
        **described(name, tiles, arch),
        "registers": usage["REG"],
        "spilled_bytes": usage["STACK"] + usage["LOCAL"],
        "shared_bytes": compiled.metadata.shared,
    }


def described(name: str, tiles: Tiles, arch: int) -> dict[str, Any]:
    """What tells the rows apart."""
    settings = tiles.settings(name)
    of_tiles = (tiles.head_dim, CHUNK, tiles.online, tiles.precision)
    return dict(zip(KEYS, (name, f"sm_{arch}", *of_tiles, settings.get("V"), settings["num_warps"]), strict=True))


def resource_usage(cubin: bytes) -> dict[str, int]:
    """What cuobjdump, which comes with Triton, reads off a cubin; kernels without arrays use their stack to spill."""
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
    """Of what the rows depend on."""
    from titans_seq.ops.memory import kernels

    return hashlib.sha256(inspect.getsource(kernels).encode()).hexdigest()[:16]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row a line."""
    import triton

    head = {"environment": {**describe_environment(), "triton": triton.__version__}, "source": source_digest()}
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    path.write_text(json.dumps(head, indent=2)[:-2] + f',\n  "figures": [\n{lines}\n  ]\n}}\n')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small configurations, nothing written")
    parser.add_argument("--missing", action="store_true", help="keep what the results file has for the same source")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("kernel_resources: unset TRITON_INTERPRET: the interpreter compiles nothing", file=sys.stderr)
        return 2
    path, rows = RESULTS / f"{NAME}.json", []
    if options.missing and path.is_file():
        found = json.loads(path.read_text())
        rows = found["figures"] if found["source"] == source_digest() else []
    known = {tuple(row[key] for key in KEYS) for row in rows}
    for name, tiles, arch in configurations(options.quick):
        if tuple(described(name, tiles, arch).values()) in known:
            continue
        start = time.perf_counter()
        row = resources(name, tiles, arch)
        rows.append(row)
        verdict = "" if fits(row) else "  DOES NOT FIT"
        print(*row.values(), f"{time.perf_counter() - start:.0f}s{verdict}", sep="\t", flush=True)
        if not options.quick:
            write(path, rows)
    misfits = [row for row in rows if not fits(row)]
    print(f"{len(rows)} configurations, {len(misfits)} do not fit")
    return 1 if misfits else 0


if __name__ == "__main__":
    sys.exit(main())
