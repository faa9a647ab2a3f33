"""Simulated DNA: classify whether a sequence contains a motif on either strand. Generated from a seed, without files.

Bases are drawn uniformly. Sequences of class "motif" get the motif at a random position on a random strand; the others
do not contain it. The motif has every base twice, so that base composition is almost uninformative. One label in a
hundred of each class of each split is wrong: the best possible accuracy is 0.99, by construction.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from datamodules.dna.classification.classes import Classes
from datamodules.dna.classification.labelled import Examples, Splits
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import Tokens, reverse_complement
from titans_seq.batch import BASES

MOTIF = "GATTCGAC"
BEST_ACCURACY = 0.99

_SEED = 20250102
_SHORTEST, _LONGEST = 60, 100  # bases
_ROWS = {"train": 4000, "validation": 1000, "test": 1000}


class PlantedMotif:
    """Built-in simulated dataset: deterministic, with equal parts of the classes "background" and "motif"."""

    def prepare(self) -> None:
        """No download is needed."""

    def load(self) -> Splits:
        """Generate the sequences."""
        rng = np.random.default_rng(_SEED)
        train, validation, test = (_examples(count, rng) for count in _ROWS.values())
        return Splits("simulated", Classes(("background", "motif")), train, validation, test)


def _examples(count: int, rng: np.random.Generator) -> Examples:
    motif = np.array([BASES.index(base) for base in MOTIF], dtype=np.uint8)
    strands = np.stack([motif, reverse_complement(motif)])
    tokens = rng.integers(4, size=(count, _LONGEST), dtype=np.uint8)
    while (found := _contains(tokens, strands)).any():
        tokens[found] = rng.integers(4, size=(int(found.sum()), _LONGEST), dtype=np.uint8)
    lengths = rng.integers(_SHORTEST, _LONGEST + 1, size=count)
    labels = rng.permutation(np.arange(count) % 2)
    for row in np.flatnonzero(labels):
        start = rng.integers(lengths[row] - len(motif) + 1)
        tokens[row, start : start + len(motif)] = strands[rng.integers(2)]
    wrong = np.concatenate([rng.permutation(np.flatnonzero(labels == k))[: count // 200] for k in (0, 1)])
    labels[wrong] = 1 - labels[wrong]
    kept = np.arange(_LONGEST) < lengths[:, None]
    return Examples(Sequences(tokens[kept], lengths), labels)


def _contains(tokens: Tokens, strands: Tokens) -> NDArray[np.bool_]:
    """Whether each row of tokens (n, T) contains one of `strands` (2, k), (n,)."""
    windows = sliding_window_view(tokens, strands.shape[1], axis=1)
    found: NDArray[np.bool_] = np.zeros(len(tokens), dtype=np.bool_)
    for strand in strands:
        found |= (windows == strand).all(axis=2).any(axis=1)
    return found
