"""Lightning task of a DNA classifier: training, metrics and prediction."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

from titans_seq.batch import SequenceBatch
from titans_seq.models.classifier import SequenceClassifier
from titans_seq.schema import ClassificationConfig
from titans_seq.tasks.base import Task
from titans_seq.tasks.batches import sequence_batch
from titans_seq.tasks.finetuning import freeze, learning_rate_scale, lowest_trained
from titans_seq.tasks.optimizer import configure
from titans_seq.tasks.sequences import build_sequence_backbone


class _PositiveAUROC(BinaryAUROC):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds[:, 1], target)


class _PositiveAveragePrecision(BinaryAveragePrecision):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds[:, 1], target)


class _MatthewsCorrelation(MulticlassMatthewsCorrCoef):
    """Matthews correlation that is 0 where only one class is predicted or true.

    So do scikit-learn and the audit; torchmetrics returns a limit value instead.
    """

    def compute(self) -> Tensor:
        true_classes, predicted_classes = ((self.confmat.sum(dim=axis) > 0).sum() for axis in (1, 0))
        correlation: Tensor = super().compute()
        return correlation if min(true_classes, predicted_classes) > 1 else torch.zeros_like(correlation)


def label_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Accuracy, macro F1 and Matthews correlation, for class numbers (n,) or probabilities (n, K)."""
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "f1": MulticlassF1Score(num_classes, average="macro"),
        "mcc": _MatthewsCorrelation(num_classes),
    }
    return MetricCollection(metrics, prefix=f"{prefix}/")


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """`label_metrics` and the areas under the ROC and the precision-recall curve, for probabilities (n, K).

    With two classes the areas are those of class 1, otherwise the one-vs-rest means over the classes.
    """
    metrics: dict[str, Metric | MetricCollection] = dict(label_metrics(num_classes, prefix).items(keep_base=True))
    if num_classes == 2:
        metrics |= {"auroc": _PositiveAUROC(), "auprc": _PositiveAveragePrecision()}
    else:
        metrics |= {"auroc": MulticlassAUROC(num_classes), "auprc": MulticlassAveragePrecision(num_classes)}
    return MetricCollection(metrics, prefix=f"{prefix}/")


def build_classifier(config: ClassificationConfig, num_classes: int) -> SequenceClassifier:
    """Build the configured classifier at initialisation."""
    model = config.model
    return SequenceClassifier(
        build_sequence_backbone(model),
        dim=model.dim,
        num_classes=num_classes,
        stem_width=model.stem_width,
        stride=model.stride,
        stem_pool=model.stem_pool,
        dropout=model.head_dropout,
        strand=model.strand,
    )


class ClassificationTask(Task):
    """A `SequenceClassifier` with its loss (cross entropy), metrics and optimiser.

    Metrics are `<split>/accuracy`, `f1`, `mcc`, `auroc`, `auprc` and `loss`, for the splits val and test; this
    `loss` is the log loss without class weights or label smoothing.

    Args:
        config: see `Task`.
        classes: class names by class number, saved in checkpoints with the model.
        class_counts: training rows of each class, for `task.class_weights=balanced`.
    """

    config: ClassificationConfig
    model: SequenceClassifier

    def __init__(self, config: dict[str, Any], classes: Sequence[str], class_counts: Sequence[int]) -> None:
        super().__init__(config)
        self.save_hyperparameters()
        assert isinstance(self.config, ClassificationConfig)
        options = self.config.task
        self.classes = tuple(classes)
        self.monitor = f"val/{options.monitor}"
        self.mode = "min" if options.monitor == "loss" else "max"
        self.model = build_classifier(self.config, len(classes))
        counts = torch.tensor(class_counts, dtype=torch.float)
        weights = counts.sum() / (len(counts) * counts) if options.class_weights == "balanced" else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.val_metrics = classification_metrics(len(classes), "val")
        self.test_metrics = classification_metrics(len(classes), "test")
        self.test_predictions: list[tuple[Tensor, Tensor]] = []  # probabilities (B, K) and labels (B,) of the last test

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return class scores (B, K) of tokens (B, T) with mask (B, T)."""
        scores: Tensor = self.model(tokens, mask)
        return scores

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the configured optimiser, with layer-wise learning rates by `task.layer_decay`."""
        options, blocks = self.config.task, self.config.model.num_layers
        return configure(self.model, options, self.trainer, lambda name: learning_rate_scale(name, options, blocks))

    def as_batch(self, batch: Any, *, with_targets: bool = True) -> SequenceBatch:
        """Return a `SequenceBatch`; also accepts tokens, labels and, if known, mask and rows."""
        return sequence_batch(batch, type(self).__name__, len(self.classes), with_targets=with_targets)

    def setup(self, stage: str) -> None:
        """Freeze permanently frozen layers early: multi-device strategies inspect `requires_grad` at setup."""
        if stage == "fit" and self.config.task.unfreeze != "gradual":
            self.on_train_epoch_start()

    def on_train_start(self) -> None:
        """Freeze layers also when training resumes within an epoch, which does not call `on_train_epoch_start`."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Freeze the layers that this epoch does not train; AdamW skips parameters without a gradient."""
        blocks = self.config.model.num_layers
        freeze(self.model, blocks, lowest_trained(self.config.task, blocks, self.current_epoch))

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Return the training loss of a batch."""
        weights = cast(Tensor | None, self.class_weights)
        smoothing = self.config.task.label_smoothing
        scores = self(batch.tokens, batch.mask)
        # Not torch's weighted mean, which divides by the weights of the batch: in a batch of one class, as batches of
        # similar lengths often are, the weights would cancel. Over the training rows the mean weight is 1.
        total = F.cross_entropy(scores, batch.labels, weights, reduction="sum", label_smoothing=smoothing)
        loss = total / len(batch.labels)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._measure("val", self.val_metrics, batch)

    def on_test_start(self) -> None:
        """Clear the predictions of an earlier test."""
        self.test_predictions.clear()

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        probabilities = self._measure("test", self.test_metrics, batch)
        self.test_predictions.append((probabilities.cpu(), batch.labels.cpu()))

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return the rows of a batch, (B,), and their class scores, (B, K)."""
        return batch.rows, self(batch.tokens, batch.mask).float()

    def _measure(self, split: str, metrics: MetricCollection, batch: SequenceBatch) -> Tensor:
        """Update the metrics with a batch and return its class probabilities (B, K)."""
        scores = self(batch.tokens, batch.mask).float()
        probabilities: Tensor = scores.softmax(dim=1)
        metrics.update(probabilities, batch.labels)
        size = len(batch.labels)
        loss = F.cross_entropy(scores, batch.labels)
        self.log(f"{split}/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return probabilities
