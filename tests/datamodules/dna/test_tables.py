"""Tables of labelled sequences and their classes: reading, and error lines with file and line number."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from datamodules.dna.classification.classes import Classes
from datamodules.dna.datasets.catalogue import read_unlabelled
from datamodules.dna.datasets.table import SequenceTable, read_records
from tests.datamodules.dna.dna_reference import place, refused, write_csv

ROWS = [("ACGT", "b", "g1"), ("acg", "a", "g2"), ("NNA", "b", "g1"), ("TTTTT", "a", "g3")]


def as_csv(folder: Path, name: str = "train.csv") -> Path:
    return write_csv(folder / name, "sequence,label,group", ROWS)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "parquet"])
def test_all_file_formats_give_the_same_rows(tmp_path: Path, form: str) -> None:
    path = as_csv(tmp_path)
    if form == "csv.gz":
        (tmp_path / "train.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    elif form == "tsv":
        (tmp_path / "train.tsv").write_text(path.read_text().replace(",", "\t"))
    elif form == "parquet":
        pl.read_csv(path).write_parquet(tmp_path / "train.parquet")
    splits = SequenceTable(str(tmp_path / f"train.{form}"), group="auto").load()
    assert splits.train.sequences.texts() == ["ACGT", "ACG", "NNA", "TTTTT"]
    assert splits.classes.names == ("a", "b")
    assert splits.train.labels.tolist() == [1, 0, 1, 0]
    assert splits.train.groups is not None
    assert splits.train.groups.tolist() == [0, 1, 0, 2]
    assert (splits.validation, splits.test) == (None, None)


def test_rows_without_a_group_become_their_own_group(tmp_path: Path) -> None:
    rows = [("ACGT", "b", "g1"), ("acg", "a", ""), ("NNA", "b", "g1"), ("TTTTT", "a", " ")]
    splits = SequenceTable(str(write_csv(tmp_path / "a.csv", "sequence,label,group", rows)), group="group").load()
    assert splits.train.groups is not None
    first, second, third, fourth = splits.train.groups.tolist()
    assert first == third
    assert len({first, second, fourth}) == 3
    assert splits.notes == ("a.csv: 2 rows have no group; each is a group of its own",)


def test_windows_line_ends_and_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,seq,kind\r\n1,ACGT,x\r\n2,GG,y\r\n")
    splits = SequenceTable(str(path), sequence="seq", label="kind").load()
    assert splits.train.sequences.texts() == ["ACGT", "GG"]
    assert splits.classes.names == ("x", "y")


def test_validation_and_test_use_the_training_classes(tmp_path: Path) -> None:
    train = as_csv(tmp_path)
    test = write_csv(tmp_path / "test.csv", "sequence,label", [("AC", "b")])
    splits = SequenceTable(str(train), test=str(test)).load()
    assert splits.test is not None
    assert splits.test.labels.tolist() == [1]

    unseen = write_csv(tmp_path / "more.csv", "sequence,label", [("AC", "b"), ("AC", "c"), ("AC", "d")])
    message = refused(SequenceTable(str(train), test=str(unseen)).load)
    assert f"{unseen}: line 3: class 'c' is not a training class (a, b); 2 rows of c, d" in message


def test_ambiguous_letters_are_noted_once_per_dataset(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "sequence,label", [("ACR", 0), ("YYT", 1)])
    assert SequenceTable(str(path)).load().notes == ("a.csv: 3 IUPAC letters other than A, C, G, T, N were read as N",)


def test_na_strings_are_read_as_names_with_a_note(tmp_path: Path) -> None:
    rows = [("ACG", "HA", "a"), ("CCT", "NA", "nan"), ("GG", "NA", "nan")]
    splits = SequenceTable(str(write_csv(tmp_path / "a.csv", "sequence,label,group", rows)), group="auto").load()
    assert splits.classes.names == ("HA", "NA")
    assert splits.notes == (
        "a.csv: 2 rows have 'NA', which is read as a class of that name",
        "a.csv: 2 rows have 'nan', which is read as a group of that name",
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sequence,label\nACGT,0\nACQT,1\n", "line 3: 'Q' at base 3 is not a DNA letter"),
        ("sequence,label\nACGT,0\n,1\n", "line 3: no sequence; 1 rows"),
        ("sequence,label\nACGT,0\nNA,1\n nan ,1\n", "line 3: no sequence (NA); 2 rows"),
        ("sequence,label\nACGT,0\nAC,\nG,1\n", "line 3: no label; 1 rows"),
        ("sequence,label\nACGT,0\nAC,0\n", ": found only '0' among 2 labels"),
        ("sequence,label\n", "no rows below the header"),
        ("seq,label\nAC,0\n", "no column 'sequence'; found seq, label. Set data.sequence"),
        ("sequence,y\nAC,0\n", "no column 'label'; found sequence, y. Set data.label"),
        ("sequence,label\nAC,0\nAC,0,7\n", "not a readable CSV file: line 3 has 3 fields; the header has 2"),
        ("sequence;label\nAC;0\n", "columns must be separated by commas in .csv, tabs in .tsv; got ';'"),
        ("sequence\tlabel\nAC\t0\n", "columns must be separated by commas in .csv, tabs in .tsv; got '\\t'"),
        ("sequence;label\nAC;0,5\n", "columns must be separated by commas in .csv, tabs in .tsv; got ';'"),
        ("sequence,label\rAC,0\rGG,1\r", "lines must end with a line feed; got carriage returns alone"),
        ("", "not a readable CSV file"),
        ('"a\nb",c\nAC,0\n', "no column 'sequence'; found 'a\\nb', c."),
        ('sequence,label\nAC,0\nGG,"x\ny"\nT,\n', "no label"),
        ("sequence,label,region,start,end\nAC,0,chr1,1,2\nAC,1,chr1,x,2\n", "line 3: start is 'x'"),
        ("sequence,label,region,start,end\nAC,0,chr1,1,2\nAC,1,chr1,5,5\n", "line 3: interval from 5 to 5"),
        ("sequence,label,region,start,end\nAC,0,chr1,1,2\nAC,1,,5,7\n", "line 3: no region"),
        ("sequence,label,region,start,end\nAC,0,chr1,1,2\nAC,1, ,5,7\n", "line 3: no region"),
        ("sequence,label,region,start,end,strand\nAC,0,c,1,2,+\nAC,1,c,5,7,x\n", "line 3: strand 'x'"),
    ],
)
def test_error_names_file_and_line(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "user.csv"
    path.write_text(text)
    message = refused(SequenceTable(str(path)).load)
    assert message.startswith(str(path))
    assert wanted in message


def test_file_names_are_not_glob_patterns(tmp_path: Path) -> None:
    for name, sequence in (("s[12].csv", "ACGT"), ("s1.csv", "GG"), ("s*.csv", "TTT")):
        write_csv(tmp_path / name, "sequence,label", [(sequence, 0)])
        assert read_records(tmp_path / name).texts == [sequence]
        pl.read_csv(tmp_path / name, glob=False).write_parquet(tmp_path / f"{name}.parquet")
    assert read_records(tmp_path / "s[12].csv.parquet").texts == ["ACGT"]
    assert "expected a table, got a folder" in refused(lambda: read_records(tmp_path))


def test_trailing_blank_lines_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sequence,label\nACGT ,0\nGG,1\n\n,\n\n")
    assert read_records(path).texts == ["ACGT", "GG"]
    assert read_unlabelled(path)[1].texts() == ["ACGT", "GG"]
    path.write_text("sequence,label\nACGT,0\nNA,1\n")
    assert "line 3: no sequence" in refused(lambda: read_unlabelled(path))
    path.write_text("sequence,label\nACGT,0\n,\nGG,1\n")
    assert "line 3: no sequence" in refused(lambda: read_records(path))


def test_non_text_columns_of_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    places = {"region": [[1], [2]], "start": [1, 2], "end": [3, 4]}
    pl.DataFrame({"sequence": ["AC", "GG"], "label": ["a", "b"], **places}).write_parquet(path)
    assert "column 'region' holds List(Int64)" in refused(lambda: read_records(path))
    columns = {"sequence": ["AC", "GG"], "label": [0.0, float("nan")], "more": [[1], [2, 3]], "raw": [b"\xff", b""]}
    pl.DataFrame(columns).write_parquet(path)
    records = read_records(path)
    assert (records.texts, records.labels) == (["AC", "GG"], ["0.0", None])
    assert "column 'more' holds List(Int64)" in refused(lambda: read_records(path, label="more"))
    assert "column 'more' holds List(Int64)" in refused(lambda: read_unlabelled(path, sequence="more"))


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(as_csv(tmp_path).read_bytes() * 1000)[:-20])
    assert "not a readable CSV file" in refused(lambda: read_records(torn))
    (tmp_path / "a.parquet").write_bytes(b"no")
    assert "not a readable Parquet file" in refused(lambda: read_records(tmp_path / "a.parquet"))
    assert "No such file" in refused(lambda: read_records(tmp_path / "none.csv"))
    (tmp_path / "wide.csv").write_text("sequence,label\nAC,0\n", encoding="utf-16")
    assert "expected UTF-8 text, got UTF-16" in refused(lambda: read_records(tmp_path / "wide.csv"))


def test_empty_strand_is_read_as_plus(tmp_path: Path) -> None:
    header = "sequence,label,region,start,end,strand"
    rows = [("A", 0, "chr1", 5, 6, "+"), ("A", 1, "chr2 ", 0, 3, " -"), ("A", 1, "chr2", 7, 9, "")]
    intervals = read_records(write_csv(tmp_path / "a.csv", header, rows)).intervals
    assert intervals is not None
    assert intervals.regions.tolist() == ["chr1", "chr2", "chr2"]
    assert (intervals.starts.tolist(), intervals.ends.tolist()) == ([5, 0, 7], [6, 3, 9])
    assert intervals.minus.tolist() == [False, True, False]
    assert intervals.lengths.tolist() == [1, 3, 2]


def test_classes_are_sorted_by_name_or_numerically() -> None:
    assert Classes.of(["ocr", "enhancer", "promoter", "ocr"], "x").names == ("enhancer", "ocr", "promoter")
    assert Classes.of(["10", "9", "-1"], "x").names == ("-1", "9", "10")
    assert Classes.of(["10", "9", "a"], "x").names == ("10", "9", "a")
    assert Classes(("b", "a")).numbers(["a", "b", "a"], place).tolist() == [1, 0, 1]
    assert "found none among 2 labels" in refused(lambda: Classes.of([None, ""], "x"))


def test_column_of_unique_labels_is_an_error(tmp_path: Path) -> None:
    rows = [("ACGT", f"r{row}") for row in range(21)]
    path, same = (write_csv(tmp_path / f"{name}.csv", "sequence,label", rows) for name in ("a", "b"))
    message = refused(SequenceTable(str(path)).load)
    assert "a.csv: 21 classes among 21 labels: r0, r1, r10 and 18 more. Check that data.label is the column" in message
    assert len(SequenceTable(str(path), str(same), str(same)).load().classes.names) == 21, (
        "one row per class is accepted with validation and test rows"
    )
    write_csv(path, "sequence,label", [*rows, *rows])
    assert len(SequenceTable(str(path)).load().classes.names) == 21
