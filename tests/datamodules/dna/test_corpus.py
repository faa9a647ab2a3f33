"""Corpora of unlabelled DNA: memory-mapped reading, duplicates, exclusion and splits without shared bases."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.dna.datasets.simulated_genome import BEST_BITS, simulated_genome
from datamodules.dna.pretraining.corpus import Corpus, GenomeCorpus, LoadedCorpus, joined
from datamodules.dna.pretraining.datamodule import split_corpus
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import decode
from tests.datamodules.dna.dna_reference import place, random_dna, refused, slow_encode, write_fasta


def loaded(*texts: str) -> LoadedCorpus:
    return LoadedCorpus("mine", Sequences.read(texts, place))


@pytest.mark.parametrize("width", [1, 7, 50])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_mapped_genome_equals_the_file(tmp_path: Path, width: int, newline: str) -> None:
    texts = random_dna([40, 7, 1, 23], letters="ACGTNacgtn")
    path = write_fasta(tmp_path / "genome.fa", {f"chr{i} note": text for i, text in enumerate(texts)}, width)
    path.write_bytes(path.read_text().replace("\n", newline).encode())
    corpus = GenomeCorpus(path)
    assert corpus.names == ["chr0", "chr1", "chr2", "chr3"]
    assert corpus.lengths.tolist() == [40, 7, 1, 23]
    for record, text in enumerate(texts):
        for start in range(0, len(text), 3):
            for end in range(start, len(text) + 1):
                assert corpus.read(record, start, end).tolist() == slow_encode(text[start:end])


def test_genome_is_checked_when_opened(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "genome.fa", {"chr1": "ACGTACGT", "chr2": "ACGTRYAC"})
    assert GenomeCorpus(path).notes == ("genome.fa: 2 IUPAC letters other than A, C, G, T, N were read as N",)
    assert loaded("ACGTRYAC", "AC").notes == ("mine: 2 IUPAC letters other than A, C, G, T, N were read as N",)
    path = write_fasta(tmp_path / "rna.fa", {"chr1": "ACGTACGT", "chr2": "ACGUA"})
    line = refused(lambda: GenomeCorpus(path))
    assert "rna.fa: record 'chr2'" in line
    assert "data.rna=true" in line
    assert decode(GenomeCorpus(path, rna=True).read(1, 0, 5)) == "ACGTA"
    assert "no such FASTA file" in refused(lambda: GenomeCorpus(tmp_path / "nowhere.fa"))


def test_duplicates_are_left_out_and_counted() -> None:
    corpus = loaded("ACGT", "GATT", "ACGT", "ACG")
    assert [decode(corpus.sequences[row]) for row in range(3)] == ["ACGT", "GATT", "ACG"]
    assert corpus.names == ["0", "1", "3"]
    assert corpus.notes == ("mine: 1 of 4 sequences are duplicates of others, on either strand; left out",)
    again = joined([corpus, loaded("GATT", "CCCC")])
    assert list(again.names) == ["mine:0", "mine:1", "mine:3", "mine:1"]
    assert again.notes[-1] == "mine + mine: 1 of 5 sequences are duplicates of others, on either strand; left out"
    opposite = loaded("ACG", "GATT", "CGT", "AATC", "ACGT")
    assert [decode(opposite.sequences[row]) for row in range(3)] == ["ACG", "GATT", "ACGT"]


def test_duplicates_in_a_mapped_file_are_left_out(tmp_path: Path) -> None:
    texts = ["ACG", "GATTACA", "cgt", "TGTAATC", "ACGT", "GATTAC", "GATTACA"]
    path = write_fasta(tmp_path / "a.fa", {f"r{i}": text for i, text in enumerate(texts)}, width=2)
    corpus = GenomeCorpus(path)
    assert corpus.names == ["r0", "r1", "r4", "r5"]
    assert corpus.lengths.tolist() == [3, 7, 4, 6]
    assert [decode(corpus.read(record, 0, 3)) for record in range(4)] == ["ACG", "GAT", "ACG", "GAT"]
    assert corpus.notes == ("a.fa: 3 of 7 sequences are duplicates of others, on either strand; left out",)


def test_excluded_sequences_are_left_out_of_every_file(tmp_path: Path) -> None:
    genome = GenomeCorpus(write_fasta(tmp_path / "a.fa", {"r0": "ACGTT", "r1": "GATTACA", "r2": "GATTACC"}))
    held_out = Sequences.read(["TGTAATC", "CCC", "ACGT"], place)
    rest = genome.without(held_out)
    assert rest.names == ["r0", "r2"]
    assert rest.notes == ("a.fa: 1 of 3 sequences are identical to ones in data.exclude; left out",)
    assert genome.names == ["r0", "r1", "r2"]
    both = joined([genome, loaded("GGG", "ACGG")]).without(held_out)
    assert list(both.names) == ["a.fa:r0", "a.fa:r2", "mine:1"]
    assert decode(both.read(1, 0, 7)) == "GATTACC"
    alone = Sequences.read(["ACGTT", "GATTACA", "GATTACC"], place)
    assert "a.fa: all 3 sequences are in data.exclude" in refused(lambda: genome.without(alone))
    assert "all 1 sequences" in refused(lambda: loaded("ACGTT").without(alone))


def test_joined_corpora_read_from_their_parts(tmp_path: Path) -> None:
    genome = GenomeCorpus(write_fasta(tmp_path / "genome.fa", {"chr1": "ACGTACGT", "chr2": "TTTTT"}))
    both = joined([genome, loaded("GATTACA"), genome])
    assert [decode(both.read(record, 1, 4)) for record in range(5)] == ["CGT", "TTT", "ATT", "CGT", "TTT"]
    assert both.lengths.tolist() == [8, 5, 7, 8, 5]
    assert joined([genome]) is genome
    assert (
        "duplicates across these files are not removed, as one is memory-mapped: they can cross splits"
        in both.notes[-1]
    )


def bases_of(corpus: Corpus, **options: object) -> dict[str, set[tuple[int, int]]]:
    """(record, position) of every base of each split."""
    splits = split_corpus(corpus, **options)  # type: ignore[arg-type]
    return {
        split: {(r, b) for r, s, e in zip(*map(np.ndarray.tolist, part), strict=True) for b in range(s, e)}
        for split, part in splits.items()
    }


@pytest.mark.parametrize("unit", ["record", "end"])
def test_every_base_is_in_one_split(unit: str) -> None:
    corpus = loaded(*random_dna(range(11, 51)))
    splits = bases_of(corpus, unit=unit, fraction=0.1)
    assert sum(map(len, splits.values())) == corpus.lengths.sum()
    assert set.union(*splits.values()) == {(r, b) for r, n in enumerate(corpus.lengths.tolist()) for b in range(n)}
    for split in ("validation", "test"):
        assert 0.05 < len(splits[split]) / corpus.lengths.sum() < 0.15
    if unit == "end":
        for record, length in enumerate(corpus.lengths.tolist()):
            assert (record, length - 1) in splits["test"]
            assert (record, 0) in splits["train"]


def test_split_of_n_only_is_an_error() -> None:
    corpus = loaded("ACGTN", "N" * 9, "NNGN", "N" * 7)
    line = refused(lambda: split_corpus(corpus, validation_records=["0"], test_records=["2"]))
    assert "mine: train: every base is N, in 2 streams, the first of record '1'" in line
    line = refused(lambda: split_corpus(corpus, validation_records=["1", "3"], test_records=["2"]))
    assert "validation: every base is N" in line
    assert "data.validation_records" in line
    ends = loaded("ACGTACGTNN", "TTTTACGTNN")
    assert "test: every base is N" in refused(lambda: split_corpus(ends, unit="end", fraction=0.2))
    assert split_corpus(ends, unit="end", fraction=0.3)["test"].lengths.tolist() == [3, 3]


def test_split_without_target_bases_is_an_error() -> None:
    corpus = loaded("ACGTACGTAC", "TTTTACGTGC", "ACG", "GGCA")
    line = refused(lambda: split_corpus(corpus, validation_records=["3"], test_records=["2"], context_only=3))
    assert "mine: test: every base after the first 3 of each stream is N, or there is none, in 1 streams" in line
    line = refused(lambda: split_corpus(corpus, validation_records=["3"], test_records=["0"], context_only=4))
    assert "mine: validation: every base after the first 4" in line
    assert len(split_corpus(corpus, validation_records=["3"], test_records=["2"], context_only=2)) == 3


def test_records_are_held_out_by_name(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "genome.fa", {f"chr{i}": "ACGT" * i for i in range(1, 6)})
    corpus = GenomeCorpus(path)
    splits = bases_of(corpus, validation_records=["chr2"], test_records=["chr5", "chr1"])
    assert {record for record, _ in splits["validation"]} == {1}
    assert {record for record, _ in splits["test"]} == {0, 4}
    assert {record for record, _ in splits["train"]} == {2, 3}
    line = refused(lambda: split_corpus(corpus, validation_records=["2"], test_records=["chr1"]))
    assert "held-out record '2' has no rows; expected one of: chr1 (1 rows)" in line
    assert "data.test_records" in refused(lambda: split_corpus(corpus, validation_records=["chr2"]))
    assert "data.unit=end" in refused(lambda: split_corpus(loaded("ACGT", "AAAA")))
    assert "too few to hold out two ends of data.fraction=0.4" in refused(
        lambda: split_corpus(loaded("ACGT", "AA"), unit="end", fraction=0.4)
    )


def test_simulated_genome_has_tandem_repeats() -> None:
    corpus = simulated_genome()
    assert len(corpus.names) == 120
    assert corpus.notes == ()
    best = []
    for record in range(20):
        bases = corpus.read(record, 0, 2048)
        same = [float((bases[lag:] == bases[:-lag]).mean()) for lag in range(1, 49)]
        best.append(max(same))
        assert 24 <= 1 + int(np.argmax(same)) <= 48
    # Two copies agree where neither is mutated, or both have the same mutation.
    assert np.mean(best) == pytest.approx(0.8**2 + 0.2**2 / 3, abs=0.03)
    assert pytest.approx(1.039, abs=0.001) == BEST_BITS
