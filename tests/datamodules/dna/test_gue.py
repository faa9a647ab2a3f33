"""The GUE tasks: reading the official files, and the error message for a missing one."""

import csv
import gzip
import hashlib
from pathlib import Path

import pytest

from datamodules.common.download import DATA_VARIABLE
from datamodules.dna.datasets.checksums import GUE_SHA256
from datamodules.dna.datasets.gue import GUE, TASKS, published_file
from tests.datamodules.dna.dna_reference import refused, write_csv

# Rows of train, dev and test of the tasks whose files are complete in the data folder.
COMPLETE = {
    "prom/prom_core_all": (47356, 5920, 5920),
    "prom/prom_core_notata": (42452, 5307, 5307),
    "prom/prom_core_tata": (4904, 613, 613),
    "tf/0": (32378, 1000, 1000),
    "tf/1": (30672, 1000, 1000),
    "tf/2": (19000, 1000, 1000),
    "tf/4": (19000, 1000, 1000),
    "mouse/0": (6478, 810, 810),
    "mouse/2": (2620, 328, 328),
    "mouse/4": (15064, 1883, 1883),
}


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the data folder variable: every test passes its own folder."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def write_task(folder: Path) -> None:
    write_csv(folder / "train.csv", "sequence,label", [("ACGT", 0), ("GGTA", 1), ("GGTT", 1)])
    write_csv(folder / "dev.csv", "sequence,label", [("AAAA", 1)])
    write_csv(folder / "test.csv", "sequence,label", [("CCCC", 0), ("TTTT", 1)])


def test_the_tasks_are_the_28_of_the_paper() -> None:
    assert len(TASKS) == len(set(TASKS)) == 28
    assert set(COMPLETE) <= set(TASKS)
    assert "did you mean 'prom/prom_core_all'?" in refused(lambda: GUE("prom_core_all"))


@pytest.mark.parametrize("inner", ["GUE", "gue", ""])
def test_dev_is_the_validation_split(tmp_path: Path, inner: str) -> None:
    write_task(tmp_path / inner / "tf" / "3")
    source = GUE("tf/3", str(tmp_path))
    source.prepare()
    splits = source.load()
    assert splits.train.sequences.texts() == ["ACGT", "GGTA", "GGTT"]
    assert splits.train.labels.tolist() == [0, 1, 1]
    assert splits.validation is not None
    assert splits.validation.sequences.texts() == ["AAAA"]
    assert splits.test is not None
    assert splits.test.labels.tolist() == [0, 1]


def test_error_of_a_missing_file_lists_found_files_and_source(tmp_path: Path) -> None:
    write_task(tmp_path / "GUE" / "EMP" / "H3")
    (tmp_path / "GUE" / "EMP" / "H3" / "train.csv").unlink()
    message = refused(GUE("EMP/H3", str(tmp_path)).prepare)
    assert "no train file of GUE's EMP/H3" in message
    assert "found dev.csv, test.csv" in message
    assert "GUE.zip" in message
    assert "cannot be downloaded as a single file; unpack GUE.zip" in refused(GUE("EMP/H3").prepare)


def test_files_are_read_from_the_download_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_task(tmp_path / "titans_seq" / "gue" / "tf" / "4")
    source = GUE("tf/4")
    source.prepare()
    assert len(source.load().train) == 3
    file = published_file("tf/4/dev.csv")
    assert file.path == "gue/tf/4/dev.csv"
    assert file.url.startswith("https://")
    assert file.url.endswith("/data/GUE/tf/4/dev.csv")


@pytest.mark.parametrize("task", COMPLETE)
def test_the_real_tasks_are_read_row_for_row(data_root: Path, task: str) -> None:
    splits = GUE(task, str(data_root)).load()
    assert splits.classes.names == ("0", "1")
    assert splits.notes == ()
    parts = {"train": splits.train, "dev": splits.validation, "test": splits.test}
    for (split, rows), count in zip(parts.items(), COMPLETE[task], strict=True):
        content = gzip.decompress((data_root / "gue" / task / f"{split}.csv.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == GUE_SHA256[f"{task}/{split}.csv"]
        expected = list(csv.reader(content.decode().splitlines()))[1:]
        assert rows is not None
        assert len(rows) == count == len(expected)
        found = zip(rows.sequences.texts(), map(str, rows.labels), strict=True)
        assert [list(row) for row in found] == expected


def test_incomplete_real_tasks_are_an_error(data_root: Path) -> None:
    for task in ("EMP/H3", "splice/reconstructed", "virus/covid"):
        assert f"no train file of GUE's {task}" in refused(GUE(task, str(data_root)).load)
