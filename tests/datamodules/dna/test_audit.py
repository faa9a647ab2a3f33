"""The audit against plain loops, on datasets built to leak, and on the real datasets against published figures."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from datamodules.common.download import DATA_VARIABLE
from datamodules.dna.audit.audit import Audit, Overlap, audit, audit_intervals, audit_source
from datamodules.dna.audit.logistic import Logistic
from datamodules.dna.audit.shortcuts import Shortcut, by_length, score
from datamodules.dna.classification.classes import Classes
from datamodules.dna.classification.holdout import Holdout
from datamodules.dna.classification.labelled import Examples, IntervalExamples, IntervalSplits, Splits
from datamodules.dna.datasets.catalogue import open_data, read_unlabelled
from datamodules.dna.datasets.fasta import LabelledFasta
from datamodules.dna.datasets.genomic_benchmarks import GenomicBenchmark
from datamodules.dna.datasets.gue import GUE
from datamodules.dna.datasets.table import SequenceTable
from datamodules.dna.intervals import Intervals
from datamodules.dna.kmers import counts, kmers
from datamodules.dna.overlap import KmerIndex, match_intervals
from datamodules.dna.sequences import Sequences
from tests.datamodules.dna.dna_reference import (
    place,
    random_dna,
    refused,
    slow_reverse_complement,
    write_csv,
    write_fasta,
)

TWO = Classes(("negative", "positive"))


def rows_of(texts: list[str], labels: list[int]) -> Examples:
    return Examples(Sequences.read(texts, place), np.array(labels))


def shortcuts_of(result: Audit, split: str = "test") -> dict[str, Shortcut]:
    return {each.name: each for each in result.shortcuts if each.split == split}


def overlap_of(result: Audit, split: str, by: str) -> Overlap:
    return next(each for each in result.overlaps if (each.split, each.by) == (split, by))


# Components of the audit against plain loops.


@pytest.mark.parametrize("k", [1, 2, 3, 7, 13, 31, 32])
@pytest.mark.parametrize("both_strands", [False, True])
def test_kmers_equal_plain_slicing(k: int, both_strands: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_dna([40, 1, k, 90, k - 1 or 1, 35], letters="ACGTACGTACGTACGTN")
    # A block size below the number of bases, so that block boundaries occur.
    monkeypatch.setattr("datamodules.dna.sequences._RUN", 50)
    codes, rows = kmers(Sequences.read(texts, place), k, both_strands=both_strands)
    expected = []
    for row, text in enumerate(texts):
        for start in range(len(text) - k + 1):
            piece = text[start : start + k]
            if "N" not in piece:
                both = [piece, slow_reverse_complement(piece)] if both_strands else [piece]
                expected.append((row, min(int("".join(str("ACGT".index(b)) for b in each), 4) for each in both)))
    assert list(zip(rows.tolist(), codes.tolist(), strict=True)) == expected


def test_kmer_counts_equal_plain_counts() -> None:
    texts = ["ACACNAC", "GGGG", "T"]
    table = counts(Sequences.read(texts, place), 2)
    pairs = ["".join(pair) for pair in product("ACGT", repeat=2)]
    for row, text in enumerate(texts):
        windows = [text[i : i + 2] for i in range(len(text) - 1)]
        assert table[row].tolist() == [windows.count(pair) for pair in pairs]


def test_logistic_regression_is_at_its_optimum() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 3)) * [1.0, 5.0, 0.0] + [0.0, 2.0, 7.0]  # the last one is constant
    labels = (features[:, 0] + 0.2 * features[:, 1] + rng.normal(size=600)).round().clip(-1, 1).astype(int) + 1
    model = Logistic(features, labels, 3, ridge=1.0)
    x = np.column_stack([(features - features.mean(0)) / [features[:, 0].std(), features[:, 1].std(), 1], np.ones(600)])
    scores = x @ model.weights
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    gradient = x.T @ (probability - np.eye(3)[labels]) + np.diag([1.0, 1.0, 1.0, 6e-4]) @ model.weights
    assert np.abs(gradient).max() < 1e-3
    assert (model.predict(features) == labels).mean() > 0.6


def test_length_predicts_by_the_nearest_training_length() -> None:
    train, labels = np.array([10, 10, 10, 20, 30]), np.array([1, 1, 0, 0, 2])
    other = np.array([1, 10, 14, 16, 25, 26, 99])
    assert by_length(train, labels, other, 3).tolist() == [1, 1, 1, 0, 0, 2, 2]
    assert by_length(train, labels, other, 3, max_length=12).tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_scores_equal_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 500)
    predicted = np.where(rng.random(500) < 0.5, labels, rng.integers(0, 3, 500))
    shortcut = score("test", "x", labels, predicted, 3)
    mcc = multiclass_matthews_corrcoef(torch.tensor(predicted), torch.tensor(labels), num_classes=3)
    assert shortcut.mcc == pytest.approx(float(mcc), abs=1e-6)
    assert shortcut.accuracy == (labels == predicted).mean()
    assert shortcut.constant == max(np.bincount(labels)) / 500
    assert score("test", "x", labels, np.zeros(500, dtype=int), 3).mcc == 0.0


def test_shared_kmers_equal_plain_comparison() -> None:
    k = 5
    train, other = random_dna([30, 60, 4, 12, 60]), random_dna([40, 3, 25], 1)
    labels = np.array([0, 1, 1, 0, 1])

    def pieces(text: str) -> set[str]:
        found = (text[i : i + k] for i in range(len(text) - k + 1))
        return {min(piece, slow_reverse_complement(piece)) for piece in found}

    index = KmerIndex(Sequences.read(train, place), labels, 2, k=k)
    matches = index.match(Sequences.read(other, place))
    for row, text in enumerate(other):
        held = [pieces(text) & pieces(each) for each in train]
        votes = [sum(len(h) for h, label in zip(held, labels, strict=True) if label == c) for c in (0, 1)]
        assert matches.share[row] == len(set().union(*held)) / max(1, len(pieces(text)))
        assert matches.label[row] == (-1 if not any(votes) else int(votes[1] > votes[0]))
    for row, text in enumerate(train):
        others = set().union(*(pieces(each) for i, each in enumerate(train) if i != row))
        assert matches.train_share[row] == len(pieces(text) & others) / max(1, len(pieces(text)))


@pytest.mark.parametrize("pairs", [1, 40, 10**6])
def test_interval_coverage_equals_plain_comparison(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.dna.overlap._PAIRS", pairs)

    def some(count: int, seed: int) -> Intervals:
        rng = np.random.default_rng(seed)
        starts = rng.integers(0, 600, count)
        regions = np.array(["chr1", "chr10", "chrX"])[rng.integers(0, 3, count)]
        return Intervals(regions, starts, starts + rng.integers(1, 60, count), rng.random(count) < 0.5)

    def covered(a: Intervals, i: int, b: Intervals, j: int) -> float:
        if a.regions[i] != b.regions[j]:
            return 0.0
        return max(0, min(a.ends[i], b.ends[j]) - max(a.starts[i], b.starts[j])) / (a.ends[i] - a.starts[i])

    train, other = some(60, 1), some(40, 2)
    labels = np.arange(60) % 2
    matches = match_intervals(train, labels, other)
    for i in range(40):
        shares = [covered(other, i, train, j) for j in range(60)]
        assert matches.share[i] == max(shares)
        best = {labels[j] for j in range(60) if shares[j] == max(shares)} if max(shares) else {-1}
        assert matches.label[i] in best
    for i in range(60):
        assert matches.train_share[i] == max(covered(train, i, train, j) for j in range(60) if j != i)


# Audits of datasets with one kind of leakage each.


def test_length_shortcut_is_detected() -> None:
    texts = random_dna([50, 60] * 100 + [600, 700] * 50)
    labels = [0, 1] * 150
    splits = Splits("set", TWO, rows_of(texts, labels), test=rows_of(random_dna([50, 600, 60, 700], 1), [0, 0, 1, 1]))
    shortcuts = shortcuts_of(audit(splits, max_length=512))
    assert shortcuts["length"].accuracy == 1.0
    assert shortcuts["length"].mcc == 1.0
    assert shortcuts["length, cut at 512"].accuracy == 0.75
    assert shortcuts["half of the 32-mers in training rows"].accuracy == 0.5


def test_composition_shortcut_is_detected() -> None:
    # Equal base frequencies, but CG is depleted in class 1, as in genomes.
    plain = random_dna([200] * 100)
    without = [text.replace("CG", "GC") for text in random_dna([200] * 100, 1)]
    rich = random_dna([200] * 100, 2, letters="ACGGCT")
    pairs = Splits("set", TWO, rows_of(plain[:80] + without[:80], [0] * 80 + [1] * 80))
    bases = Splits("set", TWO, rows_of(plain[:80] + rich[:80], [0] * 80 + [1] * 80))
    test_pairs = rows_of(plain[80:] + without[80:], [0] * 20 + [1] * 20)
    test_bases = rows_of(plain[80:] + rich[80:], [0] * 20 + [1] * 20)

    def both(splits: Splits, test: Examples) -> list[float]:
        shortcuts = shortcuts_of(audit(Splits(splits.name, TWO, splits.train, test=test)))
        return [shortcuts["frequencies of bases"].accuracy, shortcuts["frequencies of pairs of bases"].accuracy]

    on_pairs, on_bases = both(pairs, test_pairs), both(bases, test_bases)
    assert on_pairs[0] < 0.75
    assert on_pairs[1] > 0.9
    assert min(on_bases) > 0.9


def test_duplicate_contradictory_and_reverse_complement_rows_are_counted() -> None:
    a, b, c, d, e, f = random_dna([80] * 6)
    train = rows_of([a, a, b, b, c, d], [0, 0, 0, 1, 1, 0])
    test = rows_of([a, c, slow_reverse_complement(d), e, e, f, b], [1, 1, 0, 0, 1, 0, 0])
    result = audit(Splits("set", TWO, train, test=test))
    repeats = {each.split: (each.rows, each.repeated, each.contradictory) for each in result.repeats}
    # In all splits: a (3 rows), b (3), c and e (2 each); a, b and e have both labels.
    assert repeats == {"train": (6, 2, 1), "test": (7, 1, 1), "all": (13, 6, 3)}
    overlap = overlap_of(result, "test", "32-mers")
    assert (overlap.rows, overlap.identical, overlap.contradictory, overlap.reverse_complements) == (7, 3, 2, 1)
    assert overlap.identical_by_class == (0.25, 1 / 3)  # b among four rows, c among three
    assert overlap.half_in_train == overlap.any_in_train == 4 / 7
    assert result.counts == {"train": (4, 2), "test": (4, 3)}
    tables = result.tables()
    assert {name: len(table) for name, table in tables.items()} == {
        "rows": 4,
        "shortcuts": 4,
        "repeats": 3,
        "overlaps": 1,
    }


def test_parts_of_training_rows_are_found_on_either_strand() -> None:
    train = random_dna([200] * 40)
    fresh = random_dna([200] * 40, 1)
    test = []
    for row, (text, other) in enumerate(zip(train, fresh, strict=True)):
        piece = text[60:180]
        test.append(other[:40] + (slow_reverse_complement(piece) if row % 4 < 2 else piece) + other[160:])
    labels = [0, 1] * 20
    splits = Splits("set", TWO, rows_of(train, labels), test=rows_of(test[:20] + fresh[20:], labels))
    result = audit(splits)
    # 120 of a row's 200 bases are from train: 89 of its 169 32-mers.
    assert overlap_of(result, "test", "32-mers").half_in_train == 0.5
    assert shortcuts_of(result)["half of the 32-mers in training rows"].accuracy == 0.75
    assert overlap_of(audit(splits, k=20), "test", "20-mers").any_in_train == 0.5
    assert overlap_of(result, "test", "32-mers").identical == 0


def test_duplicates_in_one_class_reveal_the_other() -> None:
    # Negatives are ten intervals, ten times each; positives are one hundred intervals: an unseen one is positive.
    def places(starts: list[int]) -> Intervals:
        begin = np.array(starts) * 1000
        return Intervals(np.array(["chr1"] * len(begin)), begin, begin + 100, begin < 0)

    train = IntervalExamples(places([*list(range(10)) * 10, *range(100, 200)]), np.array([0] * 100 + [1] * 100))
    test = IntervalExamples(places([3, 5, 300, 301, 302, 303]), np.array([0, 0, 1, 1, 1, 0]))
    result = audit_intervals(IntervalSplits("set", TWO, train, test))
    shortcuts = shortcuts_of(result)
    for name in ("the same interval in training rows", "half covered by a training row"):
        assert shortcuts[name].accuracy == 5 / 6
    overlap = overlap_of(result, "test", "intervals")
    assert (overlap.identical, overlap.identical_by_class) == (2, (2 / 3, 0.0))
    assert overlap.half_in_train == 1 / 3
    assert [(each.split, each.repeated) for each in result.repeats] == [("train", 90), ("test", 0), ("all", 92)]


def test_coverage_threshold_is_half_a_row() -> None:
    def places(*rows: tuple[int, int]) -> Intervals:
        starts, ends = np.array(rows).T
        return Intervals(np.array(["chr1"] * len(rows)), starts, ends, starts < 0)

    train = IntervalExamples(places((0, 100), (1000, 1100), (2000, 2100)), np.array([1, 1, 0]))
    test = IntervalExamples(places((2050, 2150), (2051, 2151)), np.array([0, 0]))
    result = audit_intervals(IntervalSplits("set", TWO, train, test))
    assert overlap_of(result, "test", "intervals").half_in_train == 0.5
    assert shortcuts_of(result)["half covered by a training row"].accuracy == 0.5


# Opening the data of the command.


@pytest.fixture
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def test_data_is_opened_by_name_file_and_folder(tmp_path: Path, no_data_folder: None) -> None:
    table = write_csv(tmp_path / "set" / "train.csv", "sequence,label", [("ACGT", 0), ("GG", 1)])
    write_csv(tmp_path / "set" / "dev.csv", "sequence,label", [("ACG", 0), ("GGT", 1)])
    fasta = write_fasta(tmp_path / "a.fa", {"x label=0": "ACGT", "y label=1": "GG"})
    source = open_data(str(tmp_path / "set"))
    assert isinstance(source, SequenceTable)
    splits = source.load()
    assert splits.validation is not None
    assert splits.validation.sequences.texts() == ["ACG", "GGT"]
    assert splits.test is None
    for name in ("a.fa", "A.FA", "a.fas", "a.ffn"):
        assert isinstance(open_data(str(fasta.rename(tmp_path / name))), LabelledFasta)
        fasta = tmp_path / name
        assert read_unlabelled(fasta)[0] == ["x", "y"]
    capitals = table.rename(tmp_path / "T.CSV")
    assert len(read_unlabelled(capitals)[1]) == 2
    assert isinstance(open_data(str(capitals)), SequenceTable)
    assert isinstance(open_data("tf/0"), GUE)
    assert isinstance(open_data("human_enhancers_cohn"), GenomicBenchmark)
    (tmp_path / "capitals").mkdir()
    fasta.rename(tmp_path / "capitals" / "Train.FA")
    assert isinstance(open_data(str(tmp_path / "capitals")), LabelledFasta)
    (tmp_path / "human_enhancers_cohn").mkdir()
    assert isinstance(open_data(str(tmp_path / "human_enhancers_cohn")), GenomicBenchmark)


def test_invalid_data_paths(tmp_path: Path, no_data_folder: None) -> None:
    assert "no such file or folder, and no published dataset" in refused(lambda: open_data(str(tmp_path / "none")))
    assert "no train file" in refused(lambda: open_data(str(tmp_path)))
    write_csv(tmp_path / "both" / "train.csv", "sequence,label", [("ACGT", 0), ("GG", 1)])
    write_fasta(tmp_path / "both" / "test.fa", {"x label=0": "ACGT", "y label=1": "GG"})
    line = refused(lambda: open_data(str(tmp_path / "both")))
    assert "the splits must be all tables or all FASTA files; got " in line
    assert "train.csv and " in line
    assert line.endswith("test.fa")
    write_csv(tmp_path / "both" / "train.tsv", "sequence,label", [("ACGT", 0), ("GG", 1)])
    assert "several files for one split: train.csv and train.tsv; keep one of them" in refused(
        lambda: open_data(str(tmp_path / "both"))
    )
    (tmp_path / "both" / "train.tsv").rename(tmp_path / "both" / "Train.csv")
    assert "several files for one split: Train.csv and train.csv" in refused(lambda: open_data(str(tmp_path / "both")))
    (tmp_path / "a.txt").write_text("ACGT")
    assert "neither a table" in refused(lambda: open_data(str(tmp_path / "a.txt")))


def test_single_table_is_split_as_in_fit(tmp_path: Path, no_data_folder: None) -> None:
    texts = random_dna([30, 40] * 50)
    rows = [(text, row % 2, row // 10, f"chr{row % 5}", row, row + 30) for row, text in enumerate(texts)]
    path = write_csv(tmp_path / "a.csv", "sequence,label,group,region,start,end", rows)
    result = audit_source(open_data(str(path)), Holdout(unit="group", fraction=0.2))
    assert result.counts == {"train": (30, 30), "validation": (10, 10), "test": (10, 10)}
    assert result.notes == ("a.csv: no test rows; the splits are cut as in `fit`, by group",)
    assert shortcuts_of(result)["length"].accuracy == 1.0
    held_out = Holdout(unit="chromosome", validation_chromosomes=["chr1"], test_chromosomes=["chr3"])
    assert audit_source(open_data(str(path)), held_out).counts["test"] == (10, 10)


def test_sequences_without_labels_are_read_for_prediction(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "a.fa", {"x some words": "ACGT", "y": "GG"})
    named = write_csv(tmp_path / "a.csv", "id,sequence", [("p", "AC"), ("q", "GGT")])
    bare = write_csv(tmp_path / "b.csv", "seq", [("AC",), ("GGT",)])
    for path, names, texts in ((fasta, ["x", "y"], ["ACGT", "GG"]), (named, ["p", "q"], ["AC", "GGT"])):
        found, sequences = read_unlabelled(path)
        assert (found, sequences.texts()) == (names, texts)
    assert read_unlabelled(bare, sequence="seq")[0] == ["0", "1"]
    assert "found seq. Set data.sequence" in refused(lambda: read_unlabelled(bare))
    empty = write_csv(tmp_path / "c.csv", "sequence,x", [("AC", 1), ("", 2)])
    assert f"{empty}: line 3: no sequence" in refused(lambda: read_unlabelled(empty))


# The real datasets.


@pytest.mark.parametrize(
    ("name", "shortcut", "accuracy"),
    [
        # From the table in docs/protocols.md, in percent; it shows 87.76 as 87.7.
        ("human_enhancers_ensembl", "the same interval in training rows", 87.76),
        ("human_nontata_promoters", "half covered by a training row", 99.59),
        ("human_ensembl_regulatory", "length", 91.52),
        ("human_ensembl_regulatory", "length, cut at 512", 82.70),
        ("human_enhancers_cohn", "half covered by a training row", 50.30),
        ("human_ocr_ensembl", "half covered by a training row", 50.21),
        ("demo_coding_vs_intergenomic_seqs", "half covered by a training row", 50.32),
        ("demo_human_or_worm", "half covered by a training row", 53.65),
    ],
)
def test_leakage_of_the_published_interval_lists(
    data_root: Path, interval_audits: dict[str, Audit], name: str, shortcut: str, accuracy: float
) -> None:
    if name not in interval_audits:
        source = GenomicBenchmark(name, str(data_root))
        interval_audits[name] = audit_intervals(source.load_intervals(), max_length=512)
    result = interval_audits[name]
    assert round(100 * shortcuts_of(result)[shortcut].accuracy, 2) == accuracy
    overlap = overlap_of(result, "test", "intervals")
    if name == "human_enhancers_ensembl":
        assert round(100 * overlap.identical_by_class[1], 1) == 75.5
        assert overlap.identical_by_class[0] == 0.0
    elif name == "human_nontata_promoters":
        assert round(100 * overlap.half_in_train, 1) == 47.5
    else:
        best = max(each.accuracy for each in result.shortcuts)
        assert name == "human_ensembl_regulatory" or 0.502 <= round(best, 3) <= 0.537


@pytest.fixture(scope="module")
def interval_audits() -> dict[str, Audit]:
    """Cache of audits that several tests use."""
    return {}


# Rows of test and of dev that are in train, repeated rows of train, sequences with both labels: the data's README.
KNOWN = {
    "prom/prom_core_all": (43, 54, None, 64),
    "prom/prom_core_notata": (30, None, None, 49),
    "prom/prom_core_tata": (16, None, None, 15),
    "tf/1": (1, None, None, None),
    "tf/4": (None, 358, 3789, None),
}


@pytest.mark.parametrize("task", KNOWN)
def test_duplicates_in_the_real_gue_tasks(data_root: Path, task: str) -> None:
    result = audit(GUE(task, str(data_root)).load())
    test, dev = (overlap_of(result, split, "32-mers").identical for split in ("test", "validation"))
    repeats = {each.split: each for each in result.repeats}
    found = (test, dev, repeats["train"].repeated, repeats["all"].contradictory)
    for known, ours in zip(KNOWN[task], found, strict=True):
        assert known is None or ours == known


def test_rows_shorter_than_k_are_compared_whole() -> None:
    texts = random_dna([20] * 12, seed=9)
    train = rows_of(texts[:8], [0, 1] * 4)
    test = rows_of([texts[0], slow_reverse_complement(texts[1]), *texts[8:]], [0, 1] * 3)
    found = audit(Splits("short", TWO, train, None, test))
    assert overlap_of(found, "test", "32-mers").half_in_train == pytest.approx(2 / 6)
    assert shortcuts_of(found)["half of the 32-mers in training rows"].accuracy >= 4 / 6
