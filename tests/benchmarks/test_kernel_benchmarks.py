"""Smoke tests of the kernel benchmarks: ahead-of-time compilation, and the dry run of the GPU script on a CPU."""

import os
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

pytest.importorskip("triton", reason="Triton is made for Linux only")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark script in a new process, without Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)


def test_kernels_compile_for_two_chips_without_spilling() -> None:
    done = run("benchmarks/kernel_resources.py", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sm_80" in done.stdout
    assert "sm_90" in done.stdout
    assert "2 configurations, 0 do not fit" in done.stdout


@pytest.mark.slow
def test_gpu_script_dry_run() -> None:
    done = run("benchmarks/memory_gpu.py", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'passed': False" not in done.stdout
    assert done.stdout.count("'passed': True") == 6
    assert "1 20 triton-online {'forward':" in done.stdout
    assert "1 20 triton-depth-2 {'forward':" in done.stdout
