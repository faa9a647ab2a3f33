"""Simulated DNA: does a sequence hold the motif, on either strand? Made anew from a seed; no file is needed.

Bases are drawn evenly. Sequences of class "motif" get the motif, anywhere, on a strand chosen at random; the others do
not hold it. The motif has every base twice, so that the composition of a sequence tells next to nothing. One label in a
hundred of each class of each split is wrong: the best possible accuracy is 0.99, by construction.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from datamodules.dna.classification.classes import Classes
from datamodules.dna.classification.labelled import Rows, Splits
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import Tokens, reverse_complement
from titans_seq.batch import BASES

MOTIF = "GATTCGAC"
BEST_ACCURACY = 0.99

_SEED = 20250102
_SHORTEST, _LONGEST = 60, 100  # bases
_ROWS = {"train": 4000, "validation": 1000, "test": 1000}


class PlantedMotif:
    """The embedded data set: deterministic, classes "background" and "motif" in equal parts."""

    def prepare(self) -> None:
        """Nothing to fetch."""

    def load(self) -> Splits:
        """Generate the sequences."""
        rng = np.random.default_rng(_SEED)
        train, validation, test = (_rows(count, rng) for count in _ROWS.values())
        return Splits("simulated", Classes(("background", "motif")), train, validation, test)


def _rows(count: int, rng: np.random.Generator) -> Rows:
    motif = np.array([BASES.index(base) for base in MOTIF], dtype=np.uint8)
    strands = np.stack([motif, reverse_complement(motif)])
    tokens = rng.integers(4, size=(count, _LONGEST), dtype=np.uint8)
    while (found := _holds(tokens, strands)).any():
        tokens[found] = rng.integers(4, size=(int(found.sum()), _LONGEST), dtype=np.uint8)
    lengths = rng.integers(_SHORTEST, _LONGEST + 1, size=count)
    labels = rng.permutation(np.arange(count) % 2)
    for row in np.flatnonzero(labels):
        start = rng.integers(lengths[row] - len(motif) + 1)
        tokens[row, start : start + len(motif)] = strands[rng.integers(2)]
    wrong = np.concatenate([rng.permutation(np.flatnonzero(labels == k))[: count // 200] for k in (0, 1)])
    labels[wrong] = 1 - labels[wrong]
    kept = np.arange(_LONGEST) < lengths[:, None]
    return Rows(Sequences(tokens[kept], lengths), labels)


def _holds(tokens: Tokens, strands: Tokens) -> NDArray[np.bool_]:
    """Which rows of tokens (n, T) hold one of `strands` (2, k)."""
    windows = sliding_window_view(tokens, strands.shape[1], axis=1)
    found: NDArray[np.bool_] = np.zeros(len(tokens), dtype=np.bool_)
    for strand in strands:
        found |= (windows == strand).all(axis=2).any(axis=1)
    return found
