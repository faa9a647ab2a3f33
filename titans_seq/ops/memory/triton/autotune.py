"""Which of the choices for a kind of memory is the fastest on a device: each runs once in a process, and is timed."""

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
    """Of the candidates, by the time that an attempt takes; the first where there is no GPU to ask, or no choice.

    The candidates tell kinds of memory apart, by type, sizes and rule; lengths do not matter.
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
    """Of the fastest attempt, the first of which compiles; infinity for what does not run."""
    try:
        with torch.cuda.device(device), torch.no_grad():
            attempt(tiles, device)
            return min(_timed(tiles, device, attempt) for _ in range(_REPEATS))
    except Exception:  # noqa: BLE001 - a compiler's or a driver's; if none runs, the call itself will say why
        return math.inf


def _timed(tiles: AnyTiles, device: torch.device, attempt: Callable[[AnyTiles, torch.device], None]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    attempt(tiles, device)
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop))
