"""Who trains, who validates, who tests: parts of a data set, as functions of labels, groups and a seed alone.

Rows that resemble each other (overlapping on a genome, sharing a stretch) must not be parted, or the score measures
memory: give them one group. Every part gets its share of each class, as nearly as the groups allow.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.common.messages import listed
from titans_seq.errors import InputError

Index = NDArray[np.int64]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def stratified_split(
    labels: Index, shares: Sequence[float], *, seed: int, groups: NDArray[np.int64] | None = None
) -> list[Index]:
    """Rows of each part, in order; stratified by class, random by `seed`.

    Args:
        labels: class numbers (n,).
        shares: of each part, above 0; k-fold is k equal shares.
        seed: of the choice; the same seed and rows give the same parts.
        groups: rows of one group (n,) stay together.

    Raises InputError when a part would be empty.
    """
    weights = np.asarray(shares, dtype=np.float64) / np.sum(shares)
    rng = np.random.default_rng(seed)
    part = _part_of_rows(labels, weights, rng) if groups is None else _part_of_groups(labels, groups, weights, rng)
    parts = [np.flatnonzero(part == number) for number in range(len(weights))]
    if not all(map(len, parts)):
        units = f"{len(labels)} rows" if groups is None else f"{len(np.unique(groups))} groups of {len(labels)} rows"
        raise InputError(f"{units} are too few, or too unequal, for parts of {listed(f'{w:.3g}' for w in weights)}")
    return parts


def fold_split(
    labels: Index, folds: int, fold: int, *, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[Index, Index]:
    """The rows outside and inside fold `fold` of `folds`; the folds of one seed part the rows."""
    if not 0 <= fold < folds or folds < 2:
        raise InputError(f"data.fold must be 0 to data.folds - 1, of at least 2 folds; got {fold} of {folds}")
    parts = stratified_split(labels, [1.0] * folds, seed=seed, groups=groups)
    return np.sort(np.concatenate([part for i, part in enumerate(parts) if i != fold])), parts[fold]


def held_out_split(names: NDArray[np.str_], held_out: Sequence[Sequence[str]], kind: str = "chromosome") -> list[Index]:
    """The rows of no held-out name, then those of each list of `held_out`: chromosomes, say, which is their `kind`.

    Raises InputError for a name that no row has, and for one that is listed twice.
    """
    there, counts = np.unique(names, return_counts=True)
    named = [name for part in held_out for name in part]
    for name in named:
        if name not in there:
            have = listed((f"{n} ({c} rows)" for n, c in zip(there, counts, strict=True)), most=40)
            raise InputError(f"held-out {kind} {name!r} has no rows; there are: {have}")
        if named.count(name) > 1:
            raise InputError(f"{kind} {name!r} is held out twice")
    parts = [np.flatnonzero(np.isin(names, part)) for part in ([n for n in there if n not in named], *held_out)]
    if not len(parts[0]):
        raise InputError(f"all {kind}s are held out ({', '.join(named)}): none is left to train on")
    return parts


def _part_of_rows(labels: Index, weights: NDArray[np.float64], rng: np.random.Generator) -> Index:
    """The part of each row: within each class, cut a random order at the shares."""
    part = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # A random offset, so that what is over does not always fall to the same part.
        cuts = np.cumsum(weights) * len(rows) + rng.random()
        part[rows] = np.searchsorted(cuts[:-1], np.arange(len(rows)) + 1.0, side="left")
    return part


def _part_of_groups(
    labels: Index, groups: NDArray[np.int64], weights: NDArray[np.float64], rng: np.random.Generator
) -> Index:
    """The part of each row, groups whole: the largest first, each where it brings the shares nearest.

    What is kept small is the sum over parts p and classes c of n_pc^2 / (w_p N_c^2), least when n_pc = w_p N_c.
    """
    _, members = np.unique(groups, return_inverse=True)
    classes, of = np.unique(labels, return_inverse=True)
    counts = np.zeros((members.max() + 1, len(classes)))
    np.add.at(counts, (members, of), 1.0)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    scale = 1.0 / (weights[:, None] * counts.sum(axis=0) ** 2)  # (parts, classes)
    have = np.zeros_like(scale)
    part = np.empty(len(counts), dtype=np.int64)
    for group in order:
        cost = ((2 * have + counts[group]) * counts[group] * scale).sum(axis=1)
        part[group] = cost.argmin()
        have[part[group]] += counts[group]
    return part[members]
