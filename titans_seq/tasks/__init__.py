"""LightningModules: loss, metrics and optimiser around a plain model."""

from titans_seq.tasks.base import Task
from titans_seq.tasks.classification import ClassificationTask
from titans_seq.tasks.forecasting import ForecastingTask
from titans_seq.tasks.pretrained import from_pretrained, save_pretrained
from titans_seq.tasks.pretraining import PretrainingTask

__all__ = ["ClassificationTask", "ForecastingTask", "PretrainingTask", "Task", "from_pretrained", "save_pretrained"]
