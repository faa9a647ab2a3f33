"""Loaders of other people: tuples and dictionaries are converted; what does not fit is an error that names it."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.helpers import SMALL_MODEL
from titans_seq.batch import ForecastBatch, SequenceBatch, SeriesBatch
from titans_seq.config import load_config, to_container
from titans_seq.errors import InputError
from titans_seq.tasks import ClassificationTask, ForecastingTask, PretrainingTask
from titans_seq.tasks.universal import UniversalTask

LENGTH, HORIZON, CHANNELS = 72, 48, 3
TINY = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2"]


class Dictionaries(Dataset[dict[str, torch.Tensor]]):
    """Rows of tensors as dictionaries."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: x[index] for name, x in self.tensors.items()}


def forecaster() -> ForecastingTask:
    overrides = [*SMALL_MODEL, f"data.horizon={HORIZON}", "task.warmup_steps=1"]
    return ForecastingTask(to_container(load_config([], overrides)), num_channels=CHANNELS)


def classifier() -> ClassificationTask:
    config = load_config([], ["task.name=classification", *TINY])
    return ClassificationTask(to_container(config), classes=["no", "yes"], class_counts=[4, 4])


def universal() -> UniversalTask:
    return UniversalTask(
        to_container(load_config([], ["task.name=universal", *TINY, "model.hidden=16", "trainer.epoch_batches=2"]))
    )


def pretraining() -> PretrainingTask:
    return PretrainingTask(to_container(load_config([], ["task.name=pretraining", "model.direction=forward", *TINY])))


def windows(count: int = 8, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(count, LENGTH + HORIZON, CHANNELS, dtype=dtype).cumsum(1)
    return values[:, :LENGTH], values[:, LENGTH:]


def sequences(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 4, (count, 40)), torch.arange(count) % 2


def loaders() -> Sequence[tuple[Any, Any, str]]:
    """Tasks, data sets that fit them, and the metric that they log."""
    context, target = windows()
    tokens, labels = sequences()
    series = torch.randn(8, 48, dtype=torch.float64).cumsum(1)
    return [
        (forecaster, TensorDataset(context, target), "val/mse"),
        (forecaster, Dictionaries(target=target, context=context), "val/mse"),
        (classifier, TensorDataset(tokens, labels), "val/loss"),
        (classifier, Dictionaries(labels=labels, tokens=tokens, mask=tokens < 4), "val/loss"),
        (universal, TensorDataset(series), "val/loss"),
        (universal, Dictionaries(values=series), "val/loss"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_plain_data_loader_trains(number: int) -> None:
    make, dataset, metric = loaders()[number]
    loader = DataLoader(dataset, batch_size=4)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, num_sanity_val_steps=0, **quiet)
    trainer.fit(make(), loader, loader)
    assert trainer.global_step == 2
    assert trainer.callback_metrics[metric].isfinite()


def test_predictions_need_no_targets() -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", **quiet)
    context, _ = windows()
    forecasts = trainer.predict(forecaster(), DataLoader(context, batch_size=4))
    assert forecasts is not None
    assert [x.shape for x in forecasts] == [(4, HORIZON, CHANNELS, 1)] * 2  # type: ignore[union-attr]
    scores = trainer.predict(classifier(), DataLoader(Dictionaries(tokens=sequences()[0]), batch_size=8))
    assert scores is not None
    assert scores[0][1].shape == (8, 2)


def test_the_order_of_a_tuple_and_the_names_of_a_dictionary() -> None:
    task, (context, target) = forecaster(), windows()
    batch = task.as_batch([context, target])
    assert isinstance(batch, ForecastBatch)
    assert batch.context.dtype == torch.float32
    assert torch.equal(batch.context, context.float())
    assert torch.equal(task.as_batch({"target": target, "context": context}).target, batch.target)
    assert task.as_batch(batch) is batch
    tokens, labels = sequences()
    tokens[0, 30:] = 5
    labelled = classifier().as_batch((tokens, labels))
    assert isinstance(labelled, SequenceBatch)
    assert torch.equal(labelled.mask, tokens != 5)
    series = universal().as_batch({"values": torch.zeros(2, 48), "period": torch.tensor([7, 0])})
    assert isinstance(series, SeriesBatch)
    assert series.period.tolist() == [7, 0]


CONTEXT, TARGET = windows(2, torch.float32)
REFUSED = [
    (forecaster, (CONTEXT[..., :2], TARGET[..., :2]), "context has 2 channels; the task was built for num_channels=3"),
    (forecaster, (CONTEXT, TARGET[..., :1]), "target has 1 channels; the task was built for num_channels=3"),
    (forecaster, (CONTEXT[:, 1:], TARGET), "context has 71 steps; the task was built for data.context_length=72"),
    (forecaster, (CONTEXT, TARGET[:, 1:]), "target has 47 steps; the task was built for data.horizon=48"),
    (forecaster, (CONTEXT[..., 0], TARGET), r"context must be \(windows, steps, channels\)"),
    (forecaster, ForecastBatch(CONTEXT[..., :2], TARGET, torch.arange(2)), "context has 2 channels"),
    (forecaster, (CONTEXT,), "tensors context, target and, if it has them, start, covariates; got a tuple of 1 values"),
    (forecaster, {"x": CONTEXT, "y": TARGET}, "got a dictionary of x, y"),
    (forecaster, {"context": CONTEXT, "target": TARGET, "weight": TARGET}, "a dictionary of context, target, weight"),
    (forecaster, "text", "got a str"),
    (classifier, (sequences(2)[0], torch.tensor([0, 2])), "labels must be one class number below 2 .* from 0 to 2"),
    (classifier, (sequences(2)[0].float(), torch.tensor([0, 1])), "tokens must be .* of integers from 0 to 5"),
    (classifier, (sequences(2)[0] + 4, torch.tensor([0, 1])), "tokens must be .* of integers from 0 to 5"),
    (universal, (torch.zeros(2, 48, 3),), r"values must be \(series, steps\); got float32 \(2, 48, 3\)"),
    (pretraining, sequences(2), "a batch must be a titans_seq.batch.StreamBatch"),
]


@pytest.mark.parametrize(("make", "batch", "message"), REFUSED)
def test_a_batch_that_does_not_fit_is_an_error(make: Any, batch: Any, message: str) -> None:
    task = make()
    with pytest.raises(InputError, match=f"{type(task).__name__}: .*{message}"):
        task.as_batch(batch)
