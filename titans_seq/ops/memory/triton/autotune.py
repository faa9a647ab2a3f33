"""Autotuning: time the kernel configurations of a kind of memory on a device, once per process."""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from titans_seq.ops.memory.triton.configs import MlpTiles, Tiles

AnyTiles = TypeVar("AnyTiles", Tiles, MlpTiles)
_REPEATS = 3


def fastest(
    candidates: tuple[AnyTiles, ...], device: torch.device, attempt: Callable[[AnyTiles, torch.device], None]
) -> AnyTiles:
    """Return the candidate whose `attempt` is fastest; the first one without a GPU or without alternatives.

    Candidates identify the kind of memory by type, sizes and rule; the result does not depend on lengths.
    """
    if len(candidates) == 1 or device.type != "cuda":
        return candidates[0]
    found: AnyTiles = _fastest(candidates, device, attempt)
    return found


@functools.cache
def _fastest(
    candidates: tuple[AnyTiles, ...], device: torch.device, attempt: Callable[[AnyTiles, torch.device], None]
) -> AnyTiles:
    seconds = [_seconds(tiles, device, attempt) for tiles in candidates]
    return candidates[seconds.index(min(seconds))]


def _seconds(tiles: AnyTiles, device: torch.device, attempt: Callable[[AnyTiles, torch.device], None]) -> float:
    """Return the time of the fastest of several attempts after one that compiles; infinity if it fails."""
    try:
        with torch.cuda.device(device), torch.no_grad():
            attempt(tiles, device)
            return min(_timed(tiles, device, attempt) for _ in range(_REPEATS))
    except Exception:  # noqa: BLE001 - compiler or driver errors; if no candidate runs, the call itself raises
        return math.inf


def _timed(tiles: AnyTiles, device: torch.device, attempt: Callable[[AnyTiles, torch.device], None]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    attempt(tiles, device)
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop))
