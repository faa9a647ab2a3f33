"""`titans-seq audit`: the printed tables, and error messages."""

from pathlib import Path

import pytest

from tests.helpers import CONFIGS, Refuse, run_cli


def audit(*arguments: str | Path) -> str:
    answer = run_cli("audit", *arguments)
    assert answer.status == 0, answer.err
    assert max(map(len, answer.out.splitlines())) <= 120
    return answer.out


def row(text: str, *cells: str) -> list[str]:
    """Return the cells after `cells` in the only line that begins with them."""
    found = [line.split() for line in text.splitlines() if line.split()[: len(cells)] == list(cells)]
    assert len(found) == 1, found
    return found[0][len(cells) :]


def test_a_leaky_table_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    # Class a is short, class b long; one test row duplicates a training row, another one with the other label.
    train = ["AAACC,a", "AAACC,a", "CCCTG,a", "GATTACAGATTACA,b", "TTTTTTTTTTGGGG,b", "ACACACACACTTTG,b"]
    test = ["CCCTG,b", "GATTACAGATTACA,b", "TTGGA,a", "GGCAT,a"]
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    text = audit(folder, "-k", "4")
    assert row(text, "train", "6", "3") == ["3"]
    assert row(text, "test", "length")[:1] == ["75.0%"]
    assert row(text, "all") == ["10", "3", "1"]
    assert row(text, "test", "4-mers", "4")[:3] == ["2", "1", "0"]


def test_published_datasets_by_name(data_root: Path) -> None:
    # Numbers of the data folder's README and of the published interval lists.
    assert row(audit("tf/4", f"data.root={data_root}"), "train", "19,000", "3,789") == ["0"]
    text = audit("human_nontata_promoters", f"data.root={data_root}")
    assert row(text, "test", "half", "covered", "by", "a", "training", "row")[0] == "99.6%"
    text = audit(
        "human_nontata_promoters",
        f"data.root={data_root}",
        "data.within=test",
        "data.max_length=100",
        "data.unit=group",
    )
    assert "no test rows; the splits are cut as in `fit`, by group" in text
    assert row(text, "test", "length,", "cut", "at", "100")


def test_audit_of_a_config_file() -> None:
    assert audit(CONFIGS / "genomics" / "motif.yaml").startswith("Audit of simulated\n")


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file or published dataset"),
        (["simulated", "-k", "33"], "-k 33: must be between 1 and 32"),
        (["simulated", "data.maxlength=3"], "data.maxlength: no such key; did you mean data.max_length?"),
        ([CONFIGS / "forecasting" / "synthetic.yaml"], "audit requires labelled sequences"),
    ],
)
def test_audit_errors(refuse: Refuse, overrides: list[str], part: str) -> None:
    assert part in refuse("audit", *overrides)


def test_data_overrides_apply_to_files(tmp_path: Path) -> None:
    rows = [("s1", "ACGUACGU", "hot"), ("s2", "GGUUCCAA", "cold")] * 10
    fasta = tmp_path / "mine.fa"
    fasta.write_text("".join(f">{name} class:{label}\n{text}\n" for name, text, label in rows))
    overrides = ["data.rna=true", r"data.header_label=class:(\w+)"]
    assert row(audit(fasta, *overrides), "split", "rows", "cold") == ["hot"]
    (tmp_path / "labels.csv").write_text("id,label\ns1,yes\ns2,no\n")
    text = audit(fasta, "data.rna=true", f"data.labels={tmp_path / 'labels.csv'}")
    assert row(text, "split", "rows", "no") == ["yes"]
    assert row(text, "all", "20", "18") == ["0"]
