"""Forecasts as tables with one row per step and channel.

W windows, H steps, C channels, Q quantiles, I intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.series import Series
from datamodules.time_series.timestamps import to_polars
from titans_seq.errors import InputError

_Array = NDArray[Any]


def forecast_table(
    series: Series, rows: NDArray[np.int64], forecasts: _Array, quantiles: Sequence[float]
) -> pl.DataFrame:
    """Table of forecasts (W, H, C, Q or 1), in the series' units, that begin at `rows` (W,), with the `truth`."""
    horizon = forecasts.shape[1]
    steps = rows[:, None] + np.arange(horizon)  # (W, H)
    table = long_table(
        series.channels,
        series.timestamps[steps],
        series.timestamps[rows - 1],
        forecasts,
        quantiles,
        timezone=series.timezone,
    )
    return table.insert_column(5, pl.Series("truth", series.values[steps].ravel()))


def long_table(
    channels: Sequence[str],
    timestamps: _Array,
    origins: _Array,
    forecasts: _Array,
    quantiles: Sequence[float],
    intervals: Mapping[float, tuple[_Array, _Array]] | None = None,
    *,
    timezone: str | None = None,
) -> pl.DataFrame:
    """Table of `timestamp`, `channel`, `origin`, `step`, `forecast`, quantiles and interval bounds.

    timestamps (W, H); origins (W,); forecasts (W, H, C, Q or 1), in any units; intervals: lower and upper bounds
    (W, H, C) by coverage; with a `timezone`, timestamps and origins are UTC, and its local times in the table.
    """
    windows, horizon, count, _ = forecasts.shape
    shape = windows, horizon, count
    point = forecasts[..., list(quantiles).index(0.5) if quantiles else 0]
    levels = {f"q{level:g}": forecasts[..., i].ravel() for i, level in enumerate(quantiles)}
    ends: dict[str, _Array] = {}
    for coverage, (lower, upper) in (intervals or {}).items():
        ends |= {f"lower_{100 * coverage:g}": lower.ravel(), f"upper_{100 * coverage:g}": upper.ravel()}
    return pl.DataFrame(
        {
            "timestamp": to_polars(np.broadcast_to(timestamps[..., None], shape).ravel(), timezone),
            "channel": np.tile(np.array(channels), windows * horizon),
            "origin": to_polars(np.broadcast_to(origins[:, None, None], shape).ravel(), timezone),
            "step": np.broadcast_to(np.arange(1, horizon + 1)[:, None], shape).ravel(),
            "forecast": point.ravel(),
            **levels,
            **ends,
        }
    )


def average_tables(tables: Sequence[pl.DataFrame], names: Sequence[str]) -> pl.DataFrame:
    """Return the mean of several forecasters' tables in every column of fractions, quantiles and bounds included.

    The mean of the quantiles of a level (Vincent, 1912) keeps the shape that the forecasters agree on. The column
    `model` names all models of a row. Raises InputError, with the `names` of the forecasters, for tables of other rows
    or columns.
    """
    first = tables[0]
    keys = [name for name, dtype in first.schema.items() if not dtype.is_float() and name != "model"]
    for name, table in zip(names, tables, strict=True):
        if table.columns != first.columns or not table.select(keys).equals(first.select(keys)):
            raise InputError(f"{name}: forecasts other rows or columns than {names[0]}")
    means = [
        sum((t[column] for t in tables[1:]), start=first[column]) / len(tables)
        for column, dtype in first.schema.items()
        if dtype.is_float()
    ]
    models = pl.DataFrame({name: table["model"] for name, table in zip(names, tables, strict=True)})
    distinct = pl.concat_list(pl.all()).list.unique(maintain_order=True)
    return first.with_columns(*means, models.select(distinct.list.join(" + ").alias("model"))["model"])
