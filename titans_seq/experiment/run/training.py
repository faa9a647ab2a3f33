"""Train, keep the best checkpoint by validation, test it, and write the run's results."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.base import Experiment, changed_keys
from titans_seq.experiment.run.additions import Additions
from titans_seq.experiment.run.callbacks import RunCallbacks
from titans_seq.experiment.run.console_table import format_table
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.loggers import build_loggers, finish_loggers, wandb_run
from titans_seq.experiment.run.plots import plot_training
from titans_seq.experiment.run.refit import refit
from titans_seq.experiment.run.resume import StartPoint
from titans_seq.experiment.run.trainer import build_trainer, is_first_process, on_one_device
from titans_seq.schema import Config
from titans_seq.system.checkpoint_files import drop_predecessors, read_checkpoint
from titans_seq.system.environment import describe_environment
from titans_seq.system.run_folders import BEST, REFIT
from titans_seq.system.signals import StopSignals
from titans_seq.tasks import Task


@dataclass
class Run:
    """A finished run."""

    folder: Path
    results: dict[str, Any]  # as in results.json
    task: Task  # with the best checkpoint's weights


@dataclass(frozen=True)
class Training:
    """A run in progress."""

    experiment: Experiment[Any]
    task: Task
    start: StartPoint
    folder: RunFolder
    signals: StopSignals
    fingerprint: dict[str, Any]  # of the data
    started_from: str  # a line about weights loaded from another run; empty for random weights
    additions: Additions = field(default_factory=Additions)  # of the caller of `fit`

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.experiment.config


def train_and_test(training: Training) -> Run:
    """Train, test and write the results; on several devices only the first process tests and writes."""
    config, folder, experiment, task = training.config, training.folder, training.experiment, training.task
    is_first = is_first_process()
    environment = _write_environment(folder, training.start)
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    if is_first:
        _print_start(training, parameters)
    loggers: list[Logger] = [DummyLogger()]  # for processes that write nothing
    metrics = None
    if is_first:
        metrics, loggers = build_loggers(config, folder, training.start.progress["rows"])
    metadata = {"data": training.fingerprint, "started_from": training.started_from, **_code_version(environment)}
    additions = training.additions
    callbacks = RunCallbacks.build(
        config, task, folder, training.signals, metrics, training.start, metadata, additions.callbacks
    )
    loggers = [*loggers, *additions.loggers]
    trainer = build_trainer(config, folder.path, loggers, callbacks.all, additions.with_profiler(config, folder.path))
    try:
        training_results = _train(training, trainer, callbacks)
        if not is_first:
            return Run(folder.path, {}, task)
        scores = _test(training, on_one_device(config, trainer, loggers))
        of_data = experiment.metadata()
        if training.started_from:
            of_data["notes"] = [*of_data.get("notes", []), training.started_from]
        report = experiment.finish(task, folder.path, folder.checkpoints / BEST)
        again = _refit(training, metadata)
        results = {
            "experiment": config.experiment,
            "seed": config.seed,
            **of_data,
            **scores,
            **report.results,
            **training_results,
            **again,
            "parameters": parameters,
            "checkpoint": f"{folder.checkpoints.name}/{BEST}",
            "baselines": experiment.baselines(),
            "environment": environment,
        }
        plot = folder.plots / f"{experiment.plot_name}.png"
        experiment.draw(task, plot)
        plots, curve = [plot], folder.plots / "training.png"
        if metrics is not None and plot_training(curve, metrics.rows, task.monitor, task.mode):
            plots.append(curve)
        _log_to_wandb(training, loggers, plot, scores)
        folder.write_json("results.json", results)  # last, since it marks the run as finished
    except BaseException:
        finish_loggers(loggers, status=1)
        raise
    finish_loggers(loggers)
    drop_predecessors(folder.checkpoints)
    _print_end(training, results, report.messages, plots)
    return Run(folder.path, results, task)


def _train(training: Training, trainer: Trainer, callbacks: RunCallbacks) -> dict[str, float]:
    """Train, then load the best checkpoint's weights; returns the duration and the selected epoch and score."""
    task, folder = training.task, training.folder
    if not any(parameter.requires_grad for parameter in task.parameters()):
        return _validate_untrained(training, trainer)
    try:
        trainer.fit(task, datamodule=training.experiment.data, ckpt_path=training.start.checkpoint)
    except Interrupted as stop:
        kept = ", ".join(sorted(str(path) for path in folder.checkpoints.glob("*.ckpt"))) or "no checkpoint yet"
        epoch = min(trainer.current_epoch + 1, training.config.trainer.max_epochs)
        raise Interrupted(
            f"interrupted in epoch {epoch}; checkpoints: {kept}. Resume with: titans-seq fit resume={folder.path}",
            stop.status,
        ) from None
    best = callbacks.best
    if not best.best_model_path or best.best_model_score is None:
        raise InputError(f"no checkpoint was kept: {task.monitor} was never a finite number; lower task.learning_rate")
    if torch.distributed.is_initialized():  # the rest is done by one process
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()
    content = read_checkpoint(folder.checkpoints / BEST) if trainer.is_global_zero else None
    if content is not None:
        task.load_state_dict(content["state_dict"])
    return {
        f"best_{task.monitor}": float(best.best_model_score),
        "best_epoch": int(content["epoch"]) if content else -1,
        "epochs": trainer.current_epoch,
        "seconds": round(callbacks.checkpoints.seconds, 1),
    }


def _refit(training: Training, metadata: dict[str, Any]) -> dict[str, Any]:
    """Train again on all rows, if so configured; returns the entries of results.json."""
    experiment = training.experiment.on_all_rows()
    if experiment is None:
        return {}
    steps = refit(experiment, training.folder, training.signals, metadata)
    return {"refit": {"checkpoint": f"{training.folder.checkpoints.name}/{REFIT}", "steps": steps}}


def _validate_untrained(training: Training, trainer: Trainer) -> dict[str, float]:
    """Validate a task without trainable parameters and keep it as the best checkpoint."""
    task = training.task
    scores = trainer.validate(task, datamodule=training.experiment.data, verbose=False)[0]
    trainer.save_checkpoint(training.folder.checkpoints / BEST)
    return {f"best_{task.monitor}": scores[task.monitor], "best_epoch": 0, "epochs": 0, "seconds": 0.0}


def _test(training: Training, tester: Trainer) -> dict[str, float]:
    """The test scores; raises InputError when one is not finite."""
    scores = dict(tester.test(training.task, datamodule=training.experiment.data, verbose=False)[0])
    undefined = [name for name, value in scores.items() if not torch.tensor(value).isfinite()]
    if undefined:
        raise InputError(
            f"{', '.join(undefined)}: not a finite number on the test split; a score is undefined where a class is "
            "missing, and every score where the data or the weights are out of range"
        )
    return scores


@contextmanager
def open_folder(config: Config, start: StartPoint) -> Iterator[RunFolder]:
    """Create the run's folder, or clean up the one to resume, and lock it against other processes."""
    if not is_first_process():
        yield start.folder or RunFolder(Path(config.run.dir or "runs"))  # only the first process writes
        return
    folder = start.folder or RunFolder.create(config)
    with folder.locked():
        if start.folder:
            folder.checkpoints.mkdir(exist_ok=True)
            folder.plots.mkdir(exist_ok=True)
            for path in start.damaged:
                path.replace(path.with_suffix(".damaged"))
            for path in folder.path.rglob("*.part"):  # left by a process that was killed while it wrote
                path.unlink()
        yield folder


def _write_environment(folder: RunFolder, start: StartPoint) -> dict[str, Any]:
    """Write env.json: the environment of the run's first process, and under `resumed` of those that resumed it."""
    environment = describe_environment()
    if not is_first_process():
        return environment
    path = folder.path / "env.json"
    if start.folder is not None and path.exists():
        first = json.loads(path.read_text())
        environment = {**first, "resumed": [*first.get("resumed", []), environment]}
    folder.write_json("env.json", environment)
    return environment


def _code_version(environment: dict[str, Any]) -> dict[str, Any]:
    """Version of the code that is running, from the latest entry of the environment."""
    now = environment.get("resumed", [environment])[-1]
    return {name: now[name] for name in ("titans_seq", "commit", "uncommitted_changes")}


def check_same_data(start: StartPoint, fingerprint: dict[str, Any]) -> None:
    """Raise InputError when the data differ from those of the checkpoint to resume."""
    before = start.content["titans_seq"]["data"] if start.content else fingerprint
    if keys := changed_keys(before, fingerprint):
        key = keys[0]
        raise InputError(
            f"resume: the data differ from those of {start.checkpoint}: {key} is {fingerprint[key]}, was "
            f"{before.get(key)}; restore the data, or leave resume out"
        )


def _log_to_wandb(training: Training, loggers: list[Logger], plot: Path, scores: dict[str, float]) -> None:
    """Log the plot, the tables and, if configured, the best checkpoint to W&B."""
    run = wandb_run(loggers)
    if run is None:
        return
    config, experiment = training.config, training.experiment
    run.log_image(experiment.plot_name, plot)
    for name, table in experiment.tables(training.task).items():
        run.log_table(name, table)
    if config.logging.artifact:
        run.log_artifact(f"{config.experiment}-seed{config.seed}", training.folder.checkpoints / BEST, scores)


def _print_start(training: Training, parameters: int) -> None:
    notes = training.experiment.notes()
    for note in (*notes, training.started_from) if training.started_from else notes:
        print(f"Note: {note}")
    description, start = training.experiment.describe(), training.start
    where = f"seed {training.config.seed}. Run folder: {training.folder.path}"
    print(f"{description.model} with {parameters:,} parameters on {description.data}, {where}")
    if start.checkpoint:
        epoch, batches = start.progress["epoch"] + 1, start.progress["batches"]
        print(f"Resuming {start.checkpoint}: epoch {epoch}, after {batches:,} batches")


def _print_end(training: Training, results: dict[str, Any], messages: tuple[str, ...], plots: list[Path]) -> None:
    description = training.experiment.describe()
    print(f"\n{description.title}")
    print(format_table({description.model: results, **results["baselines"]}, training.experiment.columns))
    for message in messages:
        print(message)
    best, epochs = results["best_epoch"] + 1, results["epochs"]
    trained = (
        f"Best epoch {best} of {epochs} by {training.task.monitor}, {results['seconds']:.0f} s "
        f"(epoch {best - 1} in results.json and metrics.csv, which count from 0)"
    )
    print(f"\n{trained if epochs else 'Nothing to train'}")
    if "refit" in results:
        print(f"Trained again on all rows, {results['refit']['steps']:,} steps: {training.folder.checkpoints / REFIT}")
    print(f"Plots:      {', '.join(map(str, plots))}")
    print(f"Run folder: {training.folder.path}")
