"""The configuration of a DNA classification experiment."""

from dataclasses import dataclass, field
from typing import Any, Literal

from titans_seq.schema.common import Config, DataOptions, TaskOptions, at_least, between
from titans_seq.schema.sequences import SequenceModelOptions


@dataclass
class ClassificationDataOptions(DataOptions):
    """Which labelled sequences, how they are cut into splits, and what a batch of them is."""

    # simulated; a set of GenomicBenchmarks; a task of GUE, such as tf/0; or a table, a FASTA file or a folder of them
    name: str = "simulated"
    batch_size: int = at_least(128, 1)
    max_length: int | None = at_least(None, 1)  # bases kept of a longer sequence, its first ones; null keeps all
    both_strands: bool = False  # show half of the training rows, another half every epoch, as reverse complements
    # Splits that the data do not bring: first test, then validation rows are cut from the training rows.

    unit: Literal["row", "group", "chromosome"] = "row"  # what stays together
    fraction: float = between(0.1, 0, 1)  # of the rows that are left, for each split that is cut
    folds: int = at_least(0, 0)  # from 2 on: the first split that is cut is fold `fold` of so many
    fold: int = at_least(0, 0)  # which, from 0
    validation_chromosomes: list[str] = field(default_factory=list)  # with unit=chromosome
    test_chromosomes: list[str] = field(default_factory=list)  # likewise, where the data bring no test rows
    holdout_seed: int = between(0, 0, 2**32 - 1)  # of the cut; not `seed`, so that seeds are compared on the same rows
    # Tables

    sequence: str = "sequence"  # name of the column of sequences
    label: str = "label"  # name of the column of classes
    group: str | None = None  # column of groups that no split may part; null: the column group, if there is one
    # FASTA files

    labels: str | None = None  # table with columns id, label and, to split by, group; null: labels are in the headers
    header_label: str = r"\blabel=(\S+)"  # regular expression whose first group is a header's label
    bed: Any = None  # cut windows of the FASTA file: a BED file whose fourth column is the label, or {class: file}
    length: int | None = at_least(None, 1)  # bases of every window, around its interval's middle; null: as it is
    beyond: Literal["refuse", "N"] = "refuse"  # windows over a chromosome's ends
    aliases: bool = False  # take 1 for chr1 and MT for chrM
    rna: bool = False  # read U as T
    # GenomicBenchmarks

    reference: str | None = None  # FASTA file, or a folder of two, from which the official interval lists are cut
    within: Literal["official", "test"] = "official"  # test: split the test rows anew, for want of train rows


@dataclass
class ClassificationModelOptions(SequenceModelOptions):
    """The classifier: bases, backbone in one direction or both, mean over the sequence, head."""

    # one: as given; both_averaged: trained so, measured by the mean of both strands' logits; invariant: the mean of
    # both strands' features, in training too.
    strand: Literal["one", "both_averaged", "invariant"] = "both_averaged"
    pretrained: str | None = None  # checkpoint of a pre-training (or classification) run: everything but the head


@dataclass
class ClassificationTaskOptions(TaskOptions):
    """Classification: what is minimised, and what selects."""

    name: Literal["classification"] = "classification"
    class_weights: Literal["none", "balanced"] = "none"  # balanced: every class counts alike in the loss
    label_smoothing: float = between(0.0, 0, 1)
    # What is trained: all; the head alone, on what the rest says as it stands (linear probe); or the head first and,
    # every `unfreeze_every` epochs, one more block below, the stem last.
    unfreeze: Literal["all", "head", "gradual"] = "all"
    unfreeze_every: int = at_least(1, 1)  # epochs
    frozen_blocks: int = at_least(0, 0)  # the stem and so many blocks, from the first on, are never trained
    layer_decay: float = between(1.0, 0, 1)  # learning rate of a block, in that of the block (or head) above it
    monitor: Literal["mcc", "accuracy", "f1", "auroc", "auprc", "loss"] = "mcc"  # on validation; selects the checkpoint


@dataclass
class ClassificationConfig(Config):
    """`task.name=classification`."""

    experiment: str = "classification"
    data: ClassificationDataOptions = field(default_factory=ClassificationDataOptions)
    model: ClassificationModelOptions = field(default_factory=ClassificationModelOptions)
    task: ClassificationTaskOptions = field(default_factory=ClassificationTaskOptions)
