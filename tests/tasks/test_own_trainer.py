"""Every task in a plain Lightning trainer: its features, two steps each, and resuming within an epoch."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner.tuning import Tuner

from tests.experiment.dna import MOTIF, PRETRAIN
from tests.helpers import CONFIGS, SMALL_MODEL
from titans_seq.config import load_config
from titans_seq.errors import InputError
from titans_seq.experiment.base import Experiment
from titans_seq.experiment.registry import build_experiment
from titans_seq.tasks import Task

TINY = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2"]
STILL = ["model.dropout=0", "model.head_dropout=0"]  # Lightning's checkpoints have no random state
UNIVERSAL = ["model.hidden=16", "data.lengths=[48]", "data.shares=null", "data.batch_size=4"]
UNIVERSAL += ["data.held_out_batches=2", "trainer.epoch_batches=8"]
CASES = {
    "forecasting": (CONFIGS / "forecasting" / "synthetic.yaml", [*SMALL_MODEL, *STILL]),
    "classification": (MOTIF, [*TINY, *STILL, "data.batch_size=16"]),
    "pretraining": (PRETRAIN, [*TINY, *STILL, "data.segment=32", "data.batch_size=4"]),
    "universal": (CONFIGS / "forecasting" / "universal.yaml", [*TINY, *UNIVERSAL]),
}
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "limit_predict_batches": 2,
    "max_epochs": 1,
}


class Case:
    """The data and new tasks of one configuration."""

    def __init__(self, name: str) -> None:
        file, overrides = CASES[name]
        self.config = load_config([file], [*overrides, "task.warmup_steps=1"])
        self.experiment: Experiment[Any] = build_experiment(self.config)
        self.data: LightningDataModule = self.experiment.data

    def task(self) -> Task:
        """A task with the same weights at every call."""
        torch.manual_seed(0)
        task: Task = self.experiment.new_task()[0]
        return task


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def fit(case: Case, **options: Any) -> tuple[Trainer, Task]:
    """Train a new task with a plain trainer."""
    trainer, task = Trainer(**{**QUIET, **options}), case.task()
    trainer.fit(task, datamodule=case.data)
    return trainer, task


class Seen(Callback):
    """The first values of every training batch, by step."""

    def __init__(self) -> None:
        self.batches: dict[int, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches[trainer.global_step] = [float(x.float().nansum()) for x in batch if isinstance(x, torch.Tensor)]


def test_fit_validate_test_and_predict(case: Case) -> None:
    trainer, task = fit(case)
    assert trainer.global_step == 2
    assert task.monitor in trainer.validate(task, datamodule=case.data, verbose=False)[0]
    assert trainer.test(task, datamodule=case.data, verbose=False)
    predicted = trainer.predict(task, datamodule=case.data)
    assert predicted is not None
    assert len(predicted) == 2


def test_a_csv_logger_gets_metrics_and_the_configuration(case: Case, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    _, task = fit(case, logger=logger, log_every_n_steps=1, callbacks=[LearningRateMonitor("step")])
    hyperparameters = yaml.safe_load((tmp_path / "hparams.yaml").read_text())
    assert hyperparameters["model"]["dim"] == 8
    assert hyperparameters["task"]["name"] == case.config.task.name
    with (tmp_path / "metrics.csv").open(newline="") as file:
        names = set(next(csv.reader(file)))
    assert {"train/loss", task.monitor, "lr-AdamW/pg1"} <= names


def weight_averages(tmp_path: Path) -> dict[str, Any]:
    return {"callbacks": [EMAWeightAveraging(decay=0.9)]}


def stochastic_weight_averages(tmp_path: Path) -> dict[str, Any]:
    return {"callbacks": [StochasticWeightAveraging(1e-3, swa_epoch_start=1)], "max_epochs": 2}


def simple_profile(tmp_path: Path) -> dict[str, Any]:
    return {"profiler": "simple"}


def accumulated_gradients(tmp_path: Path) -> dict[str, Any]:
    return {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}


def bfloat16(tmp_path: Path) -> dict[str, Any]:
    return {"precision": "bf16-mixed"}


def a_few_steps(tmp_path: Path) -> dict[str, Any]:
    return {"max_epochs": -1, "max_steps": 3, "limit_val_batches": 0}


FEATURES = [weight_averages, stochastic_weight_averages, simple_profile, accumulated_gradients, bfloat16, a_few_steps]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.__name__)
def test_features_of_the_trainer(case: Case, tmp_path: Path, feature: Callable[[Path], dict[str, Any]]) -> None:
    trainer, task = fit(case, **feature(tmp_path))
    assert trainer.global_step >= 1
    assert all(parameter.isfinite().all() for parameter in task.parameters())


def test_the_tuner_finds_a_learning_rate_and_a_batch_size(case: Case, tmp_path: Path) -> None:
    trainer, task = Trainer(**{**QUIET, "default_root_dir": tmp_path, "limit_train_batches": 1.0}), case.task()
    tuner, before = Tuner(trainer), case.data.batch_size
    found = tuner.lr_find(task, datamodule=case.data, num_training=4, early_stop_threshold=None, update_attr=False)
    assert found is not None
    assert len(found.results["lr"]) == 4
    tuner.scale_batch_size(task, datamodule=case.data, max_trials=2, steps_per_trial=1, init_val=2)
    assert case.data.batch_size == 4
    case.data.batch_size = before


def test_the_learning_rate_that_a_tuner_sets_is_used_and_saved(case: Case, tmp_path: Path) -> None:
    task = case.task()
    task.learning_rate = 0.02
    trainer = Trainer(**QUIET)
    trainer.fit(task, datamodule=case.data)
    assert max(group["initial_lr"] for group in trainer.optimizers[0].param_groups) == 0.02
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)["hyper_parameters"]["config"]
    assert saved["task"]["learning_rate"] == 0.02
    assert case.task().learning_rate != 0.02


@pytest.mark.parametrize(("stopped_after", "ending"), [(3, {"max_epochs": 2}), (4, {"max_epochs": -1, "max_steps": 8})])
def test_resuming_gives_the_batches_that_are_left(
    case: Case, tmp_path: Path, stopped_after: int, ending: dict[str, int]
) -> None:
    options = {**ending, "limit_train_batches": 4, "limit_val_batches": 0}
    whole, rest = Seen(), Seen()
    saves = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=stopped_after, save_top_k=-1)
    _, expected = fit(case, **options, enable_checkpointing=True, callbacks=[saves, whole])
    trainer, task = Trainer(**{**QUIET, **options, "callbacks": [rest]}), case.task()
    trainer.fit(task, datamodule=case.data, ckpt_path=tmp_path / f"step={stopped_after}.ckpt", weights_only=True)
    assert trainer.global_step == 8
    assert rest.batches == {step: batch for step, batch in whole.batches.items() if step >= stopped_after}
    if case.config.task.name != "universal":  # which draws random leads
        for name, parameter in expected.named_parameters():
            assert torch.equal(task.get_parameter(name), parameter), name


def test_a_schedule_without_an_end_is_an_error(case: Case) -> None:
    with pytest.raises(InputError, match=r"task.schedule=cosine: ends at the last step, .* set max_epochs"):
        fit(case, max_epochs=-1)
