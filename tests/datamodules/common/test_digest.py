"""The data fingerprint contains the SHA-256 checksum of every file that was read."""

import gzip
import hashlib
from pathlib import Path

from datamodules.dna.classification.datamodule import SequenceDataModule
from datamodules.dna.classification.labelled import SequenceSource
from datamodules.dna.datasets.fasta import BedWindows, LabelledFasta
from datamodules.dna.datasets.table import SequenceTable
from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.simulated import SimulatedSeries
from datamodules.time_series.datasets.table import Table


def sha256_by_name(*paths: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def files_of(source: SequenceSource) -> object:
    data = SequenceDataModule(source)
    data.setup()
    return data.fingerprint()["files"]


def test_tables_of_sequences(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv.gz"
    rows = "sequence,label\n" + "".join(f"{'ACGT' * 3}{'ACGT'[i % 4] * i},{i % 2}\n" for i in range(20))
    train.write_text(rows)
    test.write_bytes(gzip.compress(rows.encode()))
    assert files_of(SequenceTable(str(train), test=str(test))) == sha256_by_name(train, test)


def test_files_of_the_same_name_in_two_folders(tmp_path: Path) -> None:
    from datamodules.common.digest import hash_files

    paths = [tmp_path / folder / "data.csv" for folder in ("train", "test")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    found = hash_files([*paths, *paths])
    assert found == {f"{path.parent.name}/data.csv": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert hash_files([]) == {}


def test_fasta_files_with_labels_and_bed_files(tmp_path: Path) -> None:
    fasta, labels, bed = tmp_path / "reads.fa", tmp_path / "labels.csv", tmp_path / "peaks.bed"
    fasta.write_text("".join(f">r{i}\n{'ACGTTGCA' * 4}\n" for i in range(20)))
    labels.write_text("id,label\n" + "".join(f"r{i},{i % 2}\n" for i in range(20)))
    bed.write_text("".join(f"r{i}\t2\t12\t{'ab'[i % 2]}\n" for i in range(20)))
    assert files_of(LabelledFasta(str(fasta), labels=str(labels))) == sha256_by_name(fasta, labels)
    assert files_of(BedWindows(str(fasta), str(bed))) == sha256_by_name(fasta, bed)


def test_series_with_and_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("date,a\n" + "".join(f"2024-01-{day:02} 00:00,{day}\n" for day in range(1, 31)))
    for source, files in ((Table(path, ColumnRoles(time="date")), sha256_by_name(path)), (SimulatedSeries(), {})):
        data = ForecastingDataModule(source, context_length=2, horizon=1)
        data.setup()
        assert data.fingerprint()["files"] == files
