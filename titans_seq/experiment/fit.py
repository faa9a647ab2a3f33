"""Train, keep the best checkpoint by validation, test it, and leave a folder that says how it went."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)

from datamodules.forecasting import ForecastingDataModule
from titans_seq.config import to_container
from titans_seq.environment import describe_environment
from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.baselines import best_linear, measure_baselines
from titans_seq.experiment.build import build_data, build_trainer, check_machine
from titans_seq.experiment.report import draw_forecasts, format_table
from titans_seq.experiment.run_folder import RunFolder
from titans_seq.experiment.trackers import build_loggers, finish_loggers, log_image
from titans_seq.schema import Config
from titans_seq.tasks import ForecastingTask


@dataclass
class Run:
    """A finished run."""

    folder: Path
    results: dict[str, Any]  # as in results.json
    task: ForecastingTask  # with the best checkpoint's weights


def fit(config: Config) -> Run:
    """Carry out one experiment. Raises InputError, before anything is written, for what the user can mend."""
    check_machine(config)
    RunFolder.check_free(config)
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    data = build_data(config)
    seed_everything(config.seed, workers=True, verbose=False)
    task = ForecastingTask(to_container(config), num_channels=len(data.series.channels))
    linear = best_linear(data)
    if config.model.linear_path == "solved":
        task.model.start_from(linear)

    folder = RunFolder.create(config)
    environment = describe_environment()
    folder.write_json("env.json", environment)
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    _announce(config, data.source.simulated, parameters, folder)
    loggers = build_loggers(config, folder)
    best = ModelCheckpoint(folder.checkpoints, filename="best", monitor=task.monitor, enable_version_counter=False)
    # `save_last` would keep the last of the best ones; this keeps every epoch's in turn.
    last = ModelCheckpoint(folder.checkpoints, filename="last", enable_version_counter=False)
    batches = min(len(data.train_dataloader()), config.trainer.limit_batches or sys.maxsize)
    trainer = build_trainer(config, folder.path, loggers, [best, last, *_callbacks(config, task)], batches)
    try:
        of_training = _train(trainer, task, data, best)
    except BaseException:
        finish_loggers(loggers)
        raise

    metrics = trainer.test(task, datamodule=data, verbose=False)[0]
    test_windows = _test_windows(config, data)
    results = {
        "experiment": config.experiment,
        "seed": config.seed,
        "data": data.series.name,
        "simulated": data.source.simulated,
        "context_length": config.data.context_length,
        "horizon": config.data.horizon,
        "test_windows": test_windows,
        **metrics,
        **of_training,
        "parameters": parameters,
        "checkpoint": str(Path(best.best_model_path).relative_to(folder.path.resolve())),
        "baselines": measure_baselines(data, linear, test_windows),
        "environment": environment,
    }
    folder.write_json("results.json", results)
    picture = folder.plots / "forecast.png"
    draw_forecasts(task, data, picture)
    log_image(loggers, "forecast", picture)
    finish_loggers(loggers)
    _conclude(config, results, folder, picture)
    return Run(folder.path, results, task)


def _train(
    trainer: Trainer, task: ForecastingTask, data: ForecastingDataModule, best: ModelCheckpoint
) -> dict[str, float]:
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


def _test_windows(config: Config, data: ForecastingDataModule) -> int:
    """Windows that the test metrics cover: all there are, unless trainer.limit_batches leaves some out."""
    windows, limit = len(data.windows("test")), config.trainer.limit_batches
    return min(windows, limit * config.data.batch_size) if limit else windows


def _callbacks(config: Config, task: ForecastingTask) -> list[Callback]:
    callbacks: list[Callback] = [
        EarlyStopping(task.monitor, patience=config.trainer.patience),
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


def _announce(config: Config, simulated: bool, parameters: int, folder: RunFolder) -> None:
    what = f"{config.data.name} (simulated data, made by this program)" if simulated else config.data.name
    print(
        f"{config.model.variant.upper()} with {parameters:,} parameters on {what}: "
        f"{config.data.context_length} steps to {config.data.horizon}, seed {config.seed}. Run folder: {folder.path}"
    )


def _conclude(config: Config, results: dict[str, Any], folder: RunFolder, picture: Path) -> None:
    on = "simulated data" if results["simulated"] else results["data"]
    rows = {config.model.variant.upper(): results, **results["baselines"]}
    which = "the first" if config.trainer.limit_batches else "all"
    print(f"\nTest error on {on}, z-scored, {which} {results['test_windows']} windows, horizon {config.data.horizon}")
    print(format_table(rows, {"test/mse": "MSE", "test/mae": "MAE"}))
    best, epochs = results["best_epoch"] + 1, results["epochs"]
    print(f"\nBest epoch {best} of {epochs} by {ForecastingTask.monitor}, {results['seconds']:.0f} s")
    print(f"Picture:    {picture}")
    print(f"Run folder: {folder.path}")
