"""Every key of a configuration, its default and its bounds. Plain dataclasses: notebooks use them directly.

A number's bounds stand in its field's metadata; `titans_seq.config` checks them. Each kind of task has a schema of its
own, which the key `task.name` chooses: what differs is in its sections data, model and task.
"""

from titans_seq.schema.classification import (
    ClassificationConfig,
    ClassificationDataOptions,
    ClassificationModelOptions,
    ClassificationTaskOptions,
)
from titans_seq.schema.common import (
    WITH_ATTENTION,
    WITH_MEMORY,
    AttentionOptions,
    BackboneOptions,
    Config,
    DataOptions,
    LoggingOptions,
    MemoryOptions,
    RunOptions,
    TaskOptions,
    TrainerOptions,
)
from titans_seq.schema.forecasting import (
    CALENDAR,
    ForecastConfig,
    ForecastDataOptions,
    ForecastModelOptions,
    ForecastTaskOptions,
)
from titans_seq.schema.pretraining import PretrainingConfig, PretrainingDataOptions, PretrainingTaskOptions
from titans_seq.schema.sequences import SequenceModelOptions

SCHEMAS: dict[str, type[Config]] = {
    "forecasting": ForecastConfig,
    "classification": ClassificationConfig,
    "pretraining": PretrainingConfig,
}
DEFAULT_TASK = "forecasting"

__all__ = [
    "CALENDAR",
    "DEFAULT_TASK",
    "SCHEMAS",
    "WITH_ATTENTION",
    "WITH_MEMORY",
    "AttentionOptions",
    "BackboneOptions",
    "ClassificationConfig",
    "ClassificationDataOptions",
    "ClassificationModelOptions",
    "ClassificationTaskOptions",
    "Config",
    "DataOptions",
    "ForecastConfig",
    "ForecastDataOptions",
    "ForecastModelOptions",
    "ForecastTaskOptions",
    "LoggingOptions",
    "MemoryOptions",
    "PretrainingConfig",
    "PretrainingDataOptions",
    "PretrainingTaskOptions",
    "RunOptions",
    "SequenceModelOptions",
    "TaskOptions",
    "TrainerOptions",
]
