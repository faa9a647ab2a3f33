"""Description of the software and hardware environment, stored with results."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import titans_seq

_PACKAGES = ("torch", "lightning", "torchmetrics", "omegaconf", "polars", "wandb", "numpy")


def describe_environment() -> dict[str, Any]:
    """Return versions, hardware, code state and command as plain containers."""
    return {
        "command": " ".join(["titans-seq", *sys.argv[1:]]) if _is_cli() else " ".join(sys.argv),
        "titans_seq": titans_seq.__version__,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := package_version(name))},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _is_cli() -> bool:
    return Path(sys.argv[0]).stem in ("titans-seq", "__main__", "cli")


def _git(*arguments: str) -> str | None:
    """Return the output of a git command on this code, None where the code is not in a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    if package == "torch":
        return str(
            torch.__version__
        )  # with the build, such as +cu130, which is missing in the metadata of PyPI's wheels
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
