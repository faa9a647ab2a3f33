"""Separator and encoding of text tables: set, found, or an error that names the key."""

import gzip
from pathlib import Path

import pytest

from datamodules.common.reading import NotUtf8Error, read_frame
from datamodules.common.text_format import TextFormat, find_text_format
from titans_seq.errors import InputError

ROWS = "Datum;Größe\n2022-01-01;1,5\n2022-01-02;2,5\n"


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        (ROWS, ";"),
        (ROWS.replace(";", "\t"), "\t"),
        (ROWS.replace(";", "|"), "|"),
        ("a;b,c\n1;2,3\n4;5,6\n", None),  # commas split it as well
        ("a;b, in kg\n1;2\n3;4,5\n", ";"),
        ('a;"b,c;"\n1;2\n', ";"),
        ("a|b;c\n1|2;3\n", None),  # two answers
        ("a,b\n1,2,3\n", None),  # one answer, with a faulty line
        ("a\n1\n", None),
    ],
)
def test_separator_found_from_the_first_lines(tmp_path: Path, text: str, separator: str | None) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    found, notes = find_text_format(path, TextFormat())
    assert found.separator == separator
    assert notes == ([] if separator is None else [f"{path}: columns are separated by {separator!r} (data.separator)"])
    with gzip.open(tmp_path / "t.csv.gz", "wb") as file:
        file.write(text.encode())
    assert find_text_format(tmp_path / "t.csv.gz", TextFormat())[0].separator == separator


def test_a_long_table_is_judged_by_its_whole_first_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b\n" + "".join(f"{i:020000d};{i},5\n" for i in range(20)))  # the last line read is cut
    assert find_text_format(path, TextFormat())[0].separator == ";"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path.write_bytes(mark + ROWS.encode(encoding))
    given = TextFormat(encoding="cp1252" if encoding == "cp1252" else None)
    found, notes = find_text_format(path, given)
    table = read_frame(path, found.separator, found.encoding)
    assert table.columns == ["Datum", "Größe"]
    assert table["Größe"].to_list() == ["1,5", "2,5"]
    assert any("read as UTF-" in note for note in notes) == encoding.startswith(("utf-16", "utf-32"))


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    header, cell = tmp_path / "header.csv", tmp_path / "cell.csv"
    header.write_bytes("date,Größe\n2022-01-01,1\n".encode("cp1252"))
    cell.write_bytes("date,y\n2022-01-01,Größe\n".encode("cp1252"))
    for path, found in ((header, "a header with bytes that are not"), (cell, "bytes that are not")):
        with pytest.raises(NotUtf8Error) as caught:
            read_frame(path)
        assert str(caught.value) == f"{path}: expected UTF-8 text, got {found}"
    with pytest.raises(InputError, match="not a readable CSV file: 'ascii' codec can't decode"):
        read_frame(header, encoding="ascii")


def test_a_separator_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns must be separated by ';'; got ','"):
        read_frame(path, separator=";")
