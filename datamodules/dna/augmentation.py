"""Which sequences an epoch shows as their reverse complements: DNA has two strands, and a label belongs to both."""

import numpy as np
from numpy.typing import NDArray


def draw_reverse_complements(rows: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Whether each of `rows` (B,) is shown as its reverse complement, with probability one half.

    A function of seed, epoch and row alone, so that neither the batch a row falls into nor a run that was stopped and
    resumed changes it. The bits are those of splitmix64 (Steele et al., OOPSLA 2014), a generator that jumps to any
    place of its sequence at no cost.
    """
    key = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    # Products wrap around at 2^64, as they should.
    state = key + (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    highest: NDArray[np.bool_] = (state ^ (state >> np.uint64(31))) >= np.uint64(1 << 63)
    return highest
