"""Train one configuration, or resume a run of it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import Logger

from datamodules.common.frames import to_polars_frame
from titans_seq.errors import InputError
from titans_seq.experiment.base import Experiment
from titans_seq.experiment.registry import build_experiment
from titans_seq.experiment.run.additions import Additions
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.resume import find_start_point, read_results
from titans_seq.experiment.run.trainer import check_machine, is_first_process
from titans_seq.experiment.run.training import Run, Training, check_same_data, open_folder, train_and_test
from titans_seq.schema import FRAME, Config, ForecastingConfig
from titans_seq.system.checkpoint_files import read_checkpoint
from titans_seq.system.run_folders import BEST
from titans_seq.system.signals import StopSignals


def fit(
    config: Config,
    data: Any = None,
    *,
    callbacks: Callback | Iterable[Callback] | None = None,
    logger: Logger | Iterable[Logger] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> Run:
    """Train, test and write the run's folder; with `config.resume`, do what is left of an earlier run.

    Args:
        config: of the run; with `data.name=table` for a data frame.
        data: a polars or pandas frame in place of the file of `data.path`. The run's config.yaml says so, and later
            commands on the run ask for the data.
        callbacks: Lightning callbacks besides the run's own. Their state is saved in checkpoints and restored from
            them, so that a run with them resumes exactly if they are given again.
        logger: Lightning loggers besides metrics.csv and W&B.
        trainer_kwargs: arguments of Lightning's `Trainer` that no configuration key sets, see
            `titans_seq.experiment.run.additions.TRAINER_ARGUMENTS`.

    Raises InputError for errors that the user can fix, before anything is written, and Interrupted after a signal.
    """
    check_machine(config)
    additions = Additions.collect(config, callbacks, logger, trainer_kwargs)
    frame = None if data is None else to_polars_frame(data)
    if frame is not None:
        config = _from_frame(config)
    if config.run.dir:
        config = replace(config, run=replace(config.run, dir=str(Path(config.run.dir).expanduser())))
    start = find_start_point(config)
    config = start.config
    experiment = build_experiment(config)
    if frame is not None:
        experiment.use_frame(frame)
    if start.folder is None:
        if is_first_process():  # the other processes start after it has made the folder
            RunFolder.check_free(config)
    elif (start.folder.path / "results.json").exists():
        return _load_finished(start.folder, experiment)
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    fingerprint = experiment.fingerprint()
    check_same_data(start, fingerprint)
    seed_everything(config.seed, workers=True, verbose=False)
    if start.content:
        task = experiment.restored_task(start.content["hyper_parameters"])
        started_from = start.content["titans_seq"].get("started_from", "")
    else:
        task, started_from = experiment.new_task()
    if config.trainer.compile:
        task.model.compile()
    with StopSignals() as signals, open_folder(config, start) as folder:
        try:
            run = Training(experiment, task, start, folder, signals, fingerprint, started_from, additions)
            return train_and_test(run)
        except BrokenPipeError:  # of the console, not of a file
            raise
        except OSError as error:
            raise InputError(
                f"{error.filename or folder.path}: cannot be written: {error.strerror or error}; free some space, then "
                f"resume with: titans-seq fit resume={folder.path}"
            ) from error


def _from_frame(config: Config) -> Config:
    """The configuration with a data frame as its table; raises InputError for other data."""
    if not isinstance(config, ForecastingConfig) or config.data.name != "table":
        raise InputError(f"data: a data frame needs data.name=table; got data.name={config.data.name}")
    if config.data.path not in (None, FRAME):
        raise InputError(f"data.path={config.data.path}: has no effect with a data frame; remove one of them")
    for key in ("separator", "encoding"):
        if getattr(config.data, key) is not None:
            raise InputError(f"data.{key}: has no effect with a data frame; remove it")
    return replace(config, data=replace(config.data, path=FRAME))


def _load_finished(folder: RunFolder, experiment: Experiment[Any]) -> Run:
    print(f"{folder.path} is finished: nothing to resume")
    content = read_checkpoint(folder.checkpoints / BEST)
    task = experiment.restored_task(content["hyper_parameters"])
    task.load_state_dict(content["state_dict"])
    return Run(folder.path, read_results(folder.path) or {}, task)
