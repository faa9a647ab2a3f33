"""Cells that are errors of the data: so far from all others that a scale or a model would be of them alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

LEAST_VALUES = 16  # of a column, to tell its outlying cells
_MOST = 0.01  # share of a column's values that can be errors; more are a pattern of the data


class Outlier(NamedTuple):
    """An outlying cell of a series."""

    column: str
    row: int  # of the series
    value: float


def remove_outliers(rows: pl.DataFrame, columns: Sequence[str], ratio: float) -> tuple[pl.DataFrame, list[Outlier]]:
    """Return the rows of a series with its outlying cells empty, and these cells.

    A cell is outlying if its distance from the column's median is more than `ratio` times that between the 5 % and the
    95 % quantile, and at most one cell in a hundred is. Only columns of numbers have such cells.
    """
    found: list[Outlier] = []
    for column in columns:
        if not rows[column].dtype.is_numeric():
            continue
        values = rows[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        outlying = _outlying(values, ratio)
        if len(outlying):
            found += [Outlier(column, int(row), float(values[row])) for row in outlying]
            rows = rows.with_columns(rows[column].scatter(outlying, None))
    return rows, found


def _outlying(values: NDArray[np.float64], ratio: float) -> NDArray[Any]:
    observed = values[~np.isnan(values)]
    if len(observed) < LEAST_VALUES:
        return np.empty(0, dtype=np.int64)
    low, median, high = np.quantile(observed, [0.05, 0.5, 0.95])
    distances = np.abs(values - median)
    spread = high - low
    if spread == 0:  # nearly all values are equal: the usual distance of those that are not
        others = distances[distances > 0]
        spread = np.median(others) if len(others) else 0.0
    outlying = np.flatnonzero(distances > ratio * spread) if spread > 0 else np.empty(0, dtype=np.int64)
    return outlying if len(outlying) <= max(1, _MOST * len(observed)) else outlying[:0]
