"""The recipe of a DNA classification run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_roc, multiclass_confusion_matrix

from datamodules.common.messages import ambiguous_note, listed
from datamodules.dna.classification.bucketing import SequenceLoader
from datamodules.dna.classification.datamodule import SequenceDataModule
from datamodules.dna.classification.holdout import Holdout
from datamodules.dna.classification.labelled import Rows, SequenceSource
from datamodules.dna.datasets.catalogue import open_data, read_unlabelled
from datamodules.dna.datasets.fasta import BedWindows, LabelledFasta
from datamodules.dna.datasets.genomic_benchmarks import GenomicBenchmark
from datamodules.dna.datasets.gue import GUE
from datamodules.dna.datasets.simulated_motif import BEST_ACCURACY, PlantedMotif
from datamodules.dna.datasets.table import SequenceTable
from datamodules.dna.sequences import Sequences
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.pretrained import load_pretrained
from titans_seq.experiment.recipe import Recipe, Scores
from titans_seq.experiment.sequence_baselines import count_copies, measure_shortcuts
from titans_seq.plots import plot_answers
from titans_seq.schema import ClassificationConfig, ClassificationDataOptions, Config
from titans_seq.tasks import ClassificationTask

_SHOWN = 200  # rows of a table for a tracker


def build_source(options: ClassificationDataOptions) -> SequenceSource:
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
            beyond=options.beyond,
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


class ClassificationRecipe(Recipe[ClassificationTask]):
    """DNA sequences to their classes."""

    config: ClassificationConfig
    picture = "classes"

    def __init__(self, config: Config) -> None:
        assert isinstance(config, ClassificationConfig)
        super().__init__(config)
        self.columns = {
            "test/accuracy": "accuracy",
            "test/mcc": "MCC",
            "test/f1": "F1",
            "test/auroc": "AUROC",
            "test/auprc": "AUPRC",
        }
        self.simulated = config.data.name == "simulated"

    @cached_property
    def data(self) -> SequenceDataModule:
        """The sequences, read, checked and split."""
        options = self.config.data
        data = SequenceDataModule(
            build_source(options),
            batch_size=options.batch_size,
            max_length=options.max_length,
            both_strands=options.both_strands,
            holdout=build_holdout(options),
            seed=self.config.seed,
        )
        data.prepare_data()
        data.setup()
        return data

    def new_task(self) -> ClassificationTask:
        """The task for the data's classes, started from another run's weights if the configuration says so."""
        counts = self.data.class_counts.tolist()
        task = ClassificationTask(to_container(self.config), list(self.data.class_names), counts)
        if self.config.model.pretrained:
            self.started_from = load_pretrained(task, self.config.model.pretrained)
        return task

    def restored_task(self, hyperparameters: Mapping[str, Any]) -> ClassificationTask:
        """The task as it was, but for the weights."""
        classes, counts = hyperparameters["classes"], hyperparameters["class_counts"]
        return ClassificationTask(to_container(self.config), classes, counts)

    def check_data(self, task: ClassificationTask, source: str) -> None:
        """Raise InputError for other classes."""
        if task.classes != self.data.class_names:
            raise InputError(
                f"{source}: trained on the classes {listed(task.classes)}; {self.data.splits.name} has "
                f"{listed(self.data.class_names)}"
            )

    def describe(self) -> str:
        """The data set, its classes and the rows of its splits."""
        simulated = f" (simulated DNA, made by this program; best possible accuracy {BEST_ACCURACY})"
        counts = ", ".join(f"{rows:,} {split}" for split, rows in self._split_rows().items())
        name = f"{self.data.splits.name}{simulated if self.simulated else ''}"
        return f"{name}: {len(self.data.class_names)} classes, {counts} sequences"

    def notes(self) -> tuple[str, ...]:
        """What the data module noticed, test rows that training has seen, and weights that were loaded."""
        copies, rows = self._copies, len(self.data.rows("test"))
        strand = ", on either strand" if self._either_strand else ""
        leak = (
            f"{self.data.splits.name}: {copies} of {rows} test rows are training rows too{strand}; see `titans-seq "
            "audit`"
        )
        learned = [self.started_from] if self.started_from else []
        return (*self.data.splits.notes, *([leak] if copies else []), *learned)

    @cached_property
    def _copies(self) -> int:
        rows = (self._shown(self.data.rows(split)) for split in ("train", "test"))
        return count_copies(*rows, either_strand=self._either_strand)

    @property
    def _either_strand(self) -> bool:
        """Whether the model learns from both strands, or answers by both."""
        return self.config.data.both_strands or self.config.model.strand != "one"

    def _shown(self, rows: Rows) -> Rows:
        """The rows with no more bases than the model sees."""
        longest = self.config.data.max_length
        if longest is None:
            return rows
        return replace(rows, sequences=rows.sequences.take(np.arange(len(rows)), max_length=longest), intervals=None)

    def _split_rows(self) -> dict[str, int]:
        return {split: len(self.data.rows(split)) for split in ("train", "validation", "test")}

    def fingerprint(self) -> dict[str, Any]:
        """Digests of the data and their splits."""
        return self.data.fingerprint()

    def facts(self) -> dict[str, Any]:
        """What the results say about the data."""
        return {
            "data": self.data.splits.name,
            "simulated": self.simulated,
            **({"best_possible_accuracy": BEST_ACCURACY} if self.simulated else {}),
            "classes": list(self.data.class_names),
            "pretrained": self.config.model.pretrained,
            "rows": self._split_rows(),
            "test_rows": len(self._measured()),
            "test_rows_in_train": self._copies,
            "notes": list(self.notes()),
        }

    def _measured(self) -> NDArray[np.int64]:
        """Test rows that the test metrics cover: all, unless trainer.limit_batches leaves some out."""
        limit = self.config.trainer.limit_batches or None
        return np.concatenate(self.data.test_dataloader().sampler()[:limit])

    def baselines(self) -> dict[str, Scores]:
        """What length, composition and copies of training rows give away."""
        train, test = self.data.rows("train"), self.data.rows("test").take(self._measured())
        rows = self._shown(train), self._shown(test)
        return measure_shortcuts(*rows, len(self.data.class_names), either_strand=self._either_strand)

    def title(self) -> str:
        """Says on what, and on how much of it."""
        on = "simulated DNA" if self.simulated else self.data.splits.name
        which = "the shortest" if self.config.trainer.limit_batches else "all"
        return f"Test scores on {on}, {which} {len(self._measured()):,} sequences"

    def draw(self, task: ClassificationTask, path: Path) -> None:
        """ROC curves (of class 1, or of each of several classes against the others) and confusion matrix."""
        probabilities, labels = (torch.cat(parts) for parts in zip(*task.test_predictions, strict=True))
        shown_classes = task.classes[1:] if len(task.classes) == 2 else task.classes
        curves = {}
        for name in shown_classes:
            k = task.classes.index(name)
            false, true, _ = binary_roc(probabilities[:, k], (labels == k).long())
            curves[name] = (false.numpy(), true.numpy())
        counts = multiclass_confusion_matrix(probabilities, labels, len(task.classes)).numpy()
        plot_answers(path, curves=curves, counts=counts, classes=task.classes, title=self.title())

    def tables(self, task: ClassificationTask) -> dict[str, pl.DataFrame]:
        """The confusion matrix as pairs of classes with counts, and what was answered to the first test rows."""
        probabilities, labels = (torch.cat(parts) for parts in zip(*task.test_predictions, strict=True))
        names, number = task.classes, len(task.classes)
        counts = multiclass_confusion_matrix(probabilities, labels, number).numpy()
        pairs = [(true, said, int(counts[i, j])) for i, true in enumerate(names) for j, said in enumerate(names)]
        shown = probabilities[:_SHOWN].double().numpy()
        label = pl.Series("label", [names[k] for k in labels[:_SHOWN].tolist()])
        return {
            "confusion": pl.DataFrame(pairs, schema=["true", "predicted", "count"], orient="row"),
            "predictions": pl.DataFrame([label, *_answers(names, shown)]),
        }

    def predict_test(self, task: ClassificationTask, trainer: Trainer) -> pl.DataFrame:
        """A row per test sequence: `row` in the split, `label`, `predicted`, `probability_<class>`."""
        rows, scores = _predict(task, trainer, self.data.test_dataloader())
        labels = pl.Series("label", [task.classes[k] for k in self.data.rows("test").labels[rows]])
        return pl.DataFrame([pl.Series("row", rows), labels, *_answers(task.classes, softmax(scores))])

    def predict_file(self, task: ClassificationTask, trainer: Trainer, path: Path) -> pl.DataFrame:
        """A row per sequence of a table or FASTA file, in its order: `id`, `predicted`, `probability_<class>`."""
        options = self.config.data
        names, sequences = read_unlabelled(path.expanduser(), sequence=options.sequence, rna=options.rna)
        longest = options.max_length
        if longest and (cut := int((sequences.lengths > longest).sum())):
            print(f"{path}: {cut:,} of {len(sequences):,} sequences are cut at data.max_length={longest} bases")
        say_ambiguous(path, sequences)
        probabilities = softmax(score_sequences(self, task, trainer, sequences))
        return pl.DataFrame([pl.Series("id", names), *_answers(task.classes, probabilities)])


def say_ambiguous(path: Path, sequences: Sequences) -> None:
    """Tell the user how many letters of a file became N."""
    for note in ambiguous_note(path, sequences.ambiguous):
        print(note)


def score_sequences(
    recipe: ClassificationRecipe, task: ClassificationTask, trainer: Trainer, sequences: Sequences
) -> NDArray[np.float64]:
    """Class scores (n, K) of sequences in their order, without trainer.limit_batches."""
    options = recipe.config.data
    labels = np.zeros(len(sequences), dtype=np.int64)  # nobody looks at them
    loader = SequenceLoader(Rows(sequences, labels), options.batch_size, max_length=options.max_length)
    return _predict(task, trainer, loader)[1]


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (n, K) from scores (n, K)."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _predict(
    task: ClassificationTask, trainer: Trainer, loader: SequenceLoader
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows (n,) in ascending order, and their class scores (n, K)."""
    batches = trainer.predict(task, dataloaders=loader)
    assert batches
    rows, scores = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    order = rows.argsort()
    return rows[order].numpy(), scores[order].double().numpy()


def _answers(classes: Sequence[str], probabilities: NDArray[np.float64]) -> list[pl.Series]:
    """The likeliest class and the probability of every class, as columns."""
    predicted = pl.Series("predicted", [classes[k] for k in probabilities.argmax(axis=1)])
    return [predicted, *(pl.Series(f"probability_{name}", probabilities[:, k]) for k, name in enumerate(classes))]
