"""The experiment of a DNA classification run."""

from collections.abc import Mapping
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

from datamodules.common.messages import listed
from datamodules.dna.classification.datamodule import SequenceDataModule
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.datasets.catalogue import read_unlabelled
from datamodules.dna.datasets.simulated_motif import BEST_ACCURACY
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.base import Description, Experiment, Scores
from titans_seq.experiment.classification.baselines import count_duplicates, measure_shortcuts
from titans_seq.experiment.classification.data import build_holdout, build_sequence_source
from titans_seq.experiment.classification.inference import (
    class_columns,
    predict_scores,
    print_ambiguous,
    score_sequences,
    softmax,
)
from titans_seq.experiment.classification.plots import plot_classes, short_class
from titans_seq.experiment.classification.transfer import load_pretrained
from titans_seq.schema import ClassificationConfig, Config
from titans_seq.tasks import ClassificationTask

_TABLE_ROWS = 200  # rows of the table of predictions for W&B


class ClassificationExperiment(Experiment[ClassificationTask]):
    """Classification of DNA sequences."""

    config: ClassificationConfig
    config_class = ClassificationConfig
    plot_name = "classes"

    def __init__(self, config: Config) -> None:
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
            build_sequence_source(options),
            batch_size=options.batch_size,
            max_length=options.max_length,
            both_strands=options.both_strands,
            holdout=build_holdout(options),
            seed=self.config.seed,
        )
        data.prepare_data()
        data.setup()
        return data

    def new_task(self) -> tuple[ClassificationTask, str]:
        """The task for the data's classes, initialised with `model.pretrained` if that is set."""
        counts = self.data.class_counts.tolist()
        task = ClassificationTask(to_container(self.config), list(self.data.class_names), counts)
        pretrained = self.config.model.pretrained
        return task, load_pretrained(task, pretrained) if pretrained else ""

    def restored_task(self, hyperparameters: Mapping[str, Any]) -> ClassificationTask:
        """The checkpoint's task, before its weights are loaded."""
        classes, counts = hyperparameters["classes"], hyperparameters["class_counts"]
        return ClassificationTask(to_container(self.config), classes, counts)

    def check_data(self, task: ClassificationTask, source: str) -> None:
        """Raise InputError if the data have other classes than the checkpoint."""
        if task.classes != self.data.class_names:
            raise InputError(
                f"{source}: trained on the classes {listed(task.classes)}; {self.data.splits.name} has "
                f"{listed(self.data.class_names)}"
            )

    def describe(self) -> Description:
        """The variant, the dataset, its classes and the sizes of its splits."""
        simulated = f" (simulated DNA, made by this program; best possible accuracy {BEST_ACCURACY})"
        counts = ", ".join(f"{rows:,} {split}" for split, rows in self._split_rows().items())
        name = f"{self.data.splits.name}{simulated if self.simulated else ''}"
        on = "simulated DNA" if self.simulated else self.data.splits.name
        which = "the shortest" if self.config.trainer.limit_batches else "all"
        return Description(
            self.config.model.variant.upper(),
            f"{name}: {len(self.data.class_names)} classes, {counts} sequences",
            f"Test scores on {on}, {which} {len(self._tested_rows()):,} sequences",
        )

    def notes(self) -> tuple[str, ...]:
        """Messages of the data module, and the number of test rows that duplicate training rows."""
        duplicates, rows = self._duplicates, len(self.data.rows("test"))
        strand = ", on either strand" if self._either_strand else ""
        leak = (
            f"{self.data.splits.name}: {duplicates} of {rows} test rows duplicate training rows{strand}; see "
            "`titans-seq audit`"
        )
        return (*self.data.splits.notes, *([leak] if duplicates else []))

    @cached_property
    def _duplicates(self) -> int:
        rows = (self._cut(self.data.rows(split)) for split in ("train", "test"))
        return count_duplicates(*rows, either_strand=self._either_strand)

    @property
    def _either_strand(self) -> bool:
        """Whether the model is trained or evaluated on both strands."""
        return self.config.data.both_strands or self.config.model.strand != "one"

    def _cut(self, rows: Examples) -> Examples:
        """Cut sequences to the bases that the model sees, data.max_length."""
        longest = self.config.data.max_length
        if longest is None:
            return rows
        return replace(rows, sequences=rows.sequences.take(np.arange(len(rows)), max_length=longest), intervals=None)

    def _split_rows(self) -> dict[str, int]:
        return {split: len(self.data.rows(split)) for split in ("train", "validation", "test")}

    def fingerprint(self) -> dict[str, Any]:
        """Hashes of the data and of their splits."""
        return self.data.fingerprint()

    def metadata(self) -> dict[str, Any]:
        """Entries of results.json about the data."""
        return {
            "data": self.data.splits.name,
            "simulated": self.simulated,
            **({"best_possible_accuracy": BEST_ACCURACY} if self.simulated else {}),
            "classes": list(self.data.class_names),
            "pretrained": self.config.model.pretrained,
            "rows": self._split_rows(),
            "test_rows": len(self._tested_rows()),
            "test_rows_in_train": self._duplicates,
            "notes": list(self.notes()),
        }

    def _tested_rows(self) -> NDArray[np.int64]:
        """Indices of the test rows that the test metrics cover: all, unless trainer.limit_batches leaves some out."""
        limit = self.config.trainer.limit_batches or None
        return np.concatenate(self.data.test_dataloader().sampler()[:limit])

    def baselines(self) -> dict[str, Scores]:
        """Test scores of the shortcut classifiers: length, k-mer composition, duplicates of training rows."""
        train, test = self.data.rows("train"), self.data.rows("test").take(self._tested_rows())
        rows = self._cut(train), self._cut(test)
        return measure_shortcuts(*rows, len(self.data.class_names), either_strand=self._either_strand)

    def draw(self, task: ClassificationTask, path: Path) -> None:
        """Plot ROC curves (of class 1, or one-vs-rest of each of several classes) and the confusion matrix."""
        probabilities, labels = (torch.cat(parts) for parts in zip(*task.test_predictions, strict=True))
        is_binary, names = len(task.classes) == 2, [short_class(name) for name in task.classes]
        curves = {}
        for k in range(1 if is_binary else 0, len(names)):
            false_positive, true_positive, _ = binary_roc(probabilities[:, k], (labels == k).long())
            which = f"{names[k]} (positive) vs {names[0]}" if is_binary else f"{names[k]} vs rest"
            curves[which] = (false_positive.numpy(), true_positive.numpy())
        counts = multiclass_confusion_matrix(probabilities, labels, len(task.classes)).numpy()
        plot_classes(path, curves=curves, counts=counts, classes=task.classes, title=self.describe().title)

    def tables(self, task: ClassificationTask) -> dict[str, pl.DataFrame]:
        """The confusion matrix as pairs of classes with counts, and the predictions for the first test rows."""
        probabilities, labels = (torch.cat(parts) for parts in zip(*task.test_predictions, strict=True))
        names, number = task.classes, len(task.classes)
        counts = multiclass_confusion_matrix(probabilities, labels, number).numpy()
        pairs = [(true, pred, int(counts[i, j])) for i, true in enumerate(names) for j, pred in enumerate(names)]
        first = probabilities[:_TABLE_ROWS].double().numpy()
        label = pl.Series("label", [names[k] for k in labels[:_TABLE_ROWS].tolist()])
        return {
            "confusion": pl.DataFrame(pairs, schema=["true", "predicted", "count"], orient="row"),
            "predictions": pl.DataFrame([label, *class_columns(names, first)]),
        }

    def predict_test(self, task: ClassificationTask, trainer: Trainer) -> pl.DataFrame:
        """One row per test sequence: `row` in the split, `label`, `predicted`, `probability_<class>`."""
        rows, scores = predict_scores(task, trainer, self.data.test_dataloader())
        labels = pl.Series("label", [task.classes[k] for k in self.data.rows("test").labels[rows]])
        return pl.DataFrame([pl.Series("row", rows), labels, *class_columns(task.classes, softmax(scores))])

    def predict_file(self, task: ClassificationTask, trainer: Trainer, path: Path) -> pl.DataFrame:
        """One row per sequence of a table or FASTA file, in its order: `id`, `predicted`, `probability_<class>`."""
        options = self.config.data
        names, sequences = read_unlabelled(path.expanduser(), sequence=options.sequence, rna=options.rna)
        longest = options.max_length
        if longest and (cut := int((sequences.lengths > longest).sum())):
            print(f"{path}: {cut:,} of {len(sequences):,} sequences are cut at data.max_length={longest} bases")
        print_ambiguous(path, sequences)
        probabilities = softmax(score_sequences(options, task, trainer, sequences))
        return pl.DataFrame([pl.Series("id", names), *class_columns(task.classes, probabilities)])
