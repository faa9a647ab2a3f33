"""Registry of tasks: the configuration class of each task to its experiment. A new task adds one line here."""

from typing import Any

from titans_seq.experiment.base import Experiment
from titans_seq.experiment.classification.experiment import ClassificationExperiment
from titans_seq.experiment.forecasting.experiment import ForecastingExperiment
from titans_seq.experiment.pretraining.experiment import PretrainingExperiment
from titans_seq.experiment.universal.experiment import UniversalExperiment
from titans_seq.schema import ClassificationConfig, Config, ForecastingConfig, PretrainingConfig, UniversalConfig

EXPERIMENTS: dict[type[Config], type[Experiment[Any]]] = {
    ForecastingConfig: ForecastingExperiment,
    ClassificationConfig: ClassificationExperiment,
    PretrainingConfig: PretrainingExperiment,
    UniversalConfig: UniversalExperiment,
}


def build_experiment(config: Config) -> Experiment[Any]:
    """The experiment for a configuration."""
    return EXPERIMENTS[type(config)](config)
