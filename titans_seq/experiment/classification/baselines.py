"""Baselines of a classification run: label leakage and shortcut features."""

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.dna.audit.shortcuts import COMPOSITIONS, KmerCompositionClassifier, by_duplicates, by_length
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.overlap import match_numbers, sequence_numbers, strandless_numbers
from titans_seq.experiment.base import Scores
from titans_seq.tasks.classification import label_metrics


def measure_shortcuts(train: Examples, test: Examples, num_classes: int, *, either_strand: bool) -> dict[str, Scores]:
    """Return accuracy, F1 and MCC on `test` of classifiers that use one feature: length, k-mers, or duplicates.

    The duplicate classifier gives a row that is also a training row (with `either_strand`, or whose reverse complement
    is one) that row's class, and every other row the most common class of the training rows. Rows must be cut to
    what the model sees.
    """
    lengths = train.sequences.lengths, test.sequences.lengths
    train_numbers, test_numbers = _numbers(train, test, either_strand)
    duplicates = match_numbers(train_numbers, train.labels, test_numbers)
    predictions = {
        "majority class": np.full(len(test), np.bincount(train.labels).argmax()),
        "length alone": by_length(lengths[0], train.labels, lengths[1], num_classes),
        "copies of training rows": by_duplicates(duplicates, train.labels, num_classes),
    }
    for name, size in COMPOSITIONS.items():
        classifier = KmerCompositionClassifier(train.sequences, train.labels, num_classes, k=size)
        predictions[name] = classifier(test.sequences)
    return {name: _scores(predicted, test.labels, num_classes) for name, predicted in predictions.items()}


def count_duplicates(train: Examples, test: Examples, *, either_strand: bool) -> int:
    """Count rows of `test` that are also in `train`; with `either_strand`, reverse complements count too."""
    train_numbers, test_numbers = _numbers(train, test, either_strand)
    return int(np.isin(test_numbers, train_numbers).sum())


def _numbers(train: Examples, test: Examples, either_strand: bool) -> list[NDArray[np.int64]]:
    """Number the training and the test sequences, (n,) each: equal numbers are equal sequences."""
    number = strandless_numbers if either_strand else sequence_numbers
    return number([train.sequences, test.sequences])


def _scores(predicted: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> Scores:
    metrics = label_metrics(num_classes, "test")
    metrics.update(torch.from_numpy(predicted), torch.from_numpy(labels))
    return {name: float(value) for name, value in metrics.compute().items()}
