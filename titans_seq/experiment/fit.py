"""Train, keep the best checkpoint by validation, test it, and leave a folder that says how it went."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)

from titans_seq.environment import describe_environment
from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.build import build_trainer, check_machine
from titans_seq.experiment.recipe import Recipe
from titans_seq.experiment.recipes import build_recipe
from titans_seq.experiment.report import format_table
from titans_seq.experiment.run_folder import RunFolder
from titans_seq.experiment.trackers import build_loggers, finish_loggers, log_image
from titans_seq.schema import Config
from titans_seq.tasks import Task


@dataclass
class Run:
    """A finished run."""

    folder: Path
    results: dict[str, Any]  # as in results.json
    task: Task  # with the best checkpoint's weights


def fit(config: Config) -> Run:
    """Carry out one experiment. Raises InputError, before anything is written, for what the user can mend."""
    check_machine(config)
    RunFolder.check_free(config)
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    recipe = build_recipe(config)
    batches = min(len(recipe.data.train_dataloader()), config.trainer.limit_batches or sys.maxsize)
    seed_everything(config.seed, workers=True, verbose=False)
    task = recipe.new_task()

    folder = RunFolder.create(config)
    environment = describe_environment()
    folder.write_json("env.json", environment)
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    _announce(recipe, parameters, folder)
    loggers = build_loggers(config, folder)
    best = ModelCheckpoint(
        folder.checkpoints, filename="best", monitor=task.monitor, mode=task.mode, enable_version_counter=False
    )
    # `save_last` would keep the last of the best ones; this keeps every epoch's in turn.
    last = ModelCheckpoint(folder.checkpoints, filename="last", enable_version_counter=False)
    trainer = build_trainer(config, folder.path, loggers, [best, last, *_callbacks(config, task)], batches)
    try:
        of_training = _train(trainer, task, recipe.data, best)
    except BaseException:
        finish_loggers(loggers)
        raise

    metrics = trainer.test(task, datamodule=recipe.data, verbose=False)[0]
    results = {
        "experiment": config.experiment,
        "seed": config.seed,
        **recipe.facts(),
        **metrics,
        **of_training,
        "parameters": parameters,
        "checkpoint": str(Path(best.best_model_path).relative_to(folder.path.resolve())),
        "baselines": recipe.baselines(),
        "environment": environment,
    }
    folder.write_json("results.json", results)
    picture = folder.plots / f"{recipe.picture}.png"
    recipe.draw(task, picture)
    log_image(loggers, recipe.picture, picture)
    finish_loggers(loggers)
    _conclude(recipe, task, results, folder, picture)
    return Run(folder.path, results, task)


def _train(trainer: Trainer, task: Task, data: LightningDataModule, best: ModelCheckpoint) -> dict[str, float]:
    """Train, then put the best checkpoint's weights into the task; how long it took and what was selected."""
    started = time.monotonic()
    try:
        trainer.fit(task, datamodule=data)
    except SystemExit:  # Lightning's answer to Ctrl-C and SIGTERM, after it has torn down
        kept = sorted(str(path) for path in Path(best.dirpath or "").glob("*.ckpt"))
        message = f"interrupted in epoch {trainer.current_epoch + 1}; kept: {', '.join(kept) or 'no checkpoint yet'}"
        raise Interrupted(message, status=143 if trainer.received_sigterm else 130) from None
    seconds = time.monotonic() - started
    if not best.best_model_path or best.best_model_score is None:
        raise InputError(f"no checkpoint was kept: {task.monitor} was never a finite number; lower task.learning_rate")
    content = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    task.load_state_dict(content["state_dict"])
    return {
        f"best_{task.monitor}": float(best.best_model_score),
        "best_epoch": int(content["epoch"]),
        "epochs": trainer.current_epoch,
        "seconds": round(seconds, 1),
    }


def _callbacks(config: Config, task: Task) -> list[Callback]:
    callbacks: list[Callback] = [
        EarlyStopping(task.monitor, mode=task.mode, patience=config.trainer.patience),
        LearningRateMonitor("step"),
    ]
    if config.trainer.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=config.trainer.ema_decay))
    if config.trainer.progress_bar:
        callbacks.append(_ProgressBar(refresh_rate=10))
    return callbacks


class _ProgressBar(TQDMProgressBar):
    """Without the logger's version, which names nothing a user knows."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def _announce(recipe: Recipe[Any], parameters: int, folder: RunFolder) -> None:
    for note in recipe.notes():
        print(f"Note: {note}")
    variant, seed = recipe.config.model.variant.upper(), recipe.config.seed
    print(f"{variant} with {parameters:,} parameters on {recipe.describe()}, seed {seed}. Run folder: {folder.path}")


def _conclude(recipe: Recipe[Any], task: Task, results: dict[str, Any], folder: RunFolder, picture: Path) -> None:
    rows = {recipe.config.model.variant.upper(): results, **results["baselines"]}
    print(f"\n{recipe.title()}")
    print(format_table(rows, recipe.columns))
    best, epochs = results["best_epoch"] + 1, results["epochs"]
    print(f"\nBest epoch {best} of {epochs} by {task.monitor}, {results['seconds']:.0f} s")
    print(f"Picture:    {picture}")
    print(f"Run folder: {folder.path}")
