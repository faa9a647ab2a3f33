"""The configuration of a forecasting experiment."""

from dataclasses import dataclass, field
from typing import Literal

from titans_seq.schema.common import BackboneOptions, Config, DataOptions, TaskOptions, at_least, between


@dataclass
class ForecastDataOptions(DataOptions):
    """Which series, and what a window of it is."""

    name: Literal["synthetic", "ETTh1", "ETTh2", "ETTm1", "ETTm2"] = "synthetic"
    context_length: int = at_least(336, 1)  # steps the model sees
    horizon: int = at_least(96, 1)  # steps it forecasts


@dataclass
class ForecastModelOptions(BackboneOptions):
    """The forecaster: patches, backbone, head."""

    patch_length: int = at_least(16, 1)  # steps in a token
    stride: int = at_least(16, 1)  # steps between tokens
    channel_mixing: bool = False  # all channels of a patch in one token, instead of one series per channel
    head_dropout: float = between(0.2, 0, 1)
    centre: Literal["mean", "last"] = "last"  # what instance normalisation subtracts from each window
    # A linear forecast beside the backbone, which learns the rest; solved starts it at the least-squares solution.
    linear_path: Literal["none", "learned", "solved"] = "learned"


@dataclass
class ForecastTaskOptions(TaskOptions):
    """Forecasting: what is minimised."""

    name: Literal["forecasting"] = "forecasting"
    loss: Literal["mse", "mae", "huber"] = "mse"  # on z-scores; huber has its corner at 1


@dataclass
class ForecastConfig(Config):
    """`task.name=forecasting`."""

    experiment: str = "forecasting"
    data: ForecastDataOptions = field(default_factory=ForecastDataOptions)
    model: ForecastModelOptions = field(default_factory=ForecastModelOptions)
    task: ForecastTaskOptions = field(default_factory=ForecastTaskOptions)
