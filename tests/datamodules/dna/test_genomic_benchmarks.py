"""The nine GenomicBenchmarks datasets in their three file formats: generated files and the real data."""

import csv
import gzip
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datamodules.common.download import DATA_VARIABLE
from datamodules.dna.classification.labelled import Splits
from datamodules.dna.datasets.checksums import GENOMIC_BENCHMARKS
from datamodules.dna.datasets.genomic_benchmarks import BENCHMARKS, GenomicBenchmark, published_list
from tests.datamodules.dna.dna_reference import random_dna, refused, slow_reverse_complement, write_csv, write_fasta

REGULATORY = "human_ensembl_regulatory"
CLASSES = {
    "demo_coding_vs_intergenomic_seqs": ("coding_seqs", "intergenomic_seqs"),
    "demo_human_or_worm": ("human", "worm"),
    REGULATORY: ("enhancer", "ocr", "promoter"),
}
LIST_HEADER = "id,region,start,end,strand"


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the data folder variable: every test passes its own folder."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def write_folders(root: Path, name: str, counts: dict[str, int]) -> dict[str, list[str]]:
    """Write the official layout; return the sequences of each split, sorted by class and file."""
    written: dict[str, list[str]] = {}
    for number, (split, count) in enumerate(counts.items()):
        for label, kind in enumerate(BENCHMARKS[name].classes):
            texts = random_dna([20 + label] * count, seed=10 * number + label)
            folder = root / name / split / kind
            folder.mkdir(parents=True)
            for row, text in enumerate(texts):
                (folder / f"{row:03d}.txt").write_text(text)
            written.setdefault(split, []).extend(texts)
    return written


def write_lists(root: Path, name: str, rows: dict[str, list[tuple[object, ...]]]) -> None:
    """Write the same interval lists for train and test; `rows` maps a class to (region, start, end, strand)."""
    for split in ("train", "test"):
        for kind, intervals in rows.items():
            lines = [(f"{kind}_{i}", *interval) for i, interval in enumerate(intervals)]
            path = write_csv(root / "datasets" / name / split / f"{kind}.csv", LIST_HEADER, lines)
            (path.parent / f"{kind}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))


def texts_of(splits: Splits) -> list[str]:
    return splits.train.sequences.texts()


def test_nine_datasets_with_sorted_classes() -> None:
    assert len(BENCHMARKS) == 9
    for name, known in BENCHMARKS.items():
        assert tuple(known.classes) == tuple(sorted(known.classes)) == CLASSES.get(name, ("negative", "positive"))
    assert "unknown genomic benchmark 'human_enhancers'; available: demo_coding" in refused(
        lambda: GenomicBenchmark("human_enhancers")
    )


@pytest.mark.parametrize("inner", ["", "genomic_benchmarks"])
def test_official_folders(tmp_path: Path, inner: str) -> None:
    written = write_folders(tmp_path / inner, REGULATORY, {"train": 3, "test": 2})
    splits = GenomicBenchmark(REGULATORY, str(tmp_path)).load()
    assert splits.classes.names == CLASSES[REGULATORY]
    assert texts_of(splits) == written["train"]
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert splits.test is not None
    assert splits.test.sequences.texts() == written["test"]
    assert splits.notes == (
        f"{REGULATORY}: train has 9 rows, 231348 are published",
        f"{REGULATORY}: test has 6 rows, 57713 are published",
    )


def test_faulty_folders(tmp_path: Path) -> None:
    write_folders(tmp_path, REGULATORY, {"train": 2, "test": 1})
    faulty = tmp_path / REGULATORY / "train" / "ocr" / "001.txt"
    faulty.write_text("ACG!")
    assert f"{faulty}: '!' at base 4" in refused(GenomicBenchmark(REGULATORY, str(tmp_path)).load)
    faulty.write_text("\n")
    assert f"{faulty}: no sequence" in refused(GenomicBenchmark(REGULATORY, str(tmp_path)).load)
    faulty.write_text("ACG\n")
    GenomicBenchmark(REGULATORY, str(tmp_path)).load()
    faulty.parent.rename(faulty.parent.with_name("open"))
    message = refused(GenomicBenchmark(REGULATORY, str(tmp_path)).load)
    assert "found folders enhancer, open, promoter" in message


@pytest.mark.parametrize("labels", [("ocr", "enhancer"), ("1", "0")])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_tables_with_class_names_or_numbers(tmp_path: Path, labels: tuple[str, str], suffix: str) -> None:
    for split in ("train", "test"):
        path = write_csv(
            tmp_path / REGULATORY / f"{split}.csv", "sequence,label", zip(("ACG", "GG"), labels, strict=True)
        )
        if suffix == "csv.gz":
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        elif suffix == "parquet":
            pl.read_csv(path).write_parquet(path.with_suffix(".parquet"))
        if suffix != "csv":
            path.unlink()
    splits = GenomicBenchmark(REGULATORY, str(tmp_path)).load()
    assert splits.classes.names == CLASSES[REGULATORY], "classes are those of the dataset, also those without rows"
    assert splits.train.labels.tolist() == [1, 0]
    path = write_csv(tmp_path / REGULATORY / "train.csv", "sequence,label", [("ACG", 3)])
    assert "class '3' is not a training class" in refused(GenomicBenchmark(REGULATORY, str(tmp_path)).load)


def test_error_of_missing_splits_lists_paths_and_alternatives(tmp_path: Path) -> None:
    message = refused(GenomicBenchmark(REGULATORY, str(tmp_path)).load)
    assert "train/<class>/*.txt, train.csv" in message
    assert str(tmp_path / "genomic_benchmarks" / REGULATORY) in message
    assert "https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks" in message
    assert "data.reference=" in message
    assert "set data.root" in refused(GenomicBenchmark(REGULATORY).load)
    assert "no such folder" in refused(GenomicBenchmark(REGULATORY, str(tmp_path / "none")).load)
    write_csv(tmp_path / REGULATORY / "test.csv", "sequence,label,group", [("ACG", "ocr", 7), ("GG", "ocr", 7)])
    source = GenomicBenchmark(REGULATORY, str(tmp_path), within="test")
    assert not source.has_sequences()
    splits = source.load()
    assert texts_of(splits) == ["ACG", "GG"]
    assert splits.test is None
    assert splits.train.groups is not None
    assert splits.train.groups.tolist() == [0, 0]


def test_sequences_from_intervals_and_a_reference(tmp_path: Path) -> None:
    chromosome, other = random_dna([400, 50])
    # Ensembl chromosome names, without "chr", as in the official references.
    reference = write_fasta(tmp_path / "genome.fa", {"1 dna": chromosome, "X": other}, width=60)
    rows: dict[str, list[tuple[object, ...]]] = {
        "negative": [("chr1", 0, 10, "+"), ("chrX", 40, 60, "+"), ("chrX", 40, 60, "-")],
        "positive": [("chr1", 390, 400, "-"), ("chr1", 59, 61, "")],
    }
    write_lists(tmp_path, "human_ocr_ensembl", rows)
    splits = GenomicBenchmark("human_ocr_ensembl", str(tmp_path), reference=str(reference)).load()
    beyond = other[40:] + "N" * 10
    last = slow_reverse_complement(chromosome[390:])
    assert texts_of(splits) == [chromosome[:10], beyond, slow_reverse_complement(beyond), last, chromosome[59:61]]
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.train.intervals is not None
    assert splits.train.intervals.minus.tolist() == [False, False, True, True, False]


def test_datasets_of_two_genomes_read_each_class_from_its_genome(tmp_path: Path) -> None:
    human, worm = random_dna([60, 60])
    write_fasta(tmp_path / "Homo_sapiens.GRCh38.dna.primary_assembly.fa", {"7": human})
    write_lists(tmp_path, "demo_human_or_worm", {"human": [("chr7", 5, 25, "-")], "worm": [("I", 5, 25, "+")]})
    load = GenomicBenchmark("demo_human_or_worm", str(tmp_path), reference=str(tmp_path)).load
    message = refused(load)
    assert "no Caenorhabditis_elegans.WBcel235.dna.toplevel.fa. Download http" in message
    worm_file = write_fasta(tmp_path / "Caenorhabditis_elegans.WBcel235.dna.toplevel.fa", {"I": worm})
    assert texts_of(load()) == [slow_reverse_complement(human[5:25]), worm[5:25]]
    one = GenomicBenchmark("demo_human_or_worm", str(tmp_path), reference=str(worm_file))
    assert "is of two genomes" in refused(one.load)


def test_faulty_interval_lists(tmp_path: Path) -> None:
    name = "human_ocr_ensembl"
    message = refused(GenomicBenchmark(name, str(tmp_path)).load_intervals)
    assert f"no interval list {name}/train/negative.csv.gz" in message
    write_lists(tmp_path, name, {"negative": [("chr1", 5, 3, "+")], "positive": [("chr1", 0, 3, "+")]})
    assert "negative.csv.gz: line 2: interval from 5 to 3" in refused(
        GenomicBenchmark(name, str(tmp_path)).load_intervals
    )
    path = tmp_path / "datasets" / name / "train" / "negative.csv.gz"
    path.write_bytes(gzip.compress(b"chrom,start,end\n1,2,3\n"))
    assert "no column region, strand; found chrom" in refused(GenomicBenchmark(name, str(tmp_path)).load_intervals)


def test_interval_lists_are_read_from_the_download_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference = write_fasta(tmp_path / "g.fa", {"1": "ACGTACGT"})
    for split in ("train", "test"):
        for kind in ("negative", "positive"):
            file = published_list(f"human_ocr_ensembl/{split}/{kind}.csv.gz")
            assert file.url.endswith(f"/datasets/human_ocr_ensembl/{split}/{kind}.csv.gz")
            target = tmp_path / "titans_seq" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.compress(f"{LIST_HEADER}\na,chr1,0,4,+\n".encode()))
    source = GenomicBenchmark("human_ocr_ensembl", reference=str(reference))
    source.prepare()
    assert texts_of(source.load()) == ["ACGT", "ACGT"]


# Tests on the real data.


def test_real_interval_lists_match_the_published_checksums(data_root: Path) -> None:
    folder = data_root / "genomic_benchmarks_coordinates"
    assert {name: len(files) for name, files in GENOMIC_BENCHMARKS.items()} == {
        name: 2 * len(known.classes) for name, known in BENCHMARKS.items()
    }
    for name, files in GENOMIC_BENCHMARKS.items():
        for file, checksum in files.items():
            assert hashlib.sha256((folder / name / file).read_bytes()).hexdigest() == checksum
        splits = GenomicBenchmark(name, str(data_root)).load_intervals()
        assert (len(splits.train), len(splits.test)) == (BENCHMARKS[name].train, BENCHMARKS[name].test)


def test_real_test_files_are_read_row_for_row(data_root: Path) -> None:
    for name in ("human_nontata_promoters", "human_enhancers_cohn"):
        splits = GenomicBenchmark(name, str(data_root), within="test").load()
        with gzip.open(data_root / "genomic_benchmarks" / name / "test.csv.gz", "rt") as handle:
            rows = list(csv.DictReader(handle))
        assert len(rows) == BENCHMARKS[name].test == len(splits.train)
        assert splits.notes == ()
        assert texts_of(splits) == [row["sequence"] for row in rows]
        assert splits.train.labels.tolist() == [int(row["label"]) for row in rows]
        assert splits.train.groups is not None
        groups = [row["group"] for row in rows]
        assert len({*zip(splits.train.groups.tolist(), groups, strict=True)}) == len(set(groups))
        assert "data.within=test" in refused(GenomicBenchmark(name, str(data_root)).load)


def test_the_official_fixture(data_root: Path, tmp_path: Path) -> None:
    """Sequences cut from its reference by the official rule `rev(seq[start:end], strand)`.

    The fixture's own lists name other chromosomes, so intervals on its reference are generated.
    """
    fixture = data_root / "genomic_benchmarks_coordinates" / "_official_test_fixture"
    reference = tmp_path / "test_reference.fa"
    reference.write_bytes(gzip.decompress((fixture / "test_reference.fa.gz").read_bytes()))
    header, _, text = reference.read_text().partition("\n")
    assert (header, len(text)) == (">test", 600)

    name = "human_nontata_promoters"
    message = refused(GenomicBenchmark(name, str(fixture), reference=str(reference)).load)
    assert "negative.csv.gz: line 2: unknown region 'chr16'" in message
    assert "available: test" in message
    lists = GenomicBenchmark(name, str(fixture)).load_intervals()
    assert (len(lists.train), len(lists.test)) == (8, 8)
    assert lists.train.intervals.lengths.tolist() == [251] * 8
    assert lists.train.intervals.minus.tolist() == [False, True, False, False, False, True, False, True]

    # The fixture's strands and lengths, moved to positions within its reference.
    starts = np.linspace(0, 600 - 251, 8).astype(int).tolist()
    strands = ["-" if minus else "+" for minus in lists.train.intervals.minus]
    rows = [("test", start, start + 251, strand) for start, strand in zip(starts, strands, strict=True)]
    write_lists(tmp_path, name, {"negative": rows[:4], "positive": rows[4:]})  # type: ignore[dict-item]
    splits = GenomicBenchmark(name, str(tmp_path), reference=str(reference)).load()
    official = [text[s:e] if strand == "+" else slow_reverse_complement(text[s:e]) for _, s, e, strand in rows]
    assert texts_of(splits) == official


def test_real_intervals_on_a_chromosome_give_the_published_sequences(data_root: Path, tmp_path: Path) -> None:
    """Chromosome 22 of the human_enhancers_cohn test rows: 117 intervals, four of them on the reverse strand.

    The generated chromosome is N except for the published sequences at their published positions.
    """
    name = "human_enhancers_cohn"
    rows = pl.read_csv(data_root / "genomic_benchmarks" / name / "test.csv.gz").filter(pl.col("region") == "chr22")
    assert (len(rows), (rows["strand"] == "-").sum()) == (117, 4)
    chromosome = np.full(50_818_468, ord("N"), dtype=np.uint8)
    for text, start, end, strand in rows.select("sequence", "start", "end", "strand").iter_rows():
        forward = slow_reverse_complement(text) if strand == "-" else text
        chromosome[start:end] = np.frombuffer(forward.encode(), dtype=np.uint8)
    # Lines of 1,000 bases; the last one is shorter.
    whole = len(chromosome) // 1000 * 1000
    lines = np.column_stack([chromosome[:whole].reshape(-1, 1000), np.full(whole // 1000, ord("\n"), dtype=np.uint8)])
    reference = tmp_path / "genome.fa"
    reference.write_bytes(b">22 dna:chromosome\n" + lines.tobytes() + chromosome[whole:].tobytes() + b"\n")

    for kind in ("negative", "positive"):
        path = data_root / "genomic_benchmarks_coordinates" / name / "test" / f"{kind}.csv.gz"
        only = pl.read_csv(path).filter(pl.col("region") == "chr22")
        target = tmp_path / "datasets" / name / "test" / f"{kind}.csv.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(only.write_csv().encode()))
    splits = GenomicBenchmark(name, str(tmp_path), reference=str(reference), within="test").load()
    published = dict(zip(zip(rows["start"], rows["label"], strict=True), rows["sequence"], strict=True))
    assert splits.train.intervals is not None
    keys = zip(splits.train.intervals.starts.tolist(), splits.train.labels.tolist(), strict=True)
    assert texts_of(splits) == [published[key] for key in keys]
    assert len(splits.train) == 117


def test_overlaps_of_the_real_intervals_occur_in_the_real_sequences(data_root: Path) -> None:
    """Overlapping intervals of the human_nontata_promoters test rows have the same bases where they overlap.

    The sequence file has no coordinates: this holds only for 0-based starts, exclusive ends and the strands as read.
    """
    source = GenomicBenchmark("human_nontata_promoters", str(data_root), within="test")
    length, least = 251, 60  # length of a row, and of an overlap that is too long to occur by chance
    texts = texts_of(source.load())
    other = [slow_reverse_complement(text) for text in texts]
    begins = defaultdict(list)  # first bases of a row, on either strand
    for text, flipped in zip(texts, other, strict=True):
        begins[text[:least]].append((text, False))
        begins[flipped[:least]].append((flipped, True))
    found = Counter(
        (flipped, offset)
        for text in texts
        for offset in range(1, length - least + 1)
        for candidate, flipped in begins.get(text[offset : offset + least], ())
        if candidate.startswith(text[offset:])
    )

    places = source.load_intervals().test.intervals
    order = np.lexsort((places.starts, places.regions)).tolist()
    implied: Counter[tuple[bool, int]] = Counter()
    for position, first in enumerate(order):
        for second in order[position + 1 :]:
            offset = int(places.starts[second] - places.starts[first])
            if places.regions[first] != places.regions[second] or offset > length - least:
                break
            flipped = bool(places.minus[first] != places.minus[second])
            # Forward strand: the later row begins `offset` bases into the earlier one. Reverse strand: vice versa.
            if offset:
                implied[flipped, offset] += int(not places.minus[first]) + int(places.minus[second])
    assert sum(count for (flipped, _), count in implied.items() if flipped) == 26
    assert implied.total() > 7500
    assert implied <= found
    assert found.total() - implied.total() < 20, "only genomic repeats may add matches"
