"""The configuration of a forecasting experiment."""

from dataclasses import dataclass, field
from typing import Any, Literal

from titans_seq.schema.common import BackboneOptions, Config, DataOptions, TaskOptions, at_least, between

CALENDAR = ("minute_of_hour", "hour_of_day", "day_of_week", "day_of_month", "day_of_year", "month_of_year")


@dataclass
class ForecastDataOptions(DataOptions):
    """Which series, and what a window of it is."""

    name: Literal["synthetic", "ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "table"] = "synthetic"
    context_length: int = at_least(336, 1)  # steps the model sees
    horizon: int = at_least(96, 1)  # steps it forecasts
    mask_missing: bool = False  # Weather: fill its -9999 cells with the value before; published numbers do not
    # Features of every step, the future's too: minute_of_hour, hour_of_day, day_of_week, day_of_month, day_of_year,
    # month_of_year
    calendar: list[str] = field(default_factory=list)
    # With name=table, your own file: CSV or Parquet; wide, one column a series, or long, with a column `id`
    path: str | None = None
    time: str = "date"  # column of the timestamps
    time_format: str | None = None  # as strftime has it, such as "%d.%m.%Y %H:%M"; null: ISO 8601
    id: str | None = None  # column that names a row's series; null: a wide table
    target: list[str] = field(default_factory=list)  # columns to forecast; empty: all without another part
    past: list[str] = field(default_factory=list)  # columns seen up to now
    known: list[str] = field(default_factory=list)  # columns known for the future too, such as prices and holidays
    static: list[str] = field(default_factory=list)  # columns with one value for each series; needs id
    fill: Literal["none", "ffill", "interpolate"] = "none"  # missing times and empty cells
    train_end: Any = 0.7  # where training ends: a share of each series' rows, or the first time that is not in it
    validation_end: Any = 0.8  # the same for validation; test rows are the rest
    season: int | None = at_least(None, 1)  # steps of the main cycle; null: a day, of days a week, of months a year


@dataclass
class ForecastModelOptions(BackboneOptions):
    """The forecaster: patches, backbone, head."""

    patch_length: int = at_least(16, 1)  # steps in a token
    stride: int = at_least(16, 1)  # steps between tokens
    channel_mixing: bool = False  # all channels of a patch in one token, instead of one series per channel
    head_dropout: float = between(0.2, 0, 1)
    centre: Literal["mean", "last"] = "last"  # what instance normalisation subtracts from each window
    # A linear forecast beside the backbone, which learns the rest; solved starts it at the best map of the training
    # windows, frozen leaves it there.
    linear_path: Literal["none", "learned", "solved", "frozen"] = "learned"
    linear_maps: Literal["shared", "channels"] = "shared"  # one map for all channels, or one for each
    linear_loss: Literal["mse", "mae"] = "mse"  # what it is solved for: least squares, or least absolute errors
    # In the place of the whole model, on the same windows: naive forecasts, the linear map alone, or DLinear.
    baseline: Literal["none", "last_value", "seasonal_naive", "linear", "dlinear"] = "none"
    head: Literal["point", "quantile"] = "point"  # quantile: task.quantiles, of which the median is the forecast


@dataclass
class ForecastTaskOptions(TaskOptions):
    """Forecasting: what is minimised."""

    name: Literal["forecasting"] = "forecasting"
    loss: Literal["mse", "mae", "huber"] = "mse"  # of the point head, on z-scores; huber has its corner at 1
    # Of the quantile head, which is trained by their pinball loss; ascending, with 0.5.
    quantiles: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # Nominal coverages of the conformal intervals, calibrated on validation after training; empty: none.
    intervals: list[float] = field(default_factory=lambda: [0.8, 0.95])


@dataclass
class ForecastConfig(Config):
    """`task.name=forecasting`."""

    experiment: str = "forecasting"
    data: ForecastDataOptions = field(default_factory=ForecastDataOptions)
    model: ForecastModelOptions = field(default_factory=ForecastModelOptions)
    task: ForecastTaskOptions = field(default_factory=ForecastTaskOptions)
