"""Validate, test and predict with a checkpoint."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import polars as pl
from lightning.pytorch import LightningDataModule

from titans_seq.errors import InputError
from titans_seq.experiment.base import Experiment, changed_keys
from titans_seq.experiment.registry import build_experiment
from titans_seq.experiment.run.checkpoint import load
from titans_seq.experiment.run.output import check_table, refuse_to_overwrite, write_table
from titans_seq.experiment.run.trainer import build_trainer
from titans_seq.schema import Config
from titans_seq.tasks import Task


def load_run(checkpoint: str | Path, overrides: Iterable[str] = ()) -> tuple[Config, Task, LightningDataModule]:
    """Load the configuration, trained task and data of a checkpoint; `key=value` overrides change the configuration.

    Nothing in the file is executed (weights_only). Raises InputError when it is not a checkpoint of this project, or
    does not fit the configuration.
    """
    experiment, task, _ = load(checkpoint, overrides, build_experiment)
    experiment.check_data(task, str(checkpoint))
    return experiment.config, task, experiment.data


def _note_data(experiment: Experiment[Any], before: dict[str, Any]) -> None:
    """Print notes about the data on stderr, and whether those of the same name have changed since the training."""
    for line in experiment.notes():
        print(f"note: {line}", file=sys.stderr)
    now = experiment.fingerprint()
    if before.get("name") == now["name"] and changed_keys(before, now):
        changed = "have changed since the training: rows of this split may have been trained on"
        print(f"note: the data of {now['name']}, or their splits, {changed}", file=sys.stderr)


def measure(
    checkpoint: str | Path, split: Literal["validation", "test"], overrides: Iterable[str] = ()
) -> dict[str, float]:
    """Return a checkpoint's scores on a whole split, by name (`test/mse`, ...); describes the split on stderr."""
    experiment, task, before = load(checkpoint, overrides, build_experiment)
    experiment.check_data(task, str(checkpoint))
    print(f"note: the {split} split of {experiment.describe().data}", file=sys.stderr)
    _note_data(experiment, before)
    trainer = build_trainer(experiment.config)
    evaluate = trainer.test if split == "test" else trainer.validate
    return dict(evaluate(task, datamodule=experiment.data, verbose=False)[0])


def predict(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    source: str | Path | None = None,
) -> pl.DataFrame:
    """Predict the test split, or a user's file `source`, and write the table to `out`: CSV by suffix, else Parquet.

    An existing file is replaced. The columns depend on the task: see `predict_test` and `predict_file` of
    `ForecastingExperiment` and `ClassificationExperiment`.
    """
    out = Path(out)
    check_table(out)
    experiment, task, before = load(checkpoint, overrides, build_experiment)
    refuse_to_overwrite(out, experiment.config, source)
    trainer = build_trainer(experiment.config)
    if source is None:
        experiment.check_data(task, str(checkpoint))
        _note_data(experiment, before)
        table = experiment.predict_test(task, trainer)
    elif experiment.config.trainer.limit_batches:
        raise InputError("trainer.limit_batches: must be 0 with --input, since all sequences of a file are predicted")
    else:
        table = experiment.predict_file(task, trainer, Path(source))
    write_table(table, out)
    return table
