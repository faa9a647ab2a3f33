"""Builds the source of the series that a configuration names."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from datamodules.common.frames import to_polars_frame
from datamodules.common.text_format import TextFormat
from datamodules.time_series.columns import ColumnRoles, Fill
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.ett import ETT
from datamodules.time_series.datasets.simulated import SimulatedSeries
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.datasets.weather import Weather
from datamodules.time_series.series import SeriesSource
from titans_seq.errors import InputError
from titans_seq.schema import FRAME, ForecastingConfig, ForecastingDataOptions, split_end


def build_series_source(options: ForecastingDataOptions, frame: pl.DataFrame | None = None) -> SeriesSource:
    """Build the source of `data.name`; a table is that of `data.path`, or `frame`; raises InputError without either."""
    if options.name == "table":
        return build_table(options, frame)
    if options.name == "Weather":
        return Weather(options.root, options.mask_missing)
    return SimulatedSeries() if options.name == "synthetic" else ETT(options.name, options.root)


def build_data_module(
    config: ForecastingConfig,
    source: SeriesSource,
    *,
    unknown_categories: bool,
    categories: Mapping[str, list[str]],
) -> ForecastingDataModule:
    """Build the data module of a configuration, without series yet; see `ForecastingDataModule`."""
    options, model = config.data, config.model
    return ForecastingDataModule(
        source,
        context_length=options.context_length,
        horizon=options.horizon,
        batch_size=options.batch_size,
        seed=config.seed,
        calendar=options.calendar,
        patch=(model.patch_length, model.stride) if model.pretrained is None else (1, 1),
        short=options.short,
        unknown_categories=unknown_categories,
        categories=categories,
        robust=options.scaling == "robust",
        floor=model.floor,
    )


def column_roles(options: ForecastingDataOptions) -> ColumnRoles:
    """Return the roles of the columns of a user's table."""
    return ColumnRoles(
        time=options.time,
        target=tuple(options.target),
        id=options.id,
        past=tuple(options.past),
        known=tuple(options.known),
        static=tuple(options.static),
    )


def read_argument(data: Any, name: str) -> Path | pl.DataFrame | None:
    """Return the argument `name` of a function that takes a table: a path, or a frame of polars or pandas as polars."""
    return Path(data) if isinstance(data, str | Path) else None if data is None else to_polars_frame(data, name)


def argument_text(data: Any) -> str:
    """Return a table that is an argument as messages name it."""
    return str(data) if isinstance(data, str | Path) else FRAME


def build_table(
    options: ForecastingDataOptions,
    frame: pl.DataFrame | None = None,
    *,
    fill: Fill | None = None,
    infer_roles: bool = False,
    categories: Collection[str] | None = None,
) -> Table:
    """Build the source of a user's table, `frame` or the file of `data.path`; raises InputError without either.

    `fill` replaces that of the options; for `infer_roles` and `categories` see `Table`.
    """
    if frame is None and options.path == FRAME:
        raise InputError(
            "data.path: the run was trained on a data frame; give its data again: --data FILE or data.path=FILE, in "
            "Python data=frame"
        )
    if frame is None and options.path is None:
        raise InputError("data.path: data.name=table reads a CSV or Parquet file; set data.path=my.csv")
    return Table(
        Path(str(options.path)).expanduser() if frame is None else frame,
        column_roles(options),
        time_format=options.time_format,
        timezone=options.timezone,
        fill=fill or options.fill,
        split=SplitPoints(*(split_end(end, options.horizon) for end in (options.train_end, options.validation_end))),
        seasonal_period=options.season,
        infer_roles=infer_roles,
        keep_short=options.short != "refuse",
        text_format=text_format_of(options),
        outliers=options.outliers,
        categories=categories,
    )


def text_format_of(options: ForecastingDataOptions) -> TextFormat:
    """Return how a table is written, as far as it is set."""
    named = {"tab": "\t", "pipe": "|"}
    separator = named.get(options.separator or "", options.separator)
    return TextFormat(separator, options.encoding, options.decimal, options.thousands)
