"""Stratified, k-fold and held-out splits of a dataset, as functions of labels, groups and a seed alone.

Rows that resemble each other (overlapping on a genome, sharing a k-mer) must stay in one part, or the score measures
memorisation: give them one group. Every part gets its fraction of each class, as nearly as the groups allow.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.common.messages import listed
from titans_seq.errors import InputError

RowIndex = NDArray[np.int64]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def stratified_split(
    labels: RowIndex, fractions: Sequence[float], *, seed: int, groups: NDArray[np.int64] | None = None
) -> list[RowIndex]:
    """Split rows at random, stratified by class; return the rows of each part in ascending order.

    Args:
        labels: class numbers (n,).
        fractions: one per part, above 0, relative to their sum; k-fold is k equal fractions.
        seed: of the random choice; the same seed and rows give the same parts.
        groups: group numbers (n,); rows of one group stay in one part.

    Raises InputError when a part would be empty.
    """
    weights = np.asarray(fractions, dtype=np.float64) / np.sum(fractions)
    rng = np.random.default_rng(seed)
    part = _part_of_rows(labels, weights, rng) if groups is None else _part_of_groups(labels, groups, weights, rng)
    parts = [np.flatnonzero(part == number) for number in range(len(weights))]
    if not all(map(len, parts)):
        units = f"{len(labels)} rows" if groups is None else f"{len(np.unique(groups))} groups of {len(labels)} rows"
        raise InputError(
            f"{units} are too few, or too unequal in size, to split by fractions {listed(f'{w:.3g}' for w in weights)}"
        )
    return parts


def fold_split(
    labels: RowIndex, folds: int, fold: int, *, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[RowIndex, RowIndex]:
    """Return the rows outside and inside fold `fold` of `folds`; the folds of one seed partition the rows."""
    if not 0 <= fold < folds or folds < 2:
        raise InputError(f"data.fold must be 0 to data.folds - 1, with data.folds at least 2; got {fold} of {folds}")
    parts = stratified_split(labels, [1.0] * folds, seed=seed, groups=groups)
    return np.sort(np.concatenate([part for i, part in enumerate(parts) if i != fold])), parts[fold]


def held_out_split(
    names: NDArray[np.str_], held_out: Sequence[Sequence[str]], kind: str = "chromosome"
) -> list[RowIndex]:
    """Return the rows whose name is not held out, then those of each list of `held_out`.

    `kind` is what the names are, for messages. Raises InputError for a name that no row has, for one that is listed
    twice, and when no row is left.
    """
    available, counts = np.unique(names, return_counts=True)
    named = [name for part in held_out for name in part]
    for name in named:
        if name not in available:
            have = listed((f"{n} ({c} rows)" for n, c in zip(available, counts, strict=True)), most=40)
            raise InputError(f"held-out {kind} {name!r} has no rows; expected one of: {have}")
        if named.count(name) > 1:
            raise InputError(f"{kind} {name!r} is held out twice")
    parts = [np.flatnonzero(np.isin(names, part)) for part in ([n for n in available if n not in named], *held_out)]
    if not len(parts[0]):
        raise InputError(f"all {kind}s are held out ({', '.join(named)}): none is left to train on")
    return parts


def _part_of_rows(labels: RowIndex, weights: NDArray[np.float64], rng: np.random.Generator) -> RowIndex:
    """Return the part number of each row: within each class, a random order is cut at the fractions."""
    part = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # A random offset, so that the rounding remainder does not always go to the same part.
        cuts = np.cumsum(weights) * len(rows) + rng.random()
        part[rows] = np.searchsorted(cuts[:-1], np.arange(len(rows)) + 1.0, side="left")
    return part


def _part_of_groups(
    labels: RowIndex, groups: NDArray[np.int64], weights: NDArray[np.float64], rng: np.random.Generator
) -> RowIndex:
    """Return the part number of each row, keeping groups whole.

    Greedy: the largest group first, each into the part where it brings the fractions nearest. The objective is the sum
    over parts p and classes c of n_pc^2 / (w_p N_c^2), which is least when n_pc = w_p N_c.
    """
    _, group_of_row = np.unique(groups, return_inverse=True)
    classes, class_of_row = np.unique(labels, return_inverse=True)
    counts = np.zeros((group_of_row.max() + 1, len(classes)))
    np.add.at(counts, (group_of_row, class_of_row), 1.0)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    scale = 1.0 / (weights[:, None] * counts.sum(axis=0) ** 2)  # (parts, classes)
    have = np.zeros_like(scale)
    part = np.empty(len(counts), dtype=np.int64)
    for group in order:
        cost = ((2 * have + counts[group]) * counts[group] * scale).sum(axis=1)
        part[group] = cost.argmin()
        have[part[group]] += counts[group]
    return part[group_of_row]
