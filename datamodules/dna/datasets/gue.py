"""GUE, DNABERT-2's benchmark: 28 classification tasks with train, dev and test files each (Zhou et al., ICLR 2024).

The official archive is on a file-sharing site. The ten tasks whose files are completely published on GitHub are
downloaded from there; for the others, unpack GUE.zip and set data.root.
"""

from pathlib import Path

from datamodules.common.download import PublishedFile, data_root, first_file, locate
from datamodules.common.messages import did_you_mean
from datamodules.dna.classification.labelled import RawRecords, Splits, read_splits
from datamodules.dna.datasets.checksums import GUE_SHA256
from datamodules.dna.datasets.table import SUFFIXES, read_records
from datamodules.dna.sequences import Sequences
from titans_seq.errors import InputError

_MIRROR = "https://raw.githubusercontent.com/wds-seu/DeepGene/486343e5212361d6cd7ed03c624f430ed3d5f02e/data/GUE"
_ARCHIVE = "GUE.zip, linked at https://github.com/MAGICS-LAB/DNABERT_2"
_MARKS = ("H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac")
_PROMOTERS = ("300_all", "300_notata", "300_tata", "core_all", "core_notata", "core_tata")

TASKS = (
    *(f"EMP/{mark}" for mark in _MARKS),
    *(f"mouse/{number}" for number in range(5)),
    *(f"prom/prom_{kind}" for kind in _PROMOTERS),
    "splice/reconstructed",
    *(f"tf/{number}" for number in range(5)),
    "virus/covid",
)


class GUE:
    """One task, with the official splits; dev is the validation split.

    Args:
        task: one of `TASKS`.
        root: the data folder; None takes $TITANS_SEQ_DATA, else the user's cache, to which the published files are
            downloaded.
    """

    def __init__(self, task: str, root: str | None = None) -> None:
        if task not in TASKS:
            raise InputError(f"unknown GUE task {task!r}; {did_you_mean(task, TASKS)}available: {', '.join(TASKS)}")
        self.task = task
        self.root = root

    def prepare(self) -> None:
        """Download the files that are missing."""
        for split in ("train", "dev", "test"):
            self._locate(split)

    def load(self) -> Splits:
        """Read and check the three files."""
        return read_splits(self.task, *(self._records(split) for split in ("train", "dev", "test")))

    def held_out(self) -> list[Sequences]:
        """Read the sequences of dev and of test; the training file is not needed."""
        return [Sequences.read(each.texts, each.locate) for each in map(self._records, ("dev", "test"))]

    def _records(self, split: str) -> RawRecords:
        return read_records(self._locate(split))

    def _locate(self, split: str) -> Path:
        root = data_root(self.root)
        file = f"{self.task}/{split}"
        if root is None:
            if f"{file}.csv" not in GUE_SHA256:
                raise InputError(
                    f"{file}.csv cannot be downloaded as a single file; unpack {_ARCHIVE}, and set data.root"
                )
            return locate(published_file(f"{file}.csv"), None)
        bases = [root / "gue", root / "GUE", root]
        found = first_file([base / f"{file}{suffix}" for base in bases for suffix in SUFFIXES])
        if found is None:
            there = sorted({path.name for base in bases for path in (base / self.task).glob("*.*")})
            found_files = f"found {', '.join(there)}" if there else "found no files"
            raise InputError(
                f"no {split} file of GUE's {self.task}: looked for {split}.csv, .csv.gz, .tsv or .parquet in "
                f"{' and '.join(str(base / self.task) for base in bases)}; {found_files}. Get it from {_ARCHIVE}."
            )
        return found


def published_file(file: str) -> PublishedFile:
    """Published file `<task>/<split>.csv`, to be downloaded."""
    return PublishedFile(f"gue/{file}", f"{_MIRROR}/{file}", GUE_SHA256[file])
