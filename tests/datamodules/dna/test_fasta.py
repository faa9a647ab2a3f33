"""FASTA and BED files of users: sequences, labels, windows, and error messages for faulty files."""

import gzip
import stat
from pathlib import Path

import numpy as np
import pytest

from datamodules.dna.datasets.fasta import BedWindows, LabelledFasta, read_bed, read_fasta
from datamodules.dna.genome import Genome
from datamodules.dna.intervals import Intervals
from tests.datamodules.dna.dna_reference import (
    place,
    random_dna,
    refused,
    slow_reverse_complement,
    write_csv,
    write_fasta,
)

CHR1, CHR2 = random_dna([200, 90], letters="ACGTN")


def intervals(*rows: tuple[str, int, int, str]) -> Intervals:
    regions, starts, ends, strands = zip(*rows, strict=True)
    return Intervals(np.array(regions), np.array(starts), np.array(ends), np.array(strands) == "-")


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "genome.fa", {"chr1 first": CHR1, "chr2": CHR2.lower()})


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("compressed", [False, True])
def test_records_are_read_completely(tmp_path: Path, ending: str, compressed: bool) -> None:
    text = "\n>a label=x\nACG\nTT\n>b  two words label=y\n\nGG\n\n>c label=x\nN".replace("\n", ending)
    path = tmp_path / ("a.fa.gz" if compressed else "a.fa")
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert read_fasta(path) == (["a label=x", "b  two words label=y", "c label=x"], ["ACGTT", "GG", "N"])
    splits = LabelledFasta(str(path)).load()
    assert splits.train.labels.tolist() == [0, 1, 0]
    assert splits.classes.names == ("x", "y")


def test_labels_from_a_table_or_by_a_pattern(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "a.fa", {"s1|pos": "ACGT", "s2|neg": "GG"})
    by_pattern = LabelledFasta(str(path), header_label=r"\|(\w+)$").load()
    assert by_pattern.classes.names == ("neg", "pos")
    assert by_pattern.train.labels.tolist() == [1, 0]
    table = write_csv(tmp_path / "l.csv", "id,label", [("s2|neg", "u"), ("s1|pos", "v"), ("other", "w")])
    by_table = LabelledFasta(str(path), labels=str(table)).load()
    assert by_table.train.labels.tolist() == [1, 0]

    blank = write_csv(tmp_path / "b.csv", "id,label", [("s2|neg ", " u"), ("s1|pos", "u ")])
    assert "found only 'u'" in refused(LabelledFasta(str(path), labels=str(blank)).load)
    path_of_letters = tmp_path / "u.fa"
    path_of_letters.write_text(">a label=Åenh\nACGT\n>b label=bg\nACG\n", encoding="utf-8")
    assert LabelledFasta(str(path_of_letters)).load().classes.names == ("bg", "Åenh")

    short = write_csv(tmp_path / "s.csv", "id,label", [("s2|neg", "u")])
    assert "record 's1|pos' has no row in" in refused(LabelledFasta(str(path), labels=str(short)).load)
    twice = write_csv(tmp_path / "t.csv", "id,label", [("s1|pos", "u"), ("s1|pos", "v")])
    assert "line 3: duplicate id 's1|pos' with 'v'; an earlier row has 'u'" in refused(
        LabelledFasta(str(path), labels=str(twice)).load
    )
    wrong = write_csv(tmp_path / "w.csv", "name,label", [("s1", "u")])
    assert refused(LabelledFasta(str(path), labels=str(wrong)).load).endswith("no column 'id'; found name, label")
    assert "Set data.label to one" in refused(LabelledFasta(str(path), labels=str(short), label="kind").load)


def test_table_of_labels_with_groups_and_intervals(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "a.fa", {"r1": "ACGT", "r2": "GG", "r3": "TT"})
    columns = "id,kind,gene,region,start,end"
    lines = [("r3", "x", "g2", "chr2", 5, 7), ("r1", "y", "g1", "chr1", 0, 4), ("r2", "x", "g2", "chr1", 9, 11)]
    table = write_csv(tmp_path / "l.csv", columns, [*lines, lines[0]])
    train = LabelledFasta(str(path), labels=str(table), label="kind", group="gene").load().train
    assert train.labels.tolist() == [1, 0, 0]
    assert train.groups is not None
    assert train.groups.tolist() == [0, 1, 1]
    assert train.intervals is not None
    assert train.intervals.regions.tolist() == ["chr1", "chr1", "chr2"]
    assert train.intervals.starts.tolist() == [0, 9, 5]

    for column, other in ((2, "g3"), (4, 6)):
        again = [*lines[0][:column], other, *lines[0][column + 1 :]]
        twice = write_csv(tmp_path / "t.csv", columns, [*lines, again])
        message = refused(LabelledFasta(str(path), labels=str(twice), label="kind", group="gene").load)
        assert "line 5: duplicate id 'r3' with " in message
    plain = LabelledFasta(str(path), labels=str(table), label="kind").load()
    assert plain.train.groups is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ACGT\n>a\nAC\n", "begins with 'ACGT"),
        ("", "begins with ''"),
        (">a label=x\nAC\n>b label=y\n>c label=x\nGG\n", "record 2, 'b label=y': a header without a sequence"),
        (">a label=x\nAC\n>\nGG\n", "record 2: '>' without a name"),
        (">a label=x\nAC\n>b\nGG\n", "header 'b' has no label"),
        (">a label=x\nAC\n>b label=y\nGEG\n", "record 'b': 'E' at base 2 is not a DNA letter"),
        (">a label=x\nAC\n>b label=y\nGGU\n", "data.rna=true"),
    ],
)
def test_faulty_fasta_is_an_error(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "a.fa"
    path.write_text(text)
    message = refused(LabelledFasta(str(path)).load)
    assert message.startswith(str(path))
    assert wanted in message


def test_faulty_options_and_files(tmp_path: Path) -> None:
    assert "is not a valid regular expression" in refused(lambda: LabelledFasta("a.fa", header_label="("))
    assert "has no group" in refused(lambda: LabelledFasta("a.fa", header_label="label"))
    assert "not a readable FASTA" in refused(LabelledFasta(str(tmp_path / "none.fa")).load)
    (tmp_path / "torn.fa.gz").write_bytes(gzip.compress(b">a\nACGT\n" * 100)[:-9])
    assert "not a readable FASTA" in refused(LabelledFasta(str(tmp_path / "torn.fa.gz")).load)


def test_intervals_equal_plain_slices_on_both_strands(genome: Path) -> None:
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(300):
        name, text = [("chr1", CHR1), ("chr2", CHR2)][rng.integers(2)]
        start, end = sorted(rng.choice(len(text) + 1, 2, replace=False).tolist())
        rows.append((name, start, end, "+-"[rng.integers(2)]))
    for (name, start, end, strand), text in zip(rows, Genome(genome).texts(intervals(*rows), place), strict=True):
        expected = {"chr1": CHR1, "chr2": CHR2}[name][start:end]
        assert text.upper() == (slow_reverse_complement(expected) if strand == "-" else expected)


def test_intervals_beyond_the_ends_are_an_error_or_padded_with_n(genome: Path) -> None:
    over = intervals(("chr2", 80, 95, "+"), ("chr2", 80, 95, "-"), ("chr2", -3, 4, "+"), ("chr2", 0, 90, "+"))
    texts = [text.upper() for text in Genome(genome).texts(over, place, out_of_bounds="N")]
    assert texts[0] == CHR2[80:] + "N" * 5
    assert texts[1] == slow_reverse_complement(CHR2[80:] + "N" * 5)
    assert texts[2] == "NNN" + CHR2[:4]
    assert texts[3] == CHR2
    message = refused(lambda: Genome(genome).texts(over, place))
    assert "row 0: chr2:80-95 extends beyond 'chr2'" in message
    assert "has 90 bases; 3 such intervals. Check that both are of the same assembly. Set data.beyond=N" in message
    assert message.endswith("data.beyond=N to pad with N.")
    outside = intervals(("chr2", 90, 95, "+"))
    assert "chr2:90-95" in refused(lambda: Genome(genome).texts(outside, place, out_of_bounds="N"))


def test_chromosome_aliases_are_matched_only_on_request(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", {"1": "ACGT", "MT": "GG", "ENST001.7": "TT"})
    rows = intervals(("chr1", 1, 3, "+"), ("chrM", 0, 2, "+"), ("ENST001", 0, 1, "+"), ("1", 0, 1, "+"))
    assert Genome(path, aliases=True).texts(rows, place) == ["CG", "GG", "T", "A"]
    message = refused(lambda: Genome(path).texts(rows, place))
    assert "row 0: unknown region 'chr1'" in message
    assert "available: 1, MT, ENST001.7" in message
    assert "data.aliases=true" in message
    unknown = intervals(("1", 0, 1, "+"), ("chr7", 0, 1, "+"))
    message = refused(lambda: Genome(path, aliases=True).texts(unknown, place))
    assert "row 1: unknown region 'chr7'" in message
    assert "aliases=true" not in message


def test_genome_that_cannot_be_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such FASTA file" in refused(lambda: Genome(tmp_path / "none.fa"))
    (tmp_path / "a.fa.gz").write_bytes(gzip.compress(b">a\nACGT\n"))
    assert "gunzip --keep" in refused(lambda: Genome(tmp_path / "a.fa.gz"))
    for number, text in enumerate(["", "ACGT\n", ">a\nAC\n>a\nGG\n", ">a\nACG\nA\nACG\n", ">a\nACG\nA\nGG\n\n\n"]):
        path = tmp_path / f"bad{number}.fa"
        path.write_text(text)
        line = refused(lambda path=path: Genome(path))  # type: ignore[misc]
        assert "this FASTA file cannot be indexed" in line
        assert "github" not in line
    (tmp_path / "bom.fa").write_bytes(b"\xef\xbb\xbf>a\nACGT\n")
    assert "byte order mark" in refused(lambda: Genome(tmp_path / "bom.fa"))
    (tmp_path / "cr.fa").write_bytes(b">a\rACGT\rACGT\r")
    assert "carriage return alone" in refused(lambda: Genome(tmp_path / "cr.fa"))
    monkeypatch.setitem(__import__("sys").modules, "pyfaidx", None)
    assert "pip install 'titans-seq[genomics]'" in refused(lambda: Genome(write_fasta(tmp_path / "g.fa", {"a": "AC"})))


@pytest.mark.parametrize(
    "text", [">a\nACG\nACGTT\n>b\nAC\n", ">a\nACG\nACGACG\n", ">a\nACG\nACGACGA", ">a\r\nAC\r\nACG"]
)
def test_record_whose_last_line_is_its_longest_is_an_error(tmp_path: Path, text: str) -> None:
    """The index locates a base by the length of the record's first line."""
    path = tmp_path / "a.fa"
    path.write_bytes(text.encode())
    for _ in range(2):
        assert "lines of one length within a record" in refused(lambda: Genome(path))


@pytest.mark.parametrize("before", ["", "\n", "; made by\n; hand\n"])
@pytest.mark.parametrize("after", ["", "\n", "\n\n"])
def test_blank_lines_and_comments_around_records_are_ignored(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "a.fa"
    path.write_text(f"{before}>a x\nACG\nTT\n\n>b\nACG\nGTA{after}")
    for _ in range(2):
        wanted = intervals(("a", 2, 5, "+"), ("b", 2, 6, "+"))
        assert Genome(path).texts(wanted, place) == ["GTT", "GGTA"]


def test_changed_genome_is_indexed_again(tmp_path: Path) -> None:
    import os

    path = write_fasta(tmp_path / "g.fa", {"a": "ACGT"})
    assert Genome(path).length("a") == 4
    write_fasta(path, {"b": "GG", "a": "ACGTACG"})
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))
    assert Genome(path).names == ["b", "a"]
    assert Genome(path).texts(intervals(("a", 3, 7, "+")), place) == ["TACG"]


def test_index_of_a_replaced_file_is_rebuilt(tmp_path: Path) -> None:
    """A genome copied with its modification time can be older than the index of the file that it replaces."""
    import os

    records = {f"r{k}": text for k, text in enumerate(random_dna([70, 33, 64], seed=3))}
    wanted = intervals(("r0", 5, 40, "+"), ("r1", 0, 33, "-"), ("r2", 60, 64, "+"))
    for width in (11, 12, 7):
        path = write_fasta(tmp_path / "g.fa", records, width=width)
        os.utime(path, (1, 1))
        texts = Genome(path).texts(wanted, place)
        assert texts == [records["r0"][5:40], slow_reverse_complement(records["r1"]), records["r2"][60:]]
    path = write_fasta(tmp_path / "g.fa", {"r0": records["r1"], "r9": records["r0"], "r2": records["r2"]}, width=7)
    os.utime(path, (1, 1))
    assert Genome(path).names == ["r0", "r9", "r2"]
    index = path.with_name("g.fa.fai")
    before = index.stat().st_mtime_ns
    assert Genome(path).names == ["r0", "r9", "r2"]
    assert index.stat().st_mtime_ns == before, "a valid index must be kept"


def test_index_is_cached_if_the_folder_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "shared"
    path = write_fasta(folder / "g.fa", {"a": "ACGT"})
    # Root may write anywhere, whatever the permission bits, so os.access is patched.
    monkeypatch.setattr("datamodules.dna.genome.os.access", lambda where, _: Path(where) != folder)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert Genome(path).texts(intervals(("a", 1, 3, "-")), place) == ["CG"]
    finally:
        folder.chmod(stat.S_IRWXU)
    assert [file.name for file in folder.iterdir()] == ["g.fa"]
    assert len(list((tmp_path / "cache" / "titans_seq" / "fasta").iterdir())) == 1


def test_bed_windows_are_centred_and_labelled_by_name_or_file(tmp_path: Path, genome: Path) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text(
        "# comment\ntrack name=x\nchr1\t50\t60\tpos\t0\t-\n\nchr2 10 21 neg\nchr1\t100\t104\tneg\t.\t+\textra\n"
    )
    splits = BedWindows(str(genome), str(bed), length=10).load()
    assert splits.train.sequences.texts() == [slow_reverse_complement(CHR1[50:60]), CHR2[10:20], CHR1[97:107]]
    assert splits.classes.names == ("neg", "pos")
    assert splits.train.labels.tolist() == [1, 0, 0]
    assert splits.train.intervals is not None
    assert splits.train.intervals.regions.tolist() == ["chr1", "chr2", "chr1"]
    whole = BedWindows(str(genome), str(bed)).load()
    assert whole.train.sequences.texts()[1:] == [CHR2[10:21], CHR1[100:104]]

    other = tmp_path / "b.bed"
    other.write_text("chr2\t0\t4\n")
    by_file = BedWindows(str(genome), {"peak": str(bed), "background": str(other)}).load()
    assert by_file.classes.names == ("background", "peak")
    assert by_file.train.labels.tolist() == [1, 1, 1, 0]
    assert by_file.train.sequences.texts()[3] == CHR2[:4]


def test_one_chromosome_under_two_names_is_one_region(tmp_path: Path, genome: Path) -> None:
    bed = tmp_path / "a.bed.gz"
    rows = [f"{name}\t{start}\t{start + 9}\t{'ab'[start % 2]}" for name in ("chr1", "1", "2") for start in range(40)]
    bed.write_bytes(gzip.compress("\r\n".join(rows).encode()))
    splits = BedWindows(str(genome), str(bed), aliases=True).load()
    assert splits.train.intervals is not None
    assert splits.train.intervals.regions.tolist() == ["chr1"] * 80 + ["chr2"] * 40


def test_bed_sixth_column_that_is_not_a_strand(genome: Path, tmp_path: Path) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text("chr1\t5\t9\ta\tEH38\tpELS,CTCF\nchr1\t6\t9\tb\tEH39\tdELS\n")
    train = BedWindows(str(genome), str(bed)).load().train
    assert train.sequences.texts() == [CHR1[5:9].upper(), CHR1[6:9].upper()]


def test_windows_of_rna(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "rna.fa", {"t1": "ACGUACGU"})
    bed = tmp_path / "a.bed"
    bed.write_text("t1\t0\t4\ta\t0\t+\nt1\t2\t8\tb\t0\t-\n")
    assert "data.rna=true" in refused(BedWindows(str(path), str(bed)).load)
    assert BedWindows(str(path), str(bed), rna=True).load().train.sequences.texts() == ["ACGT", "ACGTAC"]
    bed.write_text("t1\t0\t4\ta\t0\t-\nt1\t2\t8\tb\t0\t-\n")
    assert "data.rna=true" in refused(BedWindows(str(path), str(bed)).load), "U on the minus strand only"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "chr1\t5\t9\ta\nchr1\t9\t5\tb\n",
            "line 2: expected chromosome, start, end with 0 <= start < end (0-based); got 'chr1\\\\t9\\\\t5\\\\tb'",
        ),
        ("chr1\t-5\t9\ta\n", "line 1"),
        ("chr1\t5\t9\ta\t0\t-\nchr1\t5\t9\tb\t0\t-1\n", "line 2: strand '-1' in the sixth column"),
        ("chr1\t5\n", "line 1"),
        ("chr1\n", "line 1"),
        ("chr1\t1.5\t9\ta\n", "line 1"),
        ("chr1\t5\t9\n", "line 1: no fourth column"),
        ("# nothing\n", "no intervals"),
        ("chr1\t5\t9\ta\nchr1\t5\t9\ta\n", "found only 'a'"),
        ("chr1\t5\t9\ta\nchr1\t5\t900\tb\n", "line 2: chr1:5-900 extends beyond 'chr1'"),
        ("chr1\t5\t9\ta\n3\t5\t9\tb\n", "line 2: unknown region '3'"),
    ],
)
def test_faulty_bed_is_an_error(tmp_path: Path, genome: Path, text: str, wanted: str) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text(text)
    message = refused(BedWindows(str(genome), str(bed)).load)
    assert message.startswith(str(bed))
    assert wanted.encode().decode("unicode_escape") in message


def test_faulty_bed_options(tmp_path: Path) -> None:
    assert "data.length must be at least 1" in refused(lambda: BedWindows("g.fa", "a.bed", length=0))
    assert "not a readable BED file" in refused(lambda: read_bed(tmp_path / "none.bed", labelled=True))
