"""Every configuration key with its default, bounds and conflicts, as plain dataclasses that notebooks can use directly.

A number's bounds are in its field's metadata, and `Config.conflicts` yields the values that do not go together;
`titans_seq.config` checks both. The key `task.name` selects the task's configuration class, whose sections data, model
and task add keys of their own.
"""

from titans_seq.schema.classification import (
    ClassificationConfig,
    ClassificationDataOptions,
    ClassificationModelOptions,
    ClassificationTaskOptions,
)
from titans_seq.schema.common import (
    MIXER_KEYS,
    WITH_ATTENTION,
    WITH_MEMORY,
    AttentionOptions,
    BackboneOptions,
    Config,
    Conflict,
    DataOptions,
    LoggingOptions,
    MemoryOptions,
    MixerOptions,
    RunOptions,
    TaskOptions,
    TrainerOptions,
)
from titans_seq.schema.forecasting import (
    CALENDAR,
    FRAME,
    ForecastingConfig,
    ForecastingDataOptions,
    ForecastingModelOptions,
    ForecastingTaskOptions,
    split_end,
)
from titans_seq.schema.pretraining import PretrainingConfig, PretrainingDataOptions, PretrainingTaskOptions
from titans_seq.schema.sequences import SequenceModelOptions
from titans_seq.schema.universal import (
    PATCH,
    UniversalConfig,
    UniversalDataOptions,
    UniversalModelOptions,
    UniversalTaskOptions,
)

SCHEMAS: dict[str, type[Config]] = {
    "forecasting": ForecastingConfig,
    "classification": ClassificationConfig,
    "pretraining": PretrainingConfig,
    "universal": UniversalConfig,
}
DEFAULT_TASK = "forecasting"

__all__ = [
    "CALENDAR",
    "DEFAULT_TASK",
    "FRAME",
    "MIXER_KEYS",
    "PATCH",
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
    "Conflict",
    "DataOptions",
    "ForecastingConfig",
    "ForecastingDataOptions",
    "ForecastingModelOptions",
    "ForecastingTaskOptions",
    "LoggingOptions",
    "MemoryOptions",
    "MixerOptions",
    "PretrainingConfig",
    "PretrainingDataOptions",
    "PretrainingTaskOptions",
    "RunOptions",
    "SequenceModelOptions",
    "TaskOptions",
    "TrainerOptions",
    "UniversalConfig",
    "UniversalDataOptions",
    "UniversalModelOptions",
    "UniversalTaskOptions",
    "split_end",
]
