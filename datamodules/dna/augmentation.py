"""Reverse-complement augmentation: DNA has two strands, and a label applies to both."""

import numpy as np
from numpy.typing import NDArray


def draw_reverse_complements(rows: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Draw which of `rows` (B,) are shown as their reverse complements, each with probability one half.

    The draw depends on seed, epoch and row alone: neither the batch that a row is in nor resuming an interrupted run
    changes it. The bits are those of splitmix64 (Steele et al., OOPSLA 2014), a generator that jumps to any position
    of its sequence at no cost.
    """
    key = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    # Products wrap around at 2^64, as splitmix64 requires.
    state = key + (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    highest: NDArray[np.bool_] = (state ^ (state >> np.uint64(31))) >= np.uint64(1 << 63)
    return highest
