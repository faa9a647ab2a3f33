"""Data of a classification run: labelled sequences and how their splits are cut, from a configuration."""

from collections.abc import Callable

from datamodules.dna.classification.holdout import Holdout
from datamodules.dna.classification.labelled import SequenceSource
from datamodules.dna.datasets.catalogue import open_data
from datamodules.dna.datasets.fasta import BedWindows, LabelledFasta
from datamodules.dna.datasets.genomic_benchmarks import GenomicBenchmark
from datamodules.dna.datasets.gue import GUE
from datamodules.dna.datasets.simulated_motif import PlantedMotif
from datamodules.dna.datasets.table import SequenceTable
from titans_seq.errors import InputError
from titans_seq.schema import ClassificationDataOptions


def build_sequence_source(options: ClassificationDataOptions) -> SequenceSource:
    """Where the labelled sequences come from."""
    source = _source(options)
    used = _USED[type(source)](options) if type(source) in _USED else _OF_SOURCES  # of a source of one's own: all
    plain = ClassificationDataOptions()
    for key in _OF_SOURCES:
        if key not in used and getattr(options, key) != getattr(plain, key):
            raise InputError(f"data.{key}={getattr(options, key)}: says nothing about data.name={options.name}")
    return source


def _source(options: ClassificationDataOptions) -> SequenceSource:
    if options.bed is not None:
        return BedWindows(
            options.name,
            options.bed,
            length=options.length,
            out_of_bounds=options.beyond,
            aliases=options.aliases,
            rna=options.rna,
        )
    return open_data(
        options.name,
        options.root,
        reference=options.reference,
        within=options.within,
        sequence=options.sequence,
        label=options.label,
        group=options.group,
        labels=options.labels,
        header_label=options.header_label,
        rna=options.rna,
    )


def _of_fasta(options: ClassificationDataOptions) -> set[str]:
    return {"rna", "header_label"} if options.labels is None else {"rna", "labels", "label", "group"}


# The keys that mean something to one source and nothing to another. `length` and `aliases` are of `variants` too.
_OF_SOURCES = ("sequence", "label", "group", "labels", "header_label", "bed", "beyond", "rna", "reference", "within")


_USED: dict[type[SequenceSource], Callable[[ClassificationDataOptions], set[str]]] = {
    PlantedMotif: lambda _: set(),
    GUE: lambda _: set(),
    GenomicBenchmark: lambda _: {"reference", "within"},
    SequenceTable: lambda _: {"sequence", "label", "group", "rna"},
    LabelledFasta: _of_fasta,
    BedWindows: lambda _: {"bed", "beyond", "rna"},
}


def build_holdout(options: ClassificationDataOptions) -> Holdout:
    """How the splits that the source does not bring are cut."""
    return Holdout(
        unit=options.unit,
        fraction=options.fraction,
        folds=options.folds,
        fold=options.fold,
        validation_chromosomes=options.validation_chromosomes,
        test_chromosomes=options.test_chromosomes,
        seed=options.holdout_seed,
    )
