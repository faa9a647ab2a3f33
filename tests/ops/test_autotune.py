"""Autotuning of the kernels' configurations, without a GPU to time them on."""

import math

import pytest
import torch

from titans_seq.ops.memory.triton import autotune
from titans_seq.ops.memory.triton.configs import MATRIX_CONFIGS, Tiles

CUDA = torch.device("cuda", 0)


def attempt(tiles: Tiles, device: torch.device) -> None:
    """Placeholder for a run of the kernels."""


def test_the_fastest_that_runs_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = tuple(Tiles.candidates(torch.bfloat16, 64, 64, online=False))
    assert len(candidates) == 3
    seconds = dict(zip(candidates, (math.inf, 2.0, 1.0), strict=True))
    asked = []

    def timed(tiles: Tiles, *_: object) -> float:
        asked.append(tiles)
        return seconds[tiles]

    monkeypatch.setattr(autotune, "_seconds", timed)
    autotune._fastest.cache_clear()
    for _ in range(2):
        assert autotune.fastest(candidates, CUDA, attempt) == candidates[2]
    assert asked == list(candidates)
    autotune._fastest.cache_clear()


def test_without_a_gpu_or_alternatives_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_seconds", lambda *_: pytest.fail("a configuration was timed"))
    candidates = tuple(Tiles.candidates(torch.bfloat16, 64, 64, online=False))
    assert autotune.fastest(candidates, torch.device("cpu"), attempt) == candidates[0]
    assert autotune.fastest(candidates[1:2], CUDA, attempt) == candidates[1]


def test_no_configuration_is_listed_twice() -> None:
    for candidates in MATRIX_CONFIGS.values():
        assert len(set(candidates)) == len(candidates)
