"""Validation and test splits for sources that have none: by fraction, fold, group or chromosome."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.common.splitting import Split, fold_split, held_out_split, stratified_split
from datamodules.dna.classification.labelled import Examples, Splits
from datamodules.dna.genome import plain_name
from titans_seq.errors import InputError

SplitUnit = Literal["row", "group", "chromosome"]


@dataclass(frozen=True)
class Holdout:
    """Options for cutting missing splits from the training rows."""

    unit: SplitUnit = "row"  # what stays together; rows and groups are stratified by class
    fraction: float = 0.1  # of the remaining rows, for each split that is cut
    folds: int = 0  # 2 or more: the first split that is cut is fold `fold` of these, instead of a fraction
    fold: int = 0
    validation_chromosomes: Sequence[str] = ()  # with unit=chromosome
    test_chromosomes: Sequence[str] = ()  # with unit=chromosome, if the source has no test rows
    seed: int = 0  # separate from the training seed, so that training seeds are compared on the same rows


def cut_splits(splits: Splits, holdout: Holdout) -> Splits:
    """Cut missing splits from the training rows; existing splits are unchanged.

    Raises InputError if the options do not fit the source, or a class would have no training row.
    """
    missing: list[Split] = []
    if splits.test is None:
        missing.append("test")
    if splits.validation is None:
        missing.append("validation")
    if not missing:
        if holdout.folds or holdout.unit != "row":
            key = "folds" if holdout.folds else f"unit={holdout.unit}"
            raise InputError(f"{splits.name}: already has validation and test rows; remove data.{key}")
        return splits
    if holdout.unit == "row":
        splits = replace(splits, notes=(*splits.notes, *_related_rows_notes(splits)))
    cut = _by_chromosome if holdout.unit == "chromosome" else _by_share
    train, parts = cut(splits, holdout, missing)
    unseen = set(splits.classes.names) - {splits.classes.names[number] for number in np.unique(train.labels)}
    if unseen:
        raise InputError(f"{splits.name}: no training row of class {listed(sorted(unseen))} is left; hold out less")
    return replace(
        splits, train=train, validation=parts.get("validation", splits.validation), test=parts.get("test", splits.test)
    )


def _related_rows_notes(splits: Splits) -> Iterator[str]:
    """Notes on related rows that a split by single rows may separate."""
    if splits.train.groups is not None:
        note = "rows have groups, which a split by row may separate; set data.unit=group to keep them whole"
        yield f"{splits.name}: {note}"
    intervals = splits.train.intervals
    if intervals is not None and (count := int(intervals.overlapping.sum())):
        yield (
            f"{splits.name}: {count:,} of {len(intervals.starts):,} rows overlap another on the genome, and a split "
            "by row may separate them; set data.unit=chromosome to hold out whole chromosomes"
        )


def _by_chromosome(
    splits: Splits, holdout: Holdout, missing: Sequence[Split]
) -> tuple[Examples, dict[Split, Examples]]:
    """Return the remaining training rows, and the splits cut from them."""
    named = {"validation": holdout.validation_chromosomes, "test": holdout.test_chromosomes}
    if splits.train.intervals is None:
        raise InputError(
            f"{splits.name}: cannot split by chromosome: the rows have no intervals. Add columns region, start and "
            "end (0-based) to the table, or set data.bed to BED files"
        )
    unused = [split for split, names in named.items() if names and split not in missing]
    if unused:
        raise InputError(f"{splits.name}: already has {unused[0]} rows; remove data.{unused[0]}_chromosomes")
    empty = [f"data.{split}_chromosomes" for split in missing if not named[split]]
    if empty:
        raise InputError(f"{splits.name}: to split by chromosome, set {' and '.join(empty)}")
    _check_one_name_each(splits.name, splits.train.intervals.regions)
    left, *parts = held_out_split(splits.train.intervals.regions, [named[split] for split in missing])
    taken = {split: splits.train.take(part) for split, part in zip(missing, parts, strict=True)}
    return splits.train.take(left), taken


def _check_one_name_each(source: str, regions: NDArray[np.str_]) -> None:
    """Raise InputError for a region with two names: held out under one, it would be trained on under the other."""
    names: dict[str, str] = {}
    for region in np.unique(regions).tolist():
        other = names.setdefault(plain_name(region), region)
        if other != region:
            raise InputError(f"{source}: {other!r} and {region!r} name the same region; use one name for it")


def _by_share(splits: Splits, holdout: Holdout, missing: Sequence[Split]) -> tuple[Examples, dict[Split, Examples]]:
    """Return the remaining training rows, and the splits cut from them."""
    if not 0 < holdout.fraction < 1:
        raise InputError(f"data.fraction must be between 0 and 1; got {holdout.fraction}")
    train, taken, seed = splits.train, {}, holdout.seed
    for number, split in enumerate(missing):
        groups = train.groups if holdout.unit == "group" else None
        if holdout.unit == "group" and groups is None:
            raise InputError(
                f"{splits.name}: cannot split by group: the rows have none. Set data.group to the column of "
                "groups in the table (for a FASTA file: in data.labels)"
            )
        if number == 0 and holdout.folds:
            left, part = fold_split(train.labels, holdout.folds, holdout.fold, seed=seed, groups=groups)
        else:
            left, part = stratified_split(
                train.labels, (1 - holdout.fraction, holdout.fraction), seed=seed, groups=groups
            )
        taken[split] = train.take(part)
        train = train.take(left)
    return train, taken
