"""The baselines of a classification run: what the labels give away before any model of DNA is trained."""

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.clues import COMPOSITIONS, Composition, by_length, by_recognition
from datamodules.labelled import Rows
from datamodules.overlap import match_numbers, sequence_numbers
from titans_seq.experiment.recipe import Scores
from titans_seq.tasks.classification import answer_metrics


def measure_clues(train: Rows, test: Rows, num_classes: int, max_length: int | None = None) -> dict[str, Scores]:
    """Accuracy, F1 and MCC of classifiers that know one thing, on the rows `test`.

    Length counts as the model sees it, cut at `max_length`. A row that is a training row too gets that row's class,
    every other one the class that is commonest among training rows.
    """
    lengths = train.sequences.lengths, test.sequences.lengths
    copies = match_numbers(*_numbers(train, test))
    answers = {
        "majority class": np.full(len(test), np.bincount(train.labels).argmax()),
        "length alone": by_length(lengths[0], train.labels, lengths[1], num_classes, max_length),
        "copies of training rows": by_recognition(copies, train.labels, num_classes),
    }
    for name, size in COMPOSITIONS.items():
        answers[name] = Composition(train.sequences, train.labels, num_classes, k=size)(test.sequences)
    return {name: _scores(answer, test.labels, num_classes) for name, answer in answers.items()}


def count_copies(train: Rows, test: Rows) -> int:
    """Rows of `test` whose sequence is a training row's, letter by letter."""
    known, _, asked = _numbers(train, test)
    return int(np.isin(asked, known).sum())


def _numbers(train: Rows, test: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """A number for each training sequence, its class, and a number for each test sequence."""
    known, asked = sequence_numbers([train.sequences, test.sequences])
    return known, train.labels, asked


def _scores(answer: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> Scores:
    metrics = answer_metrics(num_classes, "test")
    metrics.update(torch.from_numpy(answer), torch.from_numpy(labels))
    return {name: float(value) for name, value in metrics.compute().items()}
