"""What is done with a checkpoint after training."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from lightning.pytorch import LightningDataModule

from titans_seq.checkpoint_files import read_checkpoint
from titans_seq.config import from_container
from titans_seq.errors import InputError
from titans_seq.experiment.build import ONE_DEVICE, build_trainer, check_machine
from titans_seq.experiment.recipe import Recipe, differing
from titans_seq.experiment.recipes import build_recipe
from titans_seq.experiment.report import shown_shape
from titans_seq.files import replacing
from titans_seq.schema import Config
from titans_seq.tasks import Task

_TABLES = (".csv", ".parquet", ".pq")


def load_run(checkpoint: str | Path, overrides: Iterable[str] = ()) -> tuple[Config, Task, LightningDataModule]:
    """The configuration, trained task and data of a checkpoint; `key=value` words change the configuration.

    Nothing in the file is executed (weights_only). Raises InputError when it is not a checkpoint of this project, or
    does not fit the configuration.
    """
    recipe, task = load_task(checkpoint, overrides)
    recipe.check_data(task, str(checkpoint))
    return recipe.config, task, recipe.data


def load_task(checkpoint: str | Path, overrides: Iterable[str] = ()) -> tuple[Recipe[Any], Any]:
    """The recipe and trained task of a checkpoint, see `load_run`; the data are not read yet."""
    return _load(checkpoint, overrides)[:2]


def _load(checkpoint: str | Path, overrides: Iterable[str]) -> tuple[Recipe[Any], Any, dict[str, Any]]:
    """Recipe, trained task, and the fingerprint of the data that it was trained on."""
    content = read_checkpoint(Path(checkpoint))
    foreign = InputError(f"{checkpoint}: not a checkpoint of titans_seq: it holds no configuration")
    try:
        hyperparameters, weights = content["hyper_parameters"], content["state_dict"]
        container = hyperparameters["config"]
        trainer = container.get("trainer") or {}
    except (KeyError, TypeError, AttributeError):
        raise foreign from None
    # What limited the training, and its devices, are not to limit what is measured, unless it is asked for again.
    container = {**container, "trainer": {**trainer, "limit_batches": 0, **ONE_DEVICE}}
    config = from_container(container, source=str(checkpoint), overrides=overrides)
    check_machine(config)
    recipe = build_recipe(config)
    try:
        task = recipe.restored_task(hyperparameters)
    except KeyError:
        raise foreign from None
    _load_weights(task, weights, checkpoint)
    return recipe, task, content.get("titans_seq", {}).get("data", {})


def _say_other_data(recipe: Recipe[Any], before: dict[str, Any]) -> None:
    """Tell, on stderr, of data of the same name that are split otherwise, or are not what they were."""
    now = recipe.fingerprint()
    if before.get("name") == now["name"] and differing(before, now):
        what = "are not as they were in training: rows of this split may have been trained on"
        print(f"note: the data of {now['name']}, or their splits, {what}", file=sys.stderr)


def measure(
    checkpoint: str | Path, split: Literal["validation", "test"], overrides: Iterable[str] = ()
) -> dict[str, float]:
    """A checkpoint's scores on all of a split by name (`test/mse`, ...); says on stderr what the splits are."""
    recipe, task, before = _load(checkpoint, overrides)
    recipe.check_data(task, str(checkpoint))
    print(f"note: the {split} split of {recipe.describe()}", file=sys.stderr)
    _say_other_data(recipe, before)
    trainer = build_trainer(recipe.config)
    evaluate = trainer.test if split == "test" else trainer.validate
    return dict(evaluate(task, datamodule=recipe.data, verbose=False)[0])


def predict(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    source: str | Path | None = None,
) -> pl.DataFrame:
    """Predict the test split, or a user's file `source`, and write the table to `out`: CSV by suffix, else Parquet.

    A file that is there already is replaced. What a row is, the recipe of the task says (`predict_test` of
    `titans_seq.experiment.forecasting` and its neighbour).
    """
    out = Path(out)
    check_table(out)
    recipe, task, before = _load(checkpoint, overrides)
    refuse_to_overwrite(out, recipe.config, source)
    trainer = build_trainer(recipe.config)
    if source is None:
        recipe.check_data(task, str(checkpoint))
        _say_other_data(recipe, before)
        table = recipe.predict_test(task, trainer)
    elif recipe.config.trainer.limit_batches:
        raise InputError("trainer.limit_batches: all sequences of a file are predicted; set it to 0")
    else:
        table = recipe.predict_file(task, trainer, Path(source))
    write_table(table, out)
    return table


def check_writable(out: Path, option: str = "--out") -> None:
    """Raise InputError when a file cannot be written to `out`, which the command line's `option` names."""
    if not out.parent.is_dir():
        raise InputError(f"{option} {out}: no such folder {out.parent}")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{option} {out}: {'is a folder' if out.is_dir() else 'the folder cannot be written to'}")


def check_table(out: Path) -> None:
    """Raise InputError unless `write_table` can write to `out`."""
    check_writable(out)
    if out.suffix not in _TABLES:
        raise InputError(f"--out {out}: takes a name that ends in .csv or .parquet")


def refuse_to_overwrite(out: Path, config: Config, *inputs: str | Path | None) -> None:
    """Raise InputError when a result would take the place of `inputs`, or of a file that `config.data` names."""
    read = list(inputs)
    for value in vars(config.data).values():  # one file, a list of them, or one for each class
        several = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        read += [each for each in several if isinstance(each, str)]
    if out.resolve() in {Path(path).expanduser().resolve() for path in read if path}:
        raise InputError(f"--out {out}: holds data that this very run reads; name another file")


def write_table(table: pl.DataFrame, out: Path) -> None:
    """Write CSV where the name ends so, else Parquet; nobody ever finds half a file."""
    try:
        with replacing(out) as partial:
            if out.suffix == ".csv":
                table.write_csv(partial, datetime_format="%Y-%m-%d %H:%M:%S%.f")
            else:
                table.write_parquet(partial)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None


def _load_weights(task: Task, weights: dict[str, torch.Tensor], checkpoint: str | Path) -> None:
    expected = task.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        ours, theirs = (tuple(side[name].shape) if name in side else None for side in (expected, weights))
        if ours != theirs:
            raise InputError(
                f"{checkpoint}: {name} is {shown_shape(theirs)} in the checkpoint, {shown_shape(ours)} in the "
                "configured model; drop the overrides of model and data, or take the checkpoint that matches them"
            )
    task.load_state_dict(weights)
