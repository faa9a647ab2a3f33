"""The baselines of a classification run: what the labels give away before any model of DNA is trained."""

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.dna.audit.shortcuts import COMPOSITIONS, KmerCompositionClassifier, by_duplicates, by_length
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.overlap import match_numbers, sequence_numbers, strandless_numbers
from titans_seq.experiment.base import Scores
from titans_seq.tasks.classification import label_metrics


def measure_shortcuts(train: Examples, test: Examples, num_classes: int, *, either_strand: bool) -> dict[str, Scores]:
    """Accuracy, F1 and MCC of classifiers that know one thing, on the rows `test`, all as the model sees them.

    A row that is a training row too (with `either_strand`, or its reverse complement) gets that row's class, every
    other one the class that is commonest among training rows.
    """
    lengths = train.sequences.lengths, test.sequences.lengths
    known, asked = _numbers(train, test, either_strand)
    copies = match_numbers(known, train.labels, asked)
    answers = {
        "majority class": np.full(len(test), np.bincount(train.labels).argmax()),
        "length alone": by_length(lengths[0], train.labels, lengths[1], num_classes),
        "copies of training rows": by_duplicates(copies, train.labels, num_classes),
    }
    for name, size in COMPOSITIONS.items():
        answers[name] = KmerCompositionClassifier(train.sequences, train.labels, num_classes, k=size)(test.sequences)
    return {name: _scores(answer, test.labels, num_classes) for name, answer in answers.items()}


def count_copies(train: Examples, test: Examples, *, either_strand: bool) -> int:
    """Rows of `test` whose sequence is a training row's, or, with `either_strand`, its reverse complement."""
    known, asked = _numbers(train, test, either_strand)
    return int(np.isin(asked, known).sum())


def _numbers(train: Examples, test: Examples, either_strand: bool) -> list[NDArray[np.int64]]:
    """A number for each training sequence and each test sequence."""
    number = strandless_numbers if either_strand else sequence_numbers
    return number([train.sequences, test.sequences])


def _scores(answer: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> Scores:
    metrics = label_metrics(num_classes, "test")
    metrics.update(torch.from_numpy(answer), torch.from_numpy(labels))
    return {name: float(value) for name, value in metrics.compute().items()}
