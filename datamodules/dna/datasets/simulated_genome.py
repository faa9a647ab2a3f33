"""A simulated genome: every chromosome repeats an element of its own, copied with faults. Made anew from a seed.

Elements are drawn from one Markov chain of two bases' memory, which can be learned from any chromosome. A base differs
from the element's, as any of the other three, with probability one fifth. Who has seen a copy and recognises the place
can know the next base to 1.04 bits; the elements of validation and test are others than those of training.
"""

from math import log2

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.pretraining.corpus import LoadedCorpus
from datamodules.dna.sequences import Sequences

_SEED = 20250103
_CHROMOSOMES, _BASES = 120, 2048
_SHORTEST, _LONGEST = 24, 48  # bases of an element
_SKEW = 0.5  # of the chain: below 1, each pair of bases has its favourite next one
_FAULTS = 0.2
BEST_BITS = -(1 - _FAULTS) * log2(1 - _FAULTS) - _FAULTS * log2(_FAULTS / 3)  # per base, the element being known


def simulated_genome() -> LoadedCorpus:
    """The embedded genome: 120 chromosomes of 2,048 bases."""
    rng = np.random.default_rng(_SEED)
    chain = rng.dirichlet([_SKEW] * 4, size=(4, 4))
    chromosomes = []
    for _ in range(_CHROMOSOMES):
        element = _element(chain, int(rng.integers(_SHORTEST, _LONGEST + 1)), rng)
        copies = np.resize(element, _BASES)
        faults = rng.random(_BASES) < _FAULTS
        chromosomes.append((copies + faults * rng.integers(1, 4, size=_BASES)) % 4)
    lengths = np.full(_CHROMOSOMES, _BASES, dtype=np.int64)
    sequences = Sequences(np.concatenate(chromosomes).astype(np.uint8), lengths)
    return LoadedCorpus("simulated", sequences, [f"chr{number + 1}" for number in range(_CHROMOSOMES)])


def _element(chain: NDArray[np.float64], length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Bases (length,) of the chain; `chain` (4, 4, 4) has the next base's probabilities after each two."""
    bases = rng.integers(4, size=length)
    for place in range(2, length):
        bases[place] = rng.choice(4, p=chain[bases[place - 2], bases[place - 1]])
    return bases
