"""Configuration keys of forecasting."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from titans_seq.schema.common import BackboneOptions, Config, Conflict, DataOptions, TaskOptions, at_least, between

CALENDAR = ("minute_of_hour", "hour_of_day", "day_of_week", "day_of_month", "day_of_year", "month_of_year")
FRAME = "<data frame>"  # `data.path` of a run that was trained on a data frame
# Keys of the section `data` that only data.name=table reads.
_TABLE_KEYS = (
    *("path", "time", "time_format", "timezone", "id", "target", "past", "known", "static"),
    *("fill", "short", "outliers", "train_end", "validation_end", "season"),
    *("separator", "encoding", "decimal", "thousands"),
)
_THOUSANDS = (",", ".", "space", "apostrophe")
_SEPARATOR_NAMES = ("tab", "pipe")  # of characters that YAML or a shell would take for something else
_HORIZONS = re.compile(r"-(\d+) ?horizons?")


@dataclass
class ForecastingDataOptions(DataOptions):
    """Series, splits and windows."""

    # A simulated series, a published dataset, or table: your own file
    name: Literal["synthetic", "ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "table"] = "synthetic"
    context_length: int = at_least(336, 1)  # steps the model sees (lookback)
    horizon: int = at_least(96, 1)  # steps it forecasts
    # How each series is scaled, by its training rows: mean and standard deviation, or median and interquartile range
    scaling: Literal["standard", "robust"] = "standard"
    mask_missing: bool = False  # Weather: replace its -9999 cells by the value before; published results keep them
    # Calendar features of every step, past and future: minute_of_hour, hour_of_day, day_of_week, day_of_month,
    # day_of_year, month_of_year
    calendar: list[str] = field(default_factory=list)
    # After selection and test, train again on all rows for the selected number of steps; `forecast` uses these weights
    refit: bool = False
    # With name=table, your own CSV or Parquet file: wide (one column per series) or long (with a column `id`)
    path: str | None = None
    time: str = "date"  # column of the timestamps
    time_format: str | None = None  # strftime format, such as "%d.%m.%Y %H:%M"; null: ISO 8601, or integers
    # Time zone of the timestamps, such as Europe/Berlin: days and hours across daylight saving are those of its clocks
    timezone: str | None = None
    id: str | None = None  # column with the series' name; null: a wide table
    target: list[str] = field(default_factory=list)  # columns to forecast; empty: all that have no other role
    past: list[str] = field(default_factory=list)  # past covariates: columns known only up to the present
    known: list[str] = field(default_factory=list)  # known covariates: columns known for the future too, such as prices
    static: list[str] = field(default_factory=list)  # static covariates: columns with one value per series; requires id
    fill: Literal["none", "ffill", "interpolate"] = "none"  # how missing times and empty cells are filled
    # Series with too few rows. pad: their first season is repeated before them, where they have at least a season and a
    # horizon for training, or a season for a forecast; fit leaves out shorter ones, forecast gives them their last
    # value. drop: they are left out. refuse: an error. All but refuse print a note, and forecast those that can be.
    short: Literal["pad", "drop", "refuse"] = "pad"
    # End of the training rows of each series: a fraction of its rows, the first time after them, or how far from its
    # end: -56 (rows) or "-4 horizons"
    train_end: Any = 0.7
    validation_end: Any = 0.8  # end of the validation rows, likewise; the rest are test rows
    separator: str | None = None  # of columns in a CSV file, such as ; or tab or pipe; null: found from the first lines
    encoding: str | None = None  # of a CSV file, such as cp1252; null: UTF-8, or what a byte order mark names
    decimal: str | None = None  # decimal mark of numbers in text: . or , ; null: found where only one reading fits
    thousands: str | None = (
        None  # mark between thousands: , . space apostrophe; null: found where only one reading fits
    )
    # A cell is an error of the data, and takes the value before, if its distance from the column's median is more than
    # this many times the distance between the 5 % and the 95 % quantile; null: no cell is
    outliers: float | None = at_least(1000.0, 10)
    # Seasonal period in steps; null: a day, of days a week (of business days 5), of longer steps a year
    season: int | None = at_least(None, 1)


@dataclass
class ForecastingModelOptions(BackboneOptions):
    """The forecaster: patches, backbone, head."""

    patch_length: int = at_least(16, 1)  # steps in a token
    stride: int = at_least(16, 1)  # steps between tokens
    channel_mixing: bool = False  # one token holds all channels of a patch, instead of one sequence per channel
    head_dropout: float = between(0.2, 0, 1)  # probability of dropout, on the head's input
    # Probability with which a static category is taken for an unknown one in training, so that the model learns to
    # forecast series whose category it has not seen; 0: it does not, and such series get a seasonal naive forecast.
    category_dropout: float = between(0.05, 0, 1)
    centre: Literal["mean", "last"] = "last"  # value that instance normalisation subtracts from each window
    # A linear forecast added to the backbone's; solved initialises it with the best map on the training windows,
    # frozen keeps it fixed there.
    linear_path: Literal["none", "learned", "solved", "frozen"] = "learned"
    linear_maps: Literal["shared", "channels"] = "shared"  # one map for all channels, or one per channel
    linear_loss: Literal["mse", "mae"] = "mse"  # least squares, or least absolute errors (L1)
    # Replaces the whole model on the same windows: naive forecasts, the linear map alone, or DLinear.
    baseline: Literal["none", "last_value", "seasonal_naive", "linear", "dlinear"] = "none"
    head: Literal["point", "quantile"] = "point"  # quantile: predicts task.quantiles; the median is the forecast
    floor: float | None = None  # least value of forecasts, quantiles and intervals, in the data's units; 0 for counts
    # Fine-tunes the universal forecaster instead, whose weights set all other keys of this section but head=quantile:
    # universal (the weights of this package), or a folder of `titans-seq export` or a run with task.name=universal.
    pretrained: str | None = None


@dataclass
class ForecastingTaskOptions(TaskOptions):
    """Loss of forecasting, quantiles and intervals."""

    name: Literal["forecasting"] = "forecasting"
    loss: Literal["mse", "mae", "huber"] = "mse"  # loss of the point head, on z-scores; huber with delta 1
    # Levels of the quantile head, trained by the pinball loss; ascending, must include 0.5.
    quantiles: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # Nominal coverages of the conformal intervals, calibrated on the validation split after training; empty: none.
    intervals: list[float] = field(default_factory=lambda: [0.8, 0.95])


@dataclass
class ForecastingConfig(Config):
    """Configuration with `task.name=forecasting`."""

    experiment: str = "forecasting"
    data: ForecastingDataOptions = field(default_factory=ForecastingDataOptions)
    model: ForecastingModelOptions = field(default_factory=ForecastingModelOptions)
    task: ForecastingTaskOptions = field(default_factory=ForecastingTaskOptions)

    def conflicts(self) -> Iterator[Conflict]:
        """Values that do not go together."""
        yield from self._pretrained_conflicts()
        yield from super().conflicts()
        model, data = self.model, self.data
        if model.patch_length > data.context_length and model.pretrained is None:
            rule = f"{model.patch_length} exceeds data.context_length={data.context_length}"
            yield Conflict("model.patch_length", "data.context_length", rule)
        if model.stride > model.patch_length:
            rule = f"{model.stride} exceeds model.patch_length={model.patch_length}, which would skip steps"
            yield Conflict("model.stride", "model.patch_length", rule)
        if data.refit and model.baseline in ("last_value", "seasonal_naive"):
            rule = f"has no effect with model.baseline={model.baseline}, which is not trained"
            yield Conflict("data.refit", "model.baseline", rule, no_effect=True)
        if model.baseline != "none" and model.head == "quantile":
            rule = f"model.baseline={model.baseline} predicts no quantiles; use model.head=point"
            yield Conflict("model.head", "model.baseline", rule)
        if model.category_dropout != ForecastingModelOptions().category_dropout and not data.static:
            rule = "applies to the columns of data.static, and there are none"
            yield Conflict("model.category_dropout", "data.static", rule, no_effect=True)
        if model.baseline != "none" and self.task.optimizer == "muon":
            rule = f"muon updates the matrices of a backbone, which model.baseline={model.baseline} replaces"
            yield Conflict("task.optimizer", "model.baseline", rule)
        yield from self._series_conflicts()
        yield from self._quantile_conflicts()

    def _pretrained_conflicts(self) -> Iterator[Conflict]:
        model, data, task = self.model, self.data, self.task
        if model.pretrained is None:
            return
        if model.head != "quantile":
            rule = "point does not go with model.pretrained, which predicts quantiles; set model.head=quantile"
            yield Conflict("model.head", "model.pretrained", rule)
        levels = ForecastingTaskOptions().quantiles
        if task.quantiles != levels:
            rule = f"{task.quantiles}: model.pretrained predicts the quantiles {levels} only"
            yield Conflict("task.quantiles", "model.pretrained", rule)
        if model.baseline != "none":
            rule = f"{model.baseline} and model.pretrained both replace the model; remove one of them"
            yield Conflict("model.baseline", "model.pretrained", rule)
        for key in ("past", "static"):
            if getattr(data, key):
                rule = "is not supported with model.pretrained, which takes known covariates only; remove one of them"
                yield Conflict(f"data.{key}", "model.pretrained", rule)
        for key in _changed_keys(model, ForecastingModelOptions(), "model."):
            if key not in ("model.head", "model.pretrained", "model.baseline", "model.floor"):
                rule = "has no effect with model.pretrained, whose weights determine the model; remove one of them"
                yield Conflict(key, "model.pretrained", rule, no_effect=True)

    def _series_conflicts(self) -> Iterator[Conflict]:
        data, plain = self.data, ForecastingDataOptions()
        if data.name != "table" and (given := [k for k in _TABLE_KEYS if getattr(data, k) != getattr(plain, k)]):
            rule = f"only applies to data.name=table; got data.name={data.name}"
            yield Conflict(f"data.{given[0]}", "data.name", rule)
        yield from self._text_conflicts()
        for unknown in (name for name in data.calendar if name not in CALENDAR):
            yield Conflict("data.calendar", "data.calendar", f"unknown {unknown!r}; accepted: {', '.join(CALENDAR)}")
        yield from self._split_conflicts()

    def _split_conflicts(self) -> Iterator[Conflict]:
        data = self.data
        given = data.train_end, data.validation_end
        ends = [split_end(end, data.horizon) for end in given]
        for key, end in zip(("data.train_end", "data.validation_end"), ends, strict=True):
            counted = isinstance(end, int) and not isinstance(end, bool) and end < 0
            fraction = isinstance(end, float) and 0 < end < 1
            if not (counted or fraction or isinstance(end, str)):
                rule = (
                    f"must be a fraction of the rows between 0 and 1, a time such as 2024-03-01, or counted from the "
                    f'end of each series, such as -28 (rows) or "-2 horizons"; got {end}'
                )
                yield Conflict(key, key, rule)
        if type(ends[0]) is type(ends[1]) and not isinstance(ends[0], str) and ends[0] >= ends[1]:
            rule = f"{given[1]} must exceed data.train_end={given[0]}"
            yield Conflict("data.validation_end", "data.train_end", rule)

    def _text_conflicts(self) -> Iterator[Conflict]:
        data = self.data
        if data.separator is not None and len(data.separator) != 1 and data.separator not in _SEPARATOR_NAMES:
            rule = f"must be one character, tab or pipe; got {data.separator!r}"
            yield Conflict("data.separator", "data.separator", rule)
        if data.decimal not in (None, ".", ","):
            yield Conflict("data.decimal", "data.decimal", f"must be . or , ; got {data.decimal!r}")
        if data.thousands not in (None, *_THOUSANDS):
            rule = f"must be one of {' '.join(_THOUSANDS)}; got {data.thousands!r}"
            yield Conflict("data.thousands", "data.thousands", rule)
        if data.thousands is not None and data.thousands == data.decimal:
            rule = f"{data.thousands} is the decimal mark, too; set another one of the two"
            yield Conflict("data.thousands", "data.decimal", rule)
        if data.path is not None and data.path.lower().endswith(".parquet"):
            for key in (key for key in ("separator", "encoding") if getattr(data, key) is not None):
                yield Conflict(f"data.{key}", "data.path", "has no effect on a Parquet file; remove it", no_effect=True)
        if data.encoding is not None and not _is_text_encoding(data.encoding):
            rule = f"unknown {data.encoding!r}; expected a name such as utf-8, cp1252 or latin-1"
            yield Conflict("data.encoding", "data.encoding", rule)

    def _quantile_conflicts(self) -> Iterator[Conflict]:
        head, task = self.model.head, self.task
        for key, levels in (("task.quantiles", task.quantiles), ("task.intervals", task.intervals)):
            if levels != sorted(set(levels)) or not all(0 < level < 1 for level in levels):
                yield Conflict(key, key, f"must be ascending numbers between 0 and 1; got {levels}")
        if head == "quantile" and (0.5 not in task.quantiles or len(task.quantiles) < 2):
            rule = f"must include 0.5 (the point forecast) and at least one more level; got {task.quantiles}"
            yield Conflict("task.quantiles", "model.head", rule)
        if head == "quantile" and task.loss != "mse":
            rule = f"{task.loss} only applies to model.head=point; model.head=quantile trains by the pinball loss"
            yield Conflict("task.loss", "model.head", rule)


def split_end(end: Any, horizon: int) -> Any:
    """Return the end of a split with horizons as rows: "-2 horizons" is -28 for a horizon of 14, all else unchanged."""
    found = _HORIZONS.fullmatch(end) if isinstance(end, str) else None
    return -int(found[1]) * horizon if found else end


def _changed_keys(options: Any, plain: Any, prefix: str) -> Iterator[str]:
    """Full names of the keys of a section whose values differ from the default ones."""
    for f in fields(options):
        value, default = getattr(options, f.name), getattr(plain, f.name)
        if is_dataclass(value):
            yield from _changed_keys(value, default, f"{prefix}{f.name}.")
        elif value != default:
            yield f"{prefix}{f.name}"


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):  # unknown, or from bytes to bytes, such as base64
        return False
    return True
