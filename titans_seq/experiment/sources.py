"""The series that a configuration names."""

from pathlib import Path

from datamodules.columns import Roles
from datamodules.ett import ETT
from datamodules.series import SeriesSource
from datamodules.synthetic import Synthetic
from datamodules.table import Split, Table
from datamodules.weather import Weather
from titans_seq.errors import InputError
from titans_seq.schema import ForecastDataOptions


def build_source(options: ForecastDataOptions) -> SeriesSource:
    """Where the series comes from."""
    if options.name == "table":
        return build_table(options)
    if options.name == "Weather":
        return Weather(options.root, options.mask_missing)
    return Synthetic() if options.name == "synthetic" else ETT(options.name, options.root)


def build_table(options: ForecastDataOptions) -> Table:
    """The user's own table."""
    if options.path is None:
        raise InputError("data.path: data.name=table reads a CSV or Parquet file; set data.path=my.csv")
    roles = Roles(
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
        fill=options.fill,
        split=Split(options.train_end, options.validation_end),
        season=options.season,
    )
