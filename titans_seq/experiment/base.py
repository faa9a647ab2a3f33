"""The interface between the run engine and a task: `Experiment`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import polars as pl
from lightning.pytorch import LightningDataModule, Trainer

from titans_seq.errors import InputError
from titans_seq.schema import Config
from titans_seq.tasks import Task

TaskT = TypeVar("TaskT", bound=Task)
Scores = dict[str, float]


class Description(NamedTuple):
    """Description of an experiment for the console."""

    model: str  # name of the model, or of the baseline that replaces it
    data: str  # the dataset and the size of its splits
    title: str  # heading of the table of test scores


class Report(NamedTuple):
    """Outcome of a step after the test."""

    results: dict[str, Any]  # entries for results.json
    messages: tuple[str, ...] = ()  # lines to print below the table of scores


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two data fingerprints that differ; `files` is ignored, since files may be rewritten unchanged."""
    return [key for key in now if key != "files" and now[key] != before.get(key)]


class Experiment(ABC, Generic[TaskT]):
    """One task for one configuration: its data, LightningModule, baselines, plot and predictions.

    The run engine (`titans_seq.experiment.run`) uses tasks through this interface only.
    """

    config_class: ClassVar[type[Config]]  # the task's configuration
    columns: Mapping[str, str]  # of the final table of scores: keys of the results to headings
    plot_name: ClassVar[str]  # file name of the plot, without its suffix

    def __init__(self, config: Config) -> None:
        """Raises InputError for another task's configuration."""
        if not isinstance(config, self.config_class):
            supported = self.config_class().task.name
            raise InputError(f"task.name={config.task.name} is not supported here; task.name={supported} is")
        self.config = config

    @property
    @abstractmethod
    def data(self) -> LightningDataModule:
        """The data module. Data are read and checked at first use, before anything is written."""

    @abstractmethod
    def new_task(self) -> tuple[TaskT, str]:
        """The LightningModule to train, and a line about weights loaded from another run, or an empty one."""

    @abstractmethod
    def restored_task(self, hyperparameters: Mapping[str, Any]) -> TaskT:
        """The LightningModule for a checkpoint's hyperparameters, before its weights are loaded; needs no data."""

    @abstractmethod
    def check_data(self, task: TaskT, source: str) -> None:
        """Raise InputError when the data do not fit the task that was loaded from `source`."""

    @abstractmethod
    def describe(self) -> Description:
        """Names of the model and the data."""

    def notes(self) -> tuple[str, ...]:
        """Messages about the data, printed once when a run starts."""
        return ()

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Entries of results.json about the data."""

    def fingerprint(self) -> dict[str, Any]:
        """Plain values that identify the data and their splits, for checkpoints."""
        return {"name": self.config.data.name}

    def tables(self, task: TaskT) -> dict[str, pl.DataFrame]:
        """Short tables for W&B, of a task that has just been tested."""
        return {}

    @abstractmethod
    def baselines(self) -> dict[str, Scores]:
        """Test scores of simple baselines, on the same part of the test split as the model's."""

    @abstractmethod
    def draw(self, task: TaskT, path: Path) -> None:
        """Plot the predictions of a task that has just been tested."""

    def finish(self, task: TaskT, folder: Path, checkpoint: Path) -> Report:
        """Further steps after the test, such as calibration; may write files into the run's folder."""
        return Report({})

    def use_frame(self, frame: pl.DataFrame) -> None:
        """Read the data from a frame instead of files; raises InputError where that is not supported."""
        name = self.config.task.name
        raise InputError(f"data: a data frame is not supported for task.name={name}; use its file keys")

    def on_all_rows(self) -> "Experiment[TaskT] | None":
        """The same experiment with all rows as training rows, to be trained again after the test; None: not wanted."""
        return None

    @abstractmethod
    def predict_test(self, task: TaskT, trainer: Trainer) -> pl.DataFrame:
        """Predictions for the test split, with the true values."""

    def predict_file(self, task: TaskT, trainer: Trainer, path: Path) -> pl.DataFrame:
        """Predictions for a user's file, which contains no true values."""
        name = self.config.task.name
        raise InputError(
            f"--input {path}: not supported for task.name={name}, which predicts its own test split; omit it"
        )
