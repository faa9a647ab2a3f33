"""A simulated genome: every chromosome repeats an element of its own, copied with faults. Made anew from a seed.

A base differs from the element's, as any of the other three, with probability one fifth. Who has seen a copy and
recognises the place can know the next base to 1.04 bits; who knows nothing of the chromosome so far, to 2 bits. What
is learned in training about elements does not help: those of validation and test are others.
"""

from math import log2

import numpy as np

from datamodules.corpus import LoadedCorpus
from datamodules.sequences import Sequences

_SEED = 20250103
_CHROMOSOMES, _BASES = 120, 2048
_SHORTEST, _LONGEST = 24, 48  # bases of an element
_FAULTS = 0.2
BEST_BITS = -(1 - _FAULTS) * log2(1 - _FAULTS) - _FAULTS * log2(_FAULTS / 3)  # per base, the element being known


def satellites() -> LoadedCorpus:
    """The embedded genome: 120 chromosomes of 2,048 bases."""
    rng = np.random.default_rng(_SEED)
    chromosomes = []
    for _ in range(_CHROMOSOMES):
        element = rng.integers(4, size=rng.integers(_SHORTEST, _LONGEST + 1))
        copies = np.resize(element, _BASES)
        faults = rng.random(_BASES) < _FAULTS
        chromosomes.append((copies + faults * rng.integers(1, 4, size=_BASES)) % 4)
    lengths = np.full(_CHROMOSOMES, _BASES, dtype=np.int64)
    sequences = Sequences(np.concatenate(chromosomes).astype(np.uint8), lengths)
    return LoadedCorpus("simulated", sequences, [f"chr{number + 1}" for number in range(_CHROMOSOMES)])
