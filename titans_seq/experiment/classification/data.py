"""Builds the data of a classification run from its configuration: labelled sequences and held-out splits."""

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
    """Return the source of the labelled sequences.

    Raises InputError for a key that is set but has no effect on this kind of source.
    """
    source = _source(options)
    keys_of = _KEYS_BY_SOURCE.get(type(source))
    used = keys_of(options) if keys_of else _SOURCE_KEYS  # a source that is not listed may use all of them
    plain = ClassificationDataOptions()
    for key in _SOURCE_KEYS:
        if key not in used and getattr(options, key) != getattr(plain, key):
            raise InputError(f"data.{key}={getattr(options, key)}: has no effect with data.name={options.name}")
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


def _fasta_keys(options: ClassificationDataOptions) -> set[str]:
    return {"rna", "header_label"} if options.labels is None else {"rna", "labels", "label", "group"}


# Keys that only some sources read. `length` and `aliases` are not among them: the command `variants` reads them too.
_SOURCE_KEYS = ("sequence", "label", "group", "labels", "header_label", "bed", "beyond", "rna", "reference", "within")


_KEYS_BY_SOURCE: dict[type[SequenceSource], Callable[[ClassificationDataOptions], set[str]]] = {
    PlantedMotif: lambda _: set(),
    GUE: lambda _: set(),
    GenomicBenchmark: lambda _: {"reference", "within"},
    SequenceTable: lambda _: {"sequence", "label", "group", "rna"},
    LabelledFasta: _fasta_keys,
    BedWindows: lambda _: {"bed", "beyond", "rna"},
}


def build_holdout(options: ClassificationDataOptions) -> Holdout:
    """Return how to cut the splits that the source does not define."""
    return Holdout(
        unit=options.unit,
        fraction=options.fraction,
        folds=options.folds,
        fold=options.fold,
        validation_chromosomes=options.validation_chromosomes,
        test_chromosomes=options.test_chromosomes,
        seed=options.holdout_seed,
    )
