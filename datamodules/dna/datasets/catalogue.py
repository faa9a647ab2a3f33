"""Datasets by their names on the command line: published ones by name, a user's own by their files."""

from pathlib import Path

import polars as pl

from datamodules.common.messages import did_you_mean, listed
from datamodules.dna.classification.labelled import SequenceSource
from datamodules.dna.datasets.fasta import HEADER_LABEL, LabelledFasta, read_fasta
from datamodules.dna.datasets.genomic_benchmarks import BENCHMARKS, GenomicBenchmark, Within
from datamodules.dna.datasets.gue import GUE, TASKS
from datamodules.dna.datasets.simulated_genome import simulated_genome
from datamodules.dna.datasets.simulated_motif import PlantedMotif
from datamodules.dna.datasets.table import (
    MISSING_VALUES,
    SUFFIXES,
    SequenceTable,
    check_text,
    locator,
    read_sequence_table,
)
from datamodules.dna.pretraining.corpus import Corpus, GenomeCorpus, LoadedCorpus
from datamodules.dna.sequences import Sequences, joined_sequences
from titans_seq.errors import InputError

_FASTA = tuple(f"{suffix}{packed}" for packed in ("", ".gz") for suffix in (".fa", ".fasta", ".fna", ".fas", ".ffn"))
_SPLITS = (("train",), ("validation", "valid", "val", "dev"), ("test",))  # file names in a folder


def open_data(
    data: str,
    root: str | None = None,
    *,
    reference: str | None = None,
    within: Within = "official",
    sequence: str = "sequence",
    label: str = "label",
    group: str | None = None,
    labels: str | None = None,
    header_label: str = HEADER_LABEL,
    rna: bool = False,
) -> SequenceSource:
    """Open the source of `data`.

    Args:
        data: "simulated"; the name of a genomic benchmark or of a GUE task; a table or FASTA file; or a folder with a
            train file and, optionally, validation (dev) and test files.
        root: the data folder of the published datasets.
        reference, within: see `GenomicBenchmark`.
        sequence, label, group: columns of tables; see `SequenceTable`. A column `group` is used by default.
        labels, header_label: options of FASTA files; see `LabelledFasta`.
        rna: read U as T in a user's own files.
    """
    if data == "simulated":
        return PlantedMotif()
    if data in BENCHMARKS:
        return GenomicBenchmark(data, root, reference=reference, within=within)
    if data in TASKS:
        return GUE(data, root)
    path = Path(data).expanduser()
    if path.is_dir() and path.name in BENCHMARKS:
        return GenomicBenchmark(path.name, str(path.parent), reference=reference, within=within)
    train, *others = _files(data, path)
    kinds = {_kind(file): file for file in (train, *others) if file}
    if len(kinds) > 1:
        raise InputError(
            f"{data}: the splits must be all tables or all FASTA files; got {' and '.join(kinds.values())}"
        )
    if SUFFIXES in kinds:
        return SequenceTable(train, *others, sequence=sequence, label=label, group=group or "auto", rna=rna)
    if _FASTA in kinds:
        names = {"label": label, "group": group or "auto"}
        return LabelledFasta(train, *others, labels=labels, header_label=header_label, **names, rna=rna)
    raise InputError(f"{data}: neither a table ({', '.join(SUFFIXES)}) nor a FASTA file ({', '.join(_FASTA)})")


def open_corpus(data: str, root: str | None = None, *, sequence: str = "sequence", rna: bool = False) -> Corpus:
    """Open unlabelled DNA: the training rows of a published dataset, a table's column `sequence`, or a FASTA file.

    An uncompressed FASTA file is memory-mapped, whatever its size; a compressed one is read into memory.
    """
    if data == "simulated":
        return simulated_genome()
    if data in BENCHMARKS or data in TASKS:
        source = open_data(data, root)
        source.prepare()
        return LoadedCorpus(f"{data} (train)", source.load().train.sequences)
    path = Path(data).expanduser()
    if _kind(path) == _FASTA and path.suffix.lower() != ".gz":
        return GenomeCorpus(path, rna=rna)
    names, sequences = _read_file(data, path, sequence=sequence, rna=rna)
    return LoadedCorpus(path.name, sequences, names)


def open_held_out(data: str, root: str | None = None, *, sequence: str = "sequence", rna: bool = False) -> Sequences:
    """Read held-out sequences: dev and test rows of a GUE task, test rows of a genomic benchmark, all of a file."""
    if data in TASKS:
        return joined_sequences(GUE(data, root).held_out())
    if data in BENCHMARKS:
        return open_data(data, root, within="test").load().train.sequences
    return _read_file(data, Path(data).expanduser(), sequence=sequence, rna=rna)[1]


def _read_file(data: str, path: Path, *, sequence: str, rna: bool) -> tuple[list[str], Sequences]:
    """Read names and sequences of a user's file, at least one."""
    if not path.is_file() or not _kind(path):
        raise InputError(
            f"{data}: no published dataset, and no file of sequences ({', '.join((*SUFFIXES, *_FASTA))}); "
            f"{_published(data)}"
        )
    return read_unlabelled(path, sequence=sequence, rna=rna)


def _kind(file: str | Path) -> tuple[str, ...]:
    """Suffixes of the file's kind, tables or FASTA files; empty for other files."""
    return next((kind for kind in (SUFFIXES, _FASTA) if str(file).lower().endswith(kind)), ())


def _published(data: str) -> str:
    """List the published datasets for a message, the closest name to `data` first."""
    return (
        f"{did_you_mean(data, [*BENCHMARKS, *TASKS])}Datasets: {', '.join(BENCHMARKS)}; GUE tasks: {', '.join(TASKS)}"
    )


def _files(data: str, path: Path) -> tuple[str, str | None, str | None]:
    """Find the train, validation and test file of a user's file or folder."""
    if path.is_file():
        return str(path), None, None
    if not path.is_dir():
        raise InputError(f"{data}: no such file or folder, and no published dataset; {_published(data)}")
    there = sorted(file.name for file in path.iterdir())
    wanted = ([f"{name}{suffix}" for name in names for suffix in (*SUFFIXES, *_FASTA)] for names in _SPLITS)
    train, *others = (_only(path, [file for file in there if file.lower() in names]) for names in wanted)
    if train is None:
        raise InputError(f"{path}: no train file; expected train with one of {', '.join((*SUFFIXES, *_FASTA))}")
    validation, test = (None if file is None else str(file) for file in others)
    return str(train), validation, test


def _only(folder: Path, names: list[str]) -> Path | None:
    """File of a split, None if there is none; raises InputError if there are several."""
    if len(names) > 1:
        raise InputError(f"{folder}: several files for one split: {' and '.join(names)}; keep one of them")
    return folder / names[0] if names else None


def read_unlabelled(path: Path, *, sequence: str = "sequence", rna: bool = False) -> tuple[list[str], Sequences]:
    """Read names and sequences of a table or FASTA file, for prediction; labels are ignored.

    A FASTA record is named by its header up to the first blank, a table's row by its column `id`, or by its number.
    """
    if _kind(path) == _FASTA:
        headers, texts = read_fasta(path)
        names = [header.split(maxsplit=1)[0] for header in headers]
        return names, Sequences.read(texts, lambda row: f"{path}: record {names[row]!r}", rna=rna)
    table, locate = read_sequence_table(path), locator(path)
    if sequence not in table.columns:
        raise InputError(f"{path}: no column {sequence!r}; found {listed(table.columns)}. Set data.sequence to one.")
    if table.is_empty():
        raise InputError(f"{path}: no sequences")
    check_text(table, path, sequence)
    named = "id" in table.columns and table["id"].dtype == pl.String
    names = table["id"].fill_null("").to_list() if named else [str(row) for row in range(len(table))]
    written = table[sequence].fill_null("").str.strip_chars().replace(dict.fromkeys(MISSING_VALUES, ""))
    return names, Sequences.read(written.to_list(), locate, rna=rna)
