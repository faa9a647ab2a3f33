"""Report of this machine: versions, devices and available backends of the memory."""

import platform
import warnings
from collections.abc import Iterator

import torch

from titans_seq.ops.memory.backends import shipped_cases, why_not_triton_here
from titans_seq.ops.memory.triton.selftest import why_not_trusted
from titans_seq.system.environment import package_version
from titans_seq.system.platform_features import missing_features

_PACKAGES = ("titans-seq", "torch", "triton", "lightning", "numpy", "polars", "wandb")


def doctor_text() -> str:
    """Return the report as lines of a name and a value, for a person or a bug report."""
    rows = [
        ("python", platform.python_version()),
        *((name, package_version(name) or "not installed") for name in _PACKAGES),
    ]
    rows += [("device", device) for device in _devices()]
    why_not = why_not_triton_here()
    rows += [
        ("backend auto", "uses chunked" if why_not else "uses triton where it has passed its self-test, else chunked"),
        ("backend triton", f"not available: {why_not}" if why_not else "available"),
        *(() if why_not else _self_tests()),
        ("backend chunked", "available"),
        ("backend reference", "available: one token at a time, to check the others"),
    ]
    rows += [("missing here", feature) for feature in missing_features()]
    return "".join(f"{name:<19}{value}\n" for name, value in rows)


def _self_tests() -> Iterator[tuple[str, str]]:
    """Self-tests of the kernels on every GPU, for the usual kinds of memory at head_dim 64."""
    for index in range(torch.cuda.device_count()):
        for name, kind in shipped_cases().items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the reason is in the report
                why_not = why_not_trusted(torch.device("cuda", index), kind)
            yield f"triton, cuda:{index}", f"{name}: {why_not or 'passed its self-test'}"


def _devices() -> list[str]:
    devices = [f"cpu, {torch.get_num_threads()} threads for torch"]
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        memory = found.total_memory / 2**30
        devices.append(f"cuda:{index}, {found.name}, {memory:.0f} GiB, compute capability {found.major}.{found.minor}")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices
