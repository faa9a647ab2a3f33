"""Builds the source of the series that a configuration names."""

from pathlib import Path

from datamodules.time_series.columns import ColumnRoles, Fill
from datamodules.time_series.datasets.ett import ETT
from datamodules.time_series.datasets.simulated import SimulatedSeries
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.datasets.weather import Weather
from datamodules.time_series.series import SeriesSource
from titans_seq.errors import InputError
from titans_seq.schema import ForecastingDataOptions, split_end


def build_series_source(options: ForecastingDataOptions) -> SeriesSource:
    """Build the source of `data.name`; raises InputError for a table without `data.path`."""
    if options.name == "table":
        return build_table(options)
    if options.name == "Weather":
        return Weather(options.root, options.mask_missing)
    return SimulatedSeries() if options.name == "synthetic" else ETT(options.name, options.root)


def build_table(options: ForecastingDataOptions, *, fill: Fill | None = None, infer_roles: bool = False) -> Table:
    """Build the source of a user's table; raises InputError without `data.path`.

    `fill` replaces that of the options; for `infer_roles` see `Table`.
    """
    if options.path is None:
        raise InputError("data.path: data.name=table reads a CSV or Parquet file; set data.path=my.csv")
    roles = ColumnRoles(
        time=options.time,
        target=tuple(options.target),
        id=options.id,
        past=tuple(options.past),
        known=tuple(options.known),
        static=tuple(options.static),
    )
    return Table(
        Path(options.path).expanduser(),
        roles,
        time_format=options.time_format,
        timezone=options.timezone,
        fill=fill or options.fill,
        split=SplitPoints(*(split_end(end, options.horizon) for end in (options.train_end, options.validation_end))),
        seasonal_period=options.season,
        infer_roles=infer_roles,
    )
