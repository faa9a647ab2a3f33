"""Simulated genome of tandem repeats (as in satellite DNA), generated from a seed.

Every chromosome repeats an element of its own, with substitutions. Elements are drawn from one second-order Markov
chain, which can be learned from any chromosome. With probability one fifth a base is substituted by one of the other
three. A model that has seen a copy of the element and knows its position in it can predict the next base at 1.04 bits;
validation and test have other elements than training.
"""

from math import log2

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.pretraining.corpus import LoadedCorpus
from datamodules.dna.sequences import Sequences

_SEED = 20250103
_CHROMOSOMES, _BASES = 120, 2048
_SHORTEST, _LONGEST = 24, 48  # bases of an element
_SKEW = 0.5  # Dirichlet parameter of the chain: below 1, each pair of bases prefers some next bases
_SUBSTITUTED = 0.2  # share of the bases
# Per base, if the element is known.
BEST_BITS = -(1 - _SUBSTITUTED) * log2(1 - _SUBSTITUTED) - _SUBSTITUTED * log2(_SUBSTITUTED / 3)


def simulated_genome() -> LoadedCorpus:
    """Generate the built-in simulated genome: 120 chromosomes of 2,048 bases."""
    rng = np.random.default_rng(_SEED)
    chain = rng.dirichlet([_SKEW] * 4, size=(4, 4))
    chromosomes = []
    for _ in range(_CHROMOSOMES):
        element = _element(chain, int(rng.integers(_SHORTEST, _LONGEST + 1)), rng)
        copies = np.resize(element, _BASES)
        substituted = rng.random(_BASES) < _SUBSTITUTED
        chromosomes.append((copies + substituted * rng.integers(1, 4, size=_BASES)) % 4)
    lengths = np.full(_CHROMOSOMES, _BASES, dtype=np.int64)
    sequences = Sequences(np.concatenate(chromosomes).astype(np.uint8), lengths)
    return LoadedCorpus("simulated", sequences, [f"chr{number + 1}" for number in range(_CHROMOSOMES)])


def _element(chain: NDArray[np.float64], length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw bases (length,) from the chain; `chain` (4, 4, 4) has the next base's probabilities after each pair."""
    bases = rng.integers(4, size=length)
    for i in range(2, length):
        bases[i] = rng.choice(4, p=chain[bases[i - 2], bases[i - 1]])
    return bases
