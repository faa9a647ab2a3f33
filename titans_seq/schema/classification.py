"""Configuration keys of DNA classification."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from titans_seq.schema.common import Config, Conflict, DataOptions, TaskOptions, at_least, between
from titans_seq.schema.sequences import SequenceModelOptions


@dataclass
class ClassificationDataOptions(DataOptions):
    """Labelled sequences, their splits and batches."""

    # simulated; a dataset of GenomicBenchmarks; a task of GUE, such as tf/0; or a table, FASTA file or folder of them
    name: str = "simulated"
    batch_size: int = at_least(128, 1)
    max_length: int | None = at_least(None, 1)  # longer sequences are cut to their first bases; null: no limit
    both_strands: bool = False  # reverse-complement a random half of the training rows every epoch
    # Splits that the dataset does not define: first test, then validation rows are taken from the training rows.

    unit: Literal["row", "group", "chromosome"] = "row"  # unit that is never divided between splits
    fraction: float = between(0.1, 0, 1)  # fraction of the remaining rows for each split
    folds: int = at_least(0, 0)  # 2 or more: k-fold; the first split taken is fold `fold`
    fold: int = at_least(0, 0)  # index of the fold, from 0
    validation_chromosomes: list[str] = field(default_factory=list)  # with unit=chromosome
    test_chromosomes: list[str] = field(default_factory=list)  # likewise, where the dataset has no test split
    holdout_seed: int = between(0, 0, 2**32 - 1)  # seed of the splits, independent of `seed`: same rows for all seeds
    # Tables

    sequence: str = "sequence"  # name of the column of sequences
    label: str = "label"  # name of the column of classes
    group: str | None = None  # column of groups that stay in one split; null: the column group, if there is one
    # FASTA files

    labels: str | None = None  # table with columns id, label and optionally group; null: labels are in the headers
    header_label: str = r"\blabel=(\S+)"  # regular expression; its first group is the label
    bed: Any = None  # windows of the FASTA file: a BED file with the label in column 4, or {class: BED file}
    length: int | None = at_least(None, 1)  # bases of every window, centred on its interval; null: the interval itself
    beyond: Literal["refuse", "N"] = "refuse"  # windows over a chromosome's end: an error, or padded with N
    aliases: bool = False  # treat 1 as chr1 and MT as chrM
    rna: bool = False  # read U as T
    # GenomicBenchmarks

    reference: str | None = None  # genome (FASTA file, or a folder of two) for the official interval lists
    within: Literal["official", "test"] = "official"  # test: split the test file alone, without training rows


@dataclass
class ClassificationModelOptions(SequenceModelOptions):
    """The classifier: stem, backbone, mean over the sequence, head."""

    # one: the given strand; both_averaged: trained on one strand, evaluated by the mean of both strands' logits;
    # invariant: the mean of both strands' features, in training too.
    strand: Literal["one", "both_averaged", "invariant"] = "both_averaged"
    # Another run's folder (FOLDER/last: the newest run below FOLDER) or checkpoint, whose weights but the head's are
    # loaded.
    pretrained: str | None = None


@dataclass
class ClassificationTaskOptions(TaskOptions):
    """Loss of classification, fine-tuning and model selection."""

    name: Literal["classification"] = "classification"
    class_weights: Literal["none", "balanced"] = "none"  # balanced: every class has the same weight in the loss
    label_smoothing: float = between(0.0, 0, 1)  # probability taken from the label and spread over all classes
    # Trained weights: all; the head alone (linear probe); or the head first and, every `unfreeze_every` epochs, one
    # more block from the top, the stem last.
    unfreeze: Literal["all", "head", "gradual"] = "all"
    unfreeze_every: int = at_least(1, 1)  # epochs
    frozen_blocks: int = at_least(0, 0)  # the stem and the first blocks that are never trained
    layer_decay: float = between(1.0, 0, 1)  # learning rate of a block relative to the block (or head) above it
    monitor: Literal["mcc", "accuracy", "f1", "auroc", "auprc", "loss"] = (
        "mcc"  # validation score that selects the checkpoint
    )


@dataclass
class ClassificationConfig(Config):
    """Configuration with `task.name=classification`."""

    experiment: str = "classification"
    data: ClassificationDataOptions = field(default_factory=ClassificationDataOptions)
    model: ClassificationModelOptions = field(default_factory=ClassificationModelOptions)
    task: ClassificationTaskOptions = field(default_factory=ClassificationTaskOptions)

    def conflicts(self) -> Iterator[Conflict]:
        """Values that do not go together."""
        yield from super().conflicts()
        yield from self._finetuning_conflicts()
        yield from self._data_conflicts()

    def _finetuning_conflicts(self) -> Iterator[Conflict]:
        model, task = self.model, self.task
        if task.frozen_blocks > model.num_layers:
            rule = f"{task.frozen_blocks} exceeds model.num_layers={model.num_layers}"
            yield Conflict("task.frozen_blocks", "model.num_layers", rule)
        if task.unfreeze == "head" and task.frozen_blocks:
            rule = "has no effect with task.unfreeze=head; remove one of them"
            yield Conflict("task.frozen_blocks", "task.unfreeze", rule)
        if task.unfreeze == "gradual":
            reason = "gradual: not every parameter has a gradient at every step"
            yield from self.unused_parameter_conflicts("task.unfreeze", reason)
        if not task.layer_decay:
            rule = "0 would train the head alone; use task.unfreeze=head for that"
            yield Conflict("task.layer_decay", "task.layer_decay", rule)
        if task.label_smoothing == 1:
            yield Conflict("task.label_smoothing", "task.label_smoothing", "1 would erase the labels; must be below 1")
        if task.unfreeze != "gradual" and task.unfreeze_every > 1:
            rule = f"only applies to task.unfreeze=gradual; got task.unfreeze={task.unfreeze}"
            yield Conflict("task.unfreeze_every", "task.unfreeze", rule, no_effect=True)
        if task.unfreeze == "head" and task.layer_decay != 1:
            rule = "has no effect with task.unfreeze=head, which trains the head alone; remove one of them"
            yield Conflict("task.layer_decay", "task.unfreeze", rule, no_effect=True)

    def _data_conflicts(self) -> Iterator[Conflict]:
        data = self.data
        if data.folds == 1 or (data.folds and data.fold >= data.folds):
            rule = f"must be 0 to data.folds - 1, with at least 2 folds; got fold {data.fold} of {data.folds}"
            yield Conflict("data.fold", "data.folds", rule)
        for key in ("validation_chromosomes", "test_chromosomes"):
            if getattr(data, key) and data.unit != "chromosome":
                rule = f"requires data.unit=chromosome; got data.unit={data.unit}"
                yield Conflict(f"data.{key}", "data.unit", rule)
        if data.group is not None and data.unit != "group":
            rule = f"requires data.unit=group, which keeps groups together; got data.unit={data.unit}"
            yield Conflict("data.group", "data.unit", rule)
        if data.folds and data.unit == "chromosome":
            rule = "cannot be combined with data.unit=chromosome, which holds out named chromosomes"
            yield Conflict("data.folds", "data.unit", rule)
        named = isinstance(data.bed, dict) and all(isinstance(file, str) for file in data.bed.values())
        if not (data.bed is None or isinstance(data.bed, str) or named):
            yield Conflict("data.bed", "data.bed", "must be a BED file, or {class: file, ...}")
        if data.fold and not data.folds:
            yield Conflict("data.fold", "data.folds", f"{data.fold} requires data.folds", no_effect=True)
