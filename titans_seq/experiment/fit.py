"""Train, keep the best checkpoint by validation, test it, and leave a folder that says how it went."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from titans_seq.checkpoint_files import BEST, drop_predecessors, read_checkpoint
from titans_seq.environment import describe_environment
from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.build import build_trainer, check_machine, is_first_process, on_one_device
from titans_seq.experiment.recipe import Recipe, differing
from titans_seq.experiment.recipes import build_recipe
from titans_seq.experiment.report import format_table
from titans_seq.experiment.resume import Start, find_start, finished
from titans_seq.experiment.run_folder import RunFolder
from titans_seq.experiment.trackers import build_loggers, finish_loggers, wandb_run
from titans_seq.experiment.watch import Watch
from titans_seq.schema import Config
from titans_seq.signals import StopSignals
from titans_seq.tasks import Task


@dataclass
class Run:
    """A finished run."""

    folder: Path
    results: dict[str, Any]  # as in results.json
    task: Task  # with the best checkpoint's weights


def fit(config: Config) -> Run:
    """Carry out one experiment, or the rest of it.

    Raises InputError, before anything is written, for what the user can mend, and Interrupted after a signal.
    """
    check_machine(config)
    if config.run.dir:
        config = replace(config, run=replace(config.run, dir=str(Path(config.run.dir).expanduser())))
    start = find_start(config)
    config = start.config
    recipe = build_recipe(config)
    if start.folder is None:
        if is_first_process():  # the others come when it has made the folder
            RunFolder.check_free(config)
    elif (start.folder.path / "results.json").exists():
        return _finished(start.folder, recipe)
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    fingerprint = recipe.fingerprint()
    _check_same_data(start, fingerprint)
    seed_everything(config.seed, workers=True, verbose=False)
    if start.content:
        task = recipe.restored_task(start.content["hyper_parameters"])
        recipe.started_from = start.content["titans_seq"].get("started_from", "")
    else:
        task = recipe.new_task()
    if config.trainer.compile:
        task.model.compile()
    with StopSignals() as signals, _entered(config, start) as folder:
        try:
            return _carry_out(recipe, task, start, folder, signals, fingerprint)
        except BrokenPipeError:  # of the console: no file is at fault
            raise
        except OSError as error:
            raise InputError(
                f"{error.filename or folder.path}: cannot be written: {error.strerror or error}; make room, then go on "
                f"with: titans-seq fit resume={folder.path}"
            ) from error


def _carry_out(
    recipe: Recipe[Any],
    task: Task,
    start: Start,
    folder: RunFolder,
    signals: StopSignals,
    fingerprint: dict[str, Any],
) -> Run:
    config, is_first = recipe.config, is_first_process()
    environment = _environment(folder, start)
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    if is_first:
        _announce(recipe, parameters, folder, start)
    loggers: list[Logger] = [DummyLogger()]  # of the processes that write nothing
    metrics = None
    if is_first:
        metrics, loggers = build_loggers(config, folder, start.standing["rows"])
    facts = {"data": fingerprint, "started_from": recipe.started_from, **_code(environment)}
    watch = Watch.over(config, task, folder, signals, metrics, start, facts)
    trainer = build_trainer(config, folder.path, loggers, watch.callbacks)
    try:
        of_training = _train(trainer, task, recipe, watch, folder, start)
        if not is_first:
            return Run(folder.path, {}, task)
        tester = on_one_device(config, trainer, loggers)
        scores = _tested(tester, task, recipe)
        results = {
            "experiment": config.experiment,
            "seed": config.seed,
            **recipe.facts(),
            **scores,
            **recipe.finish(task, folder.path, folder.checkpoints / BEST),
            **of_training,
            "parameters": parameters,
            "checkpoint": f"{folder.checkpoints.name}/{BEST}",
            "baselines": recipe.baselines(),
            "environment": environment,
        }
        picture = folder.plots / f"{recipe.picture}.png"
        recipe.draw(task, picture)
        _log_end(recipe, task, loggers, folder, picture, scores)
        folder.write_json("results.json", results)  # the mark of a run that is done: last
    except BaseException:
        finish_loggers(loggers, status=1)
        raise
    finish_loggers(loggers)
    drop_predecessors(folder.checkpoints)
    _conclude(recipe, task, results, folder, picture)
    return Run(folder.path, results, task)


def _train(
    trainer: Trainer, task: Task, recipe: Recipe[Any], watch: Watch, folder: RunFolder, start: Start
) -> dict[str, float]:
    """Train, then put the best checkpoint's weights into the task; how long it took and what was selected."""
    if not any(parameter.requires_grad for parameter in task.parameters()):
        return _kept_as_it_is(trainer, task, recipe, folder)
    try:
        trainer.fit(task, datamodule=recipe.data, ckpt_path=start.checkpoint)
    except Interrupted as stop:
        kept = ", ".join(sorted(str(path) for path in folder.checkpoints.glob("*.ckpt"))) or "no checkpoint yet"
        epoch = min(trainer.current_epoch + 1, recipe.config.trainer.max_epochs)
        raise Interrupted(
            f"interrupted in epoch {epoch}; kept: {kept}. Go on with: titans-seq fit resume={folder.path}", stop.status
        ) from None
    best = watch.best
    if not best.best_model_path or best.best_model_score is None:
        raise InputError(f"no checkpoint was kept: {task.monitor} was never a finite number; lower task.learning_rate")
    if torch.distributed.is_initialized():  # what follows is one process's affair
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()
    content = read_checkpoint(folder.checkpoints / BEST) if trainer.is_global_zero else None
    if content is not None:
        task.load_state_dict(content["state_dict"])
    return {
        f"best_{task.monitor}": float(best.best_model_score),
        "best_epoch": int(content["epoch"]) if content else -1,
        "epochs": trainer.current_epoch,
        "seconds": round(watch.checkpoints.seconds, 1),
    }


def _kept_as_it_is(trainer: Trainer, task: Task, recipe: Recipe[Any], folder: RunFolder) -> dict[str, float]:
    """Validate and keep a task that has nothing to learn."""
    scores = trainer.validate(task, datamodule=recipe.data, verbose=False)[0]
    trainer.save_checkpoint(folder.checkpoints / BEST)
    return {f"best_{task.monitor}": scores[task.monitor], "best_epoch": 0, "epochs": 0, "seconds": 0.0}


def _tested(tester: Trainer, task: Task, recipe: Recipe[Any]) -> dict[str, float]:
    """The test scores; never NaN."""
    scores = dict(tester.test(task, datamodule=recipe.data, verbose=False)[0])
    undefined = [name for name, value in scores.items() if not torch.tensor(value).isfinite()]
    if undefined:
        raise InputError(
            f"{', '.join(undefined)}: no finite number on the test split; a score is undefined where a class is "
            "missing, and every score where the data or the weights are out of range"
        )
    return scores


@contextmanager
def _entered(config: Config, start: Start) -> Iterator[RunFolder]:
    """The run's folder: made, or found with what a stopped run left; kept from other processes until the end."""
    if not is_first_process():
        yield start.folder or RunFolder(Path(config.run.dir or "runs"))  # the first process writes
        return
    folder = start.folder or RunFolder.create(config)
    with folder.owned():
        if start.folder:
            folder.checkpoints.mkdir(exist_ok=True)
            folder.plots.mkdir(exist_ok=True)
            for path in start.damaged:
                path.replace(path.with_suffix(".damaged"))
            for path in folder.path.rglob("*.part"):  # of a process that was killed while it wrote
                path.unlink()
        yield folder


def _environment(folder: RunFolder, start: Start) -> dict[str, Any]:
    """Of the process that began the run; those that took it up are under `resumed`."""
    found = describe_environment()
    if not is_first_process():
        return found
    path = folder.path / "env.json"
    if start.folder is not None and path.exists():
        first = json.loads(path.read_text())
        found = {**first, "resumed": [*first.get("resumed", []), found]}
    folder.write_json("env.json", found)
    return found


def _code(environment: dict[str, Any]) -> dict[str, Any]:
    """The version of the code that runs now."""
    now = environment.get("resumed", [environment])[-1]
    return {name: now[name] for name in ("titans_seq", "commit", "uncommitted_changes")}


def _check_same_data(start: Start, fingerprint: dict[str, Any]) -> None:
    before = start.content["titans_seq"]["data"] if start.content else fingerprint
    if keys := differing(before, fingerprint):
        key = keys[0]
        raise InputError(
            f"resume: the data are not those of {start.checkpoint}: {key} is {fingerprint[key]}, was {before.get(key)}"
        )


def _finished(folder: RunFolder, recipe: Recipe[Any]) -> Run:
    print(f"{folder.path} is finished: nothing to resume")
    content = read_checkpoint(folder.checkpoints / BEST)
    task = recipe.restored_task(content["hyper_parameters"])
    task.load_state_dict(content["state_dict"])
    return Run(folder.path, finished(folder.path) or {}, task)


def _log_end(
    recipe: Recipe[Any], task: Task, loggers: list[Logger], folder: RunFolder, picture: Path, scores: dict[str, float]
) -> None:
    """What W&B gets at the end, besides metrics."""
    run = wandb_run(loggers)
    if run is None:
        return
    run.log_image(recipe.picture, picture)
    for name, table in recipe.tables(task).items():
        run.log_table(name, table)
    if recipe.config.logging.artifact:
        run.log_artifact(f"{recipe.config.experiment}-seed{recipe.config.seed}", folder.checkpoints / BEST, scores)


def _announce(recipe: Recipe[Any], parameters: int, folder: RunFolder, start: Start) -> None:
    for note in recipe.notes():
        print(f"Note: {note}")
    name, seed = recipe.model_name(), recipe.config.seed
    print(f"{name} with {parameters:,} parameters on {recipe.describe()}, seed {seed}. Run folder: {folder.path}")
    if start.checkpoint:
        epoch, batches = start.standing["epoch"] + 1, start.standing["batches"]
        print(f"Resuming {start.checkpoint}: epoch {epoch}, after {batches:,} batches")


def _conclude(recipe: Recipe[Any], task: Task, results: dict[str, Any], folder: RunFolder, picture: Path) -> None:
    rows = {recipe.model_name(): results, **results["baselines"]}
    print(f"\n{recipe.title()}")
    print(format_table(rows, recipe.columns))
    for remark in recipe.remarks():
        print(remark)
    best, epochs = results["best_epoch"] + 1, results["epochs"]
    trained = f"Best epoch {best} of {epochs} by {task.monitor}, {results['seconds']:.0f} s"
    print(f"\n{trained if epochs else 'Nothing to train'}")
    print(f"Picture:    {picture}")
    print(f"Run folder: {folder.path}")
