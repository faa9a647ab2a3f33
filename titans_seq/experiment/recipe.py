"""What a kind of task adds to the path that every run takes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import polars as pl
from lightning.pytorch import LightningDataModule, Trainer

from titans_seq.errors import InputError
from titans_seq.schema import Config
from titans_seq.tasks import Task

TaskT = TypeVar("TaskT", bound=Task)
Scores = dict[str, float]


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two fingerprints say differently of the data; files may have been written anew, if they say the same."""
    return [key for key in now if key != "files" and now[key] != before.get(key)]


class Recipe(ABC, Generic[TaskT]):
    """One kind of task, for one configuration: its data, task, baselines, picture and predictions."""

    columns: Mapping[str, str]  # of the table at the end of a run: from keys of the results to headings
    picture: ClassVar[str]  # name of the picture, without its suffix
    started_from = ""  # the report of what another run's weights were put into the new task; kept in checkpoints

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    @abstractmethod
    def data(self) -> LightningDataModule:
        """The data, read and checked at first use: what is wrong with them is said before anything is written."""

    @abstractmethod
    def new_task(self) -> TaskT:
        """The task to be trained."""

    @abstractmethod
    def restored_task(self, hyperparameters: Mapping[str, Any]) -> TaskT:
        """The task that a checkpoint's hyperparameters describe, without its weights; needs no data."""

    @abstractmethod
    def check_data(self, task: TaskT, source: str) -> None:
        """Raise InputError when the data are not of the kind that the task from `source` was trained on."""

    def model_name(self) -> str:
        """What the model is called, on the console."""
        return self.config.model.variant.upper()

    @abstractmethod
    def describe(self) -> str:
        """What the run is about, for its first line."""

    def notes(self) -> tuple[str, ...]:
        """What the user should be told once about the data, a line each."""
        return ()

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the results say about the data."""

    def fingerprint(self) -> dict[str, Any]:
        """What tells the data from others, as plain values for checkpoints."""
        return {"name": self.config.data.name}

    def tables(self, task: TaskT) -> dict[str, pl.DataFrame]:
        """Tables for a tracker, of a run whose task has just been tested; short ones."""
        return {}

    @abstractmethod
    def baselines(self) -> dict[str, Scores]:
        """Test scores of what the model must beat, on the same part of the test split."""

    @abstractmethod
    def draw(self, task: TaskT, path: Path) -> None:
        """Draw the picture of a run whose task has just been tested."""

    @abstractmethod
    def title(self) -> str:
        """The heading of the table of test scores."""

    def finish(self, task: TaskT, folder: Path, checkpoint: Path) -> dict[str, Any]:
        """What else is made of a trained and tested task: files for the run's folder, and more results."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """What to say below the table of scores, a line each."""
        return ()

    @abstractmethod
    def predict_test(self, task: TaskT, trainer: Trainer) -> pl.DataFrame:
        """Predictions for the test split, beside the truth."""

    def predict_file(self, task: TaskT, trainer: Trainer, path: Path) -> pl.DataFrame:
        """Predictions for a user's file without truth."""
        raise InputError(f"--input {path}: task.name={self.config.task.name} predicts its own test split; leave it out")
