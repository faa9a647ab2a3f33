"""Splits by fraction, fold, group and chromosome: stratified, group-preserving and reproducible."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from datamodules.common.splitting import fold_split, held_out_split, stratified_split
from datamodules.dna.classification.classes import Classes
from datamodules.dna.classification.datamodule import SequenceDataModule
from datamodules.dna.classification.holdout import Holdout, cut_splits
from datamodules.dna.classification.labelled import Examples, Splits
from datamodules.dna.intervals import Intervals
from datamodules.dna.sequences import Sequences
from tests.datamodules.dna.dna_reference import place, random_dna, refused

LABELS = np.random.default_rng(0).choice(3, size=1000, p=[0.6, 0.3, 0.1])
# Groups of one to forty rows, as overlapping intervals form them.
GROUPS = np.sort(np.minimum(np.random.default_rng(1).geometric(0.02, 1000), 150))


def disjoint_and_complete(parts: list[np.ndarray], count: int) -> bool:
    return sorted(np.concatenate(parts).tolist()) == list(range(count))


def test_stratified_split_keeps_class_fractions_within_one_row() -> None:
    parts = stratified_split(LABELS, (0.7, 0.2, 0.1), seed=0)
    assert disjoint_and_complete(parts, 1000)
    for label in range(3):
        total = (label == LABELS).sum()
        for part, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
            assert abs((LABELS[part] == label).sum() - share * total) < 1


@pytest.mark.parametrize("folds", [2, 5, 10])
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_folds_partition_the_rows(folds: int, groups: np.ndarray | None) -> None:
    pairs = [fold_split(LABELS, folds, fold, seed=4, groups=groups) for fold in range(folds)]
    assert disjoint_and_complete([inside for _, inside in pairs], 1000)
    for outside, inside in pairs:
        assert disjoint_and_complete([outside, inside], 1000)
        assert (np.diff(outside) > 0).all()
        assert (np.diff(inside) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_parts_share_no_group_and_have_the_requested_sizes(seed: int) -> None:
    parts = stratified_split(LABELS, [1.0] * 5, seed=seed, groups=GROUPS)
    for first, second in combinations(parts, 2):
        assert not set(GROUPS[first]) & set(GROUPS[second])
    for part in parts:
        assert abs(len(part) - 200) <= 10
        for label in range(3):
            assert abs((LABELS[part] == label).sum() / (label == LABELS).sum() - 0.2) < 0.05


def test_parts_depend_on_the_seed_only() -> None:
    for groups in (None, GROUPS):
        chosen = [stratified_split(LABELS, (0.9, 0.1), seed=seed, groups=groups)[1].tolist() for seed in (0, 1, 0)]
        np.random.seed(3)
        assert chosen[0] == chosen[2] != chosen[1]


def test_all_rows_are_equally_likely_to_be_held_out() -> None:
    counts = Counter(row for seed in range(300) for row in stratified_split(LABELS, (0.9, 0.1), seed=seed)[1].tolist())
    # Expected 30 +- 5.2 per row; the bounds are five standard deviations.
    assert len(counts) == 1000
    assert 4 <= min(counts.values()) <= max(counts.values()) <= 56
    # A tenth of five rows is half a row: one row is held out for half of the seeds.
    few = np.array([0] * 5 + [1] * 95)
    held = [(few[stratified_split(few, (0.9, 0.1), seed=seed)[1]] == 0).sum() for seed in range(300)]
    assert set(held) == {0, 1}
    assert abs(np.mean(held) - 0.5) < 0.15


def test_group_too_large_for_the_small_part_goes_to_the_large_one() -> None:
    groups = np.array([0] * 60 + list(range(1, 41)))
    kept, held = stratified_split(np.arange(100) % 2, (0.9, 0.1), seed=0, groups=groups)
    first, second = stratified_split(np.arange(100) % 2, (0.1, 0.9), seed=0, groups=groups)
    assert len(held) == len(first) == 10
    assert 0 in groups[kept]
    assert 0 in groups[second]


def test_too_few_rows_or_groups_are_an_error() -> None:
    assert "3 rows are too few" in refused(lambda: stratified_split(np.zeros(3, dtype=int), [1.0] * 5, seed=0))
    two = np.array([0, 0, 0, 0, 1])
    assert "2 groups of 5 rows" in refused(
        lambda: stratified_split(np.zeros(5, dtype=int), [1.0] * 3, seed=0, groups=two)
    )
    assert "got 5 of 5" in refused(lambda: fold_split(LABELS, 5, 5, seed=0))
    assert "got 0 of 1" in refused(lambda: fold_split(LABELS, 1, 0, seed=0))


def test_names_are_held_out_as_listed() -> None:
    names = np.array(["chr1", "chr2", "chrX", "chr1", "chr3"])
    assert [part.tolist() for part in held_out_split(names, [["chr2"], ["chrX", "chr3"]])] == [[0, 3], [1], [2, 4]]
    unknown = refused(lambda: held_out_split(names, [["2"]]))
    assert "'2' has no rows" in unknown
    assert "chr1 (2 rows), chr2 (1 rows)" in unknown
    assert "held out twice" in refused(lambda: held_out_split(names, [["chr2"], ["chr2"]]))
    assert "none is left" in refused(lambda: held_out_split(names, [["chr1", "chr2", "chr3", "chrX"]]))


def some_splits(count: int = 200, *, test: bool = False, regions: bool = False, groups: bool = False) -> Splits:
    rng = np.random.default_rng(5)
    sequences = Sequences.read(random_dna(range(1, count + 1)), place)  # a row's length identifies it
    zeros = np.zeros(count, dtype=np.int64)
    chromosomes = np.array(["chr1", "chr2", "chr3"])[rng.integers(0, 3, count)]
    rows = Examples(
        sequences,
        np.arange(count) % 2,
        rng.integers(0, 20, count) if groups else None,
        Intervals(chromosomes, zeros, zeros + 1, zeros > 0) if regions else None,
    )
    return Splits("set", Classes(("a", "b")), rows, test=rows.take(np.arange(10)) if test else None)


def row_numbers(splits: Splits) -> list[list[int]]:
    assert splits.validation
    assert splits.test
    return [(part.sequences.lengths - 1).tolist() for part in (splits.train, splits.validation, splits.test)]


def test_only_validation_is_split_off_if_test_is_given() -> None:
    before = some_splits(test=True)
    after = cut_splits(before, Holdout(fraction=0.2))
    train, validation, test = row_numbers(after)
    assert after.test is before.test
    assert test == list(range(10))
    assert sorted(train + validation) == list(range(200))
    assert len(validation) == 40
    assert np.bincount(after.validation.labels).tolist() == [20, 20]  # type: ignore[union-attr]


def test_test_folds_cover_all_rows() -> None:
    tests = []
    for fold in range(5):
        train, validation, test = row_numbers(cut_splits(some_splits(), Holdout(folds=5, fold=fold)))
        assert sorted(train + validation + test) == list(range(200))
        assert (len(validation), len(test)) == (16, 40)
        tests += test
    assert sorted(tests) == list(range(200))


def test_groups_and_chromosomes_stay_whole() -> None:
    splits = cut_splits(some_splits(groups=True), Holdout(unit="group", folds=4))
    assert splits.validation
    assert splits.test
    sets = [set(part.groups.tolist()) for part in (splits.train, splits.validation, splits.test)]  # type: ignore[union-attr]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 20

    chosen = Holdout(unit="chromosome", validation_chromosomes=["chr3"], test_chromosomes=["chr1"])
    splits = cut_splits(some_splits(regions=True), chosen)
    parts = (splits.train, splits.validation, splits.test)
    assert [set(part.intervals.regions.tolist()) for part in parts] == [{"chr2"}, {"chr3"}, {"chr1"}]  # type: ignore[union-attr]
    assert sum(map(len, parts)) == 200  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_overlapping_intervals_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 30))
    starts, regions = rng.integers(-20, 100, count), np.array(["chr1", "chr10", "2"])[rng.integers(0, 3, count)]
    places = Intervals(regions, starts, starts + rng.integers(1, 20, count), rng.random(count) < 0.5)
    expected = np.zeros(count, dtype=np.bool_)
    for i, j in combinations(range(count), 2):
        if places.regions[i] == places.regions[j]:
            left, right = max(starts[i], starts[j]), min(places.ends[i], places.ends[j])
            expected[[i, j]] |= left < right
    assert places.overlapping.tolist() == expected.tolist()


def test_overlapping_rows_in_a_split_by_row_are_noted() -> None:
    splits = some_splits(regions=True)  # 200 rows at three positions
    note = (
        "set: 200 of 200 rows overlap another on the genome, and a split by row may separate them; set data.unit=chromo"
    )
    assert cut_splits(splits, Holdout()).notes[0].startswith(note)
    chosen = Holdout(unit="chromosome", validation_chromosomes=["chr3"], test_chromosomes=["chr1"])
    assert not cut_splits(splits, chosen).notes


def test_impossible_holdouts_are_errors() -> None:
    no_intervals = refused(lambda: cut_splits(some_splits(), Holdout(unit="chromosome")))
    assert "the rows have no intervals. Add columns region, start and end" in no_intervals
    lack = refused(lambda: cut_splits(some_splits(regions=True), Holdout(unit="chromosome", test_chromosomes=["chr1"])))
    assert "set data.validation_chromosomes" in lack
    assert "data.group" in refused(lambda: cut_splits(some_splits(), Holdout(unit="group")))
    assert "data.fraction" in refused(lambda: cut_splits(some_splits(), Holdout(fraction=1.5)))
    rows = some_splits(regions=True)
    only = np.where(rows.train.labels == 0, "chr1", "chr2")
    assert rows.train.intervals
    one = Examples(rows.train.sequences, rows.train.labels, None, rows.train.intervals._replace(regions=only))
    names = np.where(np.arange(len(only)) % 2 == 0, only, "1")
    two = Examples(rows.train.sequences, rows.train.labels, None, rows.train.intervals._replace(regions=names))
    chosen = Holdout(unit="chromosome", test_chromosomes=["chr1"])
    line = refused(lambda: cut_splits(Splits("set", rows.classes, two, validation=one), chosen))
    assert "set: '1' and 'chr1' name the same region" in line
    splits = Splits("set", rows.classes, one, validation=one)
    assert "no training row of class a" in refused(lambda: cut_splits(splits, chosen))


def test_the_data_module_serves_each_split_from_its_own_rows() -> None:
    class Source:
        def prepare(self) -> None: ...

        def load(self) -> Splits:
            return some_splits()

    data = SequenceDataModule(Source(), batch_size=16, max_length=50, both_strands=True, seed=2)
    data.prepare_data()
    data.setup()
    splits = data.splits
    data.setup("test")
    assert data.splits is splits, "the source must be read once"
    assert data.class_names == ("a", "b")
    assert data.class_counts.tolist() == [81, 81]
    loaders = {"train": data.train_dataloader(), "validation": data.val_dataloader(), "test": data.test_dataloader()}
    sizes = {split: sum(len(batch.labels) for batch in loader) for split, loader in loaders.items()}
    assert sizes == {"train": 162, "validation": 18, "test": 20}
    assert [loader.both_strands for loader in loaders.values()] == [True, False, False]
    assert [loader.sampler.shuffle for loader in loaders.values()] == [True, False, False]
    assert all(batch.tokens.shape[1] <= 50 for batch in loaders["test"])
