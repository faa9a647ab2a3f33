"""GenomicBenchmarks: nine classification datasets of human, mouse, fly and worm DNA (Gresova et al., 2023).

Source: BMC Genomic Data. A dataset is read from whichever of three forms is available: the official folders of text
files, one table per split, or the official interval lists and the genome they were cut from. Classes are numbered by
sorted name; the official loader takes the order in which the file system lists them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from datamodules.common.download import PublishedFile, data_root, first_file, locate
from datamodules.common.messages import listed
from datamodules.common.splitting import Split
from datamodules.dna.classification.classes import Classes
from datamodules.dna.classification.labelled import IntervalExamples, IntervalSplits, RawRecords, Splits, read_splits
from datamodules.dna.datasets.checksums import GENOMIC_BENCHMARKS
from datamodules.dna.datasets.table import SUFFIXES, locator, read_intervals, read_records, read_sequence_table
from datamodules.dna.genome import Genome
from datamodules.dna.intervals import Intervals
from titans_seq.errors import InputError

_LISTS = (
    "https://raw.githubusercontent.com/ML-Bioinfo-CEITEC/genomic_benchmarks/"
    "605d8539830e16c85abe7826990958303ffc5e1c/datasets"
)
_ENSEMBL = "http://ftp.ensembl.org/pub"
_HUMAN = f"{_ENSEMBL}/release-100/fasta/homo_sapiens/dna/Homo_sapiens.GRCh38.dna.toplevel.fa"
_TRANSCRIPTS = f"{_ENSEMBL}/release-97/fasta/homo_sapiens/cdna/Homo_sapiens.GRCh38.cdna.all.fa"
_MOUSE = f"{_ENSEMBL}/release-100/fasta/mus_musculus/dna/Mus_musculus.GRCm38.dna.toplevel.fa"
_FLY = f"{_ENSEMBL}/release-100/fasta/drosophila_melanogaster/dna/Drosophila_melanogaster.BDGP6.28.dna.toplevel.fa"
_WORM = f"{_ENSEMBL}/release-104/fasta/caenorhabditis_elegans/dna/Caenorhabditis_elegans.WBcel235.dna.toplevel.fa"

# The sequences are on a file-sharing site, from which the official package gets them.
_SOURCE = "https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks"

Within = Literal["official", "test"]


class _BenchmarkFacts(NamedTuple):
    classes: dict[str, str]  # from name, sorted, to the URL of the reference of its intervals
    train: int  # number of published rows
    test: int


def _two(reference: str) -> dict[str, str]:
    return {"negative": reference, "positive": reference}


BENCHMARKS = {
    "demo_coding_vs_intergenomic_seqs": _BenchmarkFacts(
        {"coding_seqs": _TRANSCRIPTS, "intergenomic_seqs": _HUMAN}, 75000, 25000
    ),
    "demo_human_or_worm": _BenchmarkFacts({"human": _HUMAN, "worm": _WORM}, 75000, 25000),
    "drosophila_enhancers_stark": _BenchmarkFacts(_two(_FLY), 5184, 1730),
    "dummy_mouse_enhancers_ensembl": _BenchmarkFacts(_two(_MOUSE), 968, 242),
    "human_enhancers_cohn": _BenchmarkFacts(_two(_HUMAN), 20843, 6948),
    "human_enhancers_ensembl": _BenchmarkFacts(_two(_HUMAN), 123872, 30970),
    "human_ensembl_regulatory": _BenchmarkFacts(dict.fromkeys(("enhancer", "ocr", "promoter"), _HUMAN), 231348, 57713),
    "human_nontata_promoters": _BenchmarkFacts(_two(_HUMAN), 27097, 9034),
    "human_ocr_ensembl": _BenchmarkFacts(_two(_HUMAN), 139804, 34952),
}


class GenomicBenchmark:
    """One of the nine datasets.

    Args:
        name: a key of `BENCHMARKS`.
        root: the data folder; None takes $TITANS_SEQ_DATA, else the user's cache, to which interval lists (not
            sequences) are downloaded.
        reference: cut the sequences from this FASTA file by the interval lists; for datasets of two genomes, the folder
            that contains both under their official names.
        within: "official" splits, or only the "test" rows, which are then split again: for use without the train rows.
    """

    def __init__(
        self, name: str, root: str | None = None, *, reference: str | None = None, within: Within = "official"
    ) -> None:
        if name not in BENCHMARKS:
            raise InputError(f"unknown genomic benchmark {name!r}; available: {', '.join(BENCHMARKS)}")
        self.name = name
        self.root = root
        self.reference = reference
        self.within = within
        self.classes = Classes(tuple(BENCHMARKS[name].classes))

    def prepare(self) -> None:
        """Download the interval lists if they are needed and there is no data folder."""
        if self.reference and data_root(self.root) is None:
            self._lists("train")
            self._lists("test")

    def load(self) -> Splits:
        """Read and check the sequences."""
        wanted: tuple[Split, ...] = ("test",) if self.within == "test" else ("train", "test")
        parts = {split: self._records(split) for split in wanted}
        notes = [
            f"{self.name}: {split} has {len(records.texts)} rows, {getattr(BENCHMARKS[self.name], split)} are published"
            for split, records in parts.items()
            if len(records.texts) != getattr(BENCHMARKS[self.name], split)
        ]
        train, *others = parts.values()
        return read_splits(self.name, train, None, *others, classes=self.classes, notes=notes)

    def load_intervals(self) -> IntervalSplits:
        """Read and check only the interval lists."""
        return IntervalSplits(
            self.name, self.classes, self._interval_examples("train"), self._interval_examples("test")
        )

    def has_sequences(self) -> bool:
        """Whether `load` would find train and test sequences, or cut them from a reference."""
        return bool(self.reference) or all(any(self._find(split)) for split in ("train", "test"))

    def _records(self, split: Split) -> RawRecords:
        if self.reference:
            return self._compose(split, Path(self.reference).expanduser())
        folder, table = self._find(split)
        if folder:
            return self._read_folders(folder)
        if table:
            records = read_records(table, group="auto")
            return records._replace(labels=self._class_names(records.labels))
        looked = [f"{split}/<class>/*.txt", *(f"{split}{suffix}" for suffix in SUFFIXES)]
        where = " or ".join(map(str, self._folders())) or "no data folder (set data.root)"
        raise InputError(
            f"no {split} sequences of {self.name}: looked for {', '.join(looked)} in {where}. Get them with "
            f'download_dataset("{self.name}") of {_SOURCE} and set data.root=~/.genomic_benchmarks; or set '
            "data.reference=<FASTA of its genome> to cut them by the interval lists, or data.within=test to split only "
            "the test rows."
        )

    def _folders(self) -> list[Path]:
        root = data_root(self.root)
        return [] if root is None else [root / "genomic_benchmarks" / self.name, root / self.name]

    def _find(self, split: Split) -> tuple[Path | None, Path | None]:
        """Find the folder of text files or the table of a split; both None if there is neither."""
        for folder in self._folders():
            if any((folder / split).glob("*/*.txt")):
                return folder / split, None
            table = first_file([folder / f"{split}{suffix}" for suffix in SUFFIXES])
            if table:
                return None, table
        return None, None

    def _class_names(self, labels: Sequence[str | None]) -> Sequence[str | None]:
        """Convert labels to class names; a label may be a name or a class number."""
        numbers = {str(number): name for number, name in enumerate(self.classes.names)}
        return [numbers.get(label, label) if label else label for label in labels]

    def _read_folders(self, folder: Path) -> RawRecords:
        """Read `<class>/*.txt` below `folder`, one file per sequence, in the order of their names."""
        found = {path.name for path in folder.iterdir() if path.is_dir()}
        if found != set(self.classes.names):
            raise InputError(
                f"{folder}: expected a folder per class of {self.name} ({', '.join(self.classes.names)}); "
                f"found folders {listed(sorted(found))}"
            )
        files = [(name, path) for name in self.classes.names for path in sorted((folder / name).glob("*.txt"))]
        try:
            texts = [path.read_text(encoding="latin-1").strip() for _, path in files]
        except OSError as error:
            raise InputError(f"{folder}: {error}") from None
        return RawRecords(str(folder), lambda row: str(files[row][1]), texts, [name for name, _ in files])

    def _lists(self, split: Split) -> list[Path]:
        """Find the interval lists of a split, one per class."""
        root = data_root(self.root)
        files = [f"{self.name}/{split}/{name}.csv.gz" for name in self.classes.names]
        if root is None:
            return [locate(published_list(file), None) for file in files]
        bases = [root / "genomic_benchmarks_coordinates", root / "genomic_benchmarks", root / "datasets", root]
        paths = []
        for file in files:
            path = first_file([base / file for base in bases])
            if path is None:
                raise InputError(
                    f"no interval list {file}: looked in {', '.join(map(str, bases))}. Download it from {_LISTS}/{file}"
                )
            paths.append(path)
        return paths

    def _interval_examples(self, split: Split) -> IntervalExamples:
        lists = [_read_list(path) for path in self._lists(split)]
        labels = np.repeat(np.arange(len(lists)), [len(part.starts) for part in lists])
        return IntervalExamples(Intervals.joined(lists), labels)

    def _compose(self, split: Split, reference: Path) -> RawRecords:
        """Cut the sequences of a split from the genomes of its classes."""
        genomes: dict[Path, Genome] = {}
        parts, texts, labels = [], [], []
        places: list[str] = []
        for name, path in zip(self.classes.names, self._lists(split), strict=True):
            fasta = self._fasta(reference, BENCHMARKS[self.name].classes[name])
            if fasta not in genomes:
                genomes[fasta] = Genome(fasta, aliases=True)
            parts.append(_read_list(path))
            texts += genomes[fasta].texts(parts[-1], locator(path), out_of_bounds="N")
            labels += [name] * len(parts[-1].starts)
            places += [f"{path}: line {line + 2}" for line in range(len(parts[-1].starts))]
        files = (*self._lists(split), *genomes)
        return RawRecords(str(reference), places.__getitem__, texts, labels, None, Intervals.joined(parts), files)

    def _fasta(self, reference: Path, url: str) -> Path:
        """Find the file of one of the dataset's references."""
        name = url.rpartition("/")[2]
        if reference.is_dir():
            # The primary assembly has the same chromosomes without the alternative loci, which make the other so large.
            found = first_file([reference / name, reference / name.replace("toplevel", "primary_assembly")])
            if found is None:
                raise InputError(f"{reference}: no {name}. Download {url}.gz and decompress it there.")
            return found
        if len(set(BENCHMARKS[self.name].classes.values())) > 1:
            files = " and ".join(each.rpartition("/")[2] for each in BENCHMARKS[self.name].classes.values())
            raise InputError(
                f"{self.name} is of two genomes, but data.reference={reference} is one file; set it to a folder that "
                f"contains both: {files}"
            )
        return reference


def published_list(file: str) -> PublishedFile:
    """Official interval list `<dataset>/<split>/<class>.csv.gz`, to be downloaded."""
    name, _, rest = file.partition("/")
    checksum = GENOMIC_BENCHMARKS[name][rest]
    return PublishedFile(f"genomic_benchmarks_coordinates/{file}", f"{_LISTS}/{file}", checksum)


def _read_list(path: Path) -> Intervals:
    """Read an official interval list: columns id, region, start, end, strand."""
    table = read_sequence_table(path)
    missing = {"region", "start", "end", "strand"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}; found {listed(table.columns)}")
    return read_intervals(table, locator(path))
