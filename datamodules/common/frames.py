"""Data frames of polars and pandas: converted on the way in, and back on the way out."""

from typing import Any

import polars as pl

from titans_seq.errors import InputError


def to_polars_frame(data: Any, name: str = "data") -> pl.DataFrame:
    """Return a polars frame; a named index of a pandas frame, or one of times, becomes a column.

    Raises InputError, naming the argument `name`, for anything but a polars or pandas frame.
    """
    if isinstance(data, pl.DataFrame):
        return data
    if not all(hasattr(data, each) for each in ("columns", "index", "reset_index")):
        raise InputError(f"{name}: expected a polars or pandas data frame; got {type(data).__name__}")
    if data.index.name is not None or data.index.dtype.kind == "M":
        data = data.reset_index()
    columns = {str(column): data[column].to_numpy() for column in data.columns}
    kept = {column: x.tolist() if x.dtype == object else x for column, x in columns.items()}
    return pl.DataFrame(kept, nan_to_null=True)


def in_library_of(data: Any, table: pl.DataFrame) -> Any:
    """Return the table as a frame of the same library as `data`; as it is unless `data` is a pandas frame."""
    if isinstance(data, pl.DataFrame) or not hasattr(data, "reset_index"):
        return table
    return type(data)(table.to_dict(as_series=False))
