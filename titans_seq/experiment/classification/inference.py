"""Class scores and probabilities of sequences from a trained classifier."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from datamodules.common.messages import ambiguous_note
from datamodules.dna.classification.bucketing import SequenceLoader
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.sequences import Sequences
from titans_seq.schema import ClassificationDataOptions
from titans_seq.tasks import ClassificationTask


def print_ambiguous(path: Path, sequences: Sequences) -> None:
    """Print how many ambiguous letters of a file were read as N."""
    for note in ambiguous_note(path, sequences.ambiguous):
        print(note)


def score_sequences(
    options: ClassificationDataOptions, task: ClassificationTask, trainer: Trainer, sequences: Sequences
) -> NDArray[np.float64]:
    """Return class scores (n, K) of sequences, in their order; trainer.limit_batches is ignored."""
    labels = np.zeros(len(sequences), dtype=np.int64)  # ignored
    loader = SequenceLoader(Examples(sequences, labels), options.batch_size, max_length=options.max_length)
    return predict_scores(task, trainer, loader)[1]


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities (n, K) of scores (n, K)."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def predict_scores(
    task: ClassificationTask, trainer: Trainer, loader: SequenceLoader
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the row indices (n,) in ascending order, and their class scores (n, K)."""
    batches = trainer.predict(task, dataloaders=loader)
    assert batches
    rows, scores = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    order = rows.argsort()
    return rows[order].numpy(), scores[order].double().numpy()


def class_columns(classes: Sequence[str], probabilities: NDArray[np.float64]) -> list[pl.Series]:
    """Return columns with the most likely class and the probability of every class."""
    predicted = pl.Series("predicted", [classes[k] for k in probabilities.argmax(axis=1)])
    return [predicted, *(pl.Series(f"probability_{name}", probabilities[:, k]) for k, name in enumerate(classes))]
