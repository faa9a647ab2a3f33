"""In-memory multivariate series, their split boundaries and scaling, and a CSV reader."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.time_series.timestamps import local_times, to_polars
from titans_seq.errors import InputError

_NORMAL_RANGE = 1.3489795003921634  # interquartile range of the standard normal distribution


class SplitBoundaries(NamedTuple):
    """End rows of the splits (excluded); validation and test begin where the previous split ends."""

    train: int
    validation: int
    test: int


class Covariates(NamedTuple):
    """Covariates of a series, in the units of the source."""

    past: dict[str, NDArray[Any]]  # name to (T,), numbers or text: observed up to the forecast origin
    known: dict[str, NDArray[Any]]  # name to (T,), numbers or text: known for the horizon too
    static: dict[str, str]  # name to the value of this series, as text

    def timed(self) -> dict[str, NDArray[Any]]:
        """Return all columns (T,) by name, past and then known."""
        return {**self.past, **self.known}

    def arrays(self) -> list[NDArray[Any]]:
        """Return all columns (T,), past and then known."""
        return list(self.timed().values())


NO_COVARIATES = Covariates({}, {}, {})


class Series(NamedTuple):
    """Equally spaced multivariate values with timestamps, split boundaries and covariates."""

    name: str
    timestamps: NDArray[Any]  # (T,): datetime64, UTC with a timezone, or int64
    channels: list[str]  # C names
    values: NDArray[np.float64]  # (T, C), in the units of the source
    boundaries: SplitBoundaries
    covariates: Covariates = NO_COVARIATES
    file: Path | None = None  # the file it was read from
    timezone: str | None = None  # of the timestamps, such as Europe/Berlin; None: they have no zone
    interval: str = ""  # time step, see `steps`; empty: that of the timestamps

    def head(self, count: int) -> "Series":
        """Return the series of the first `count` rows."""
        past, known = (
            {name: column[:count] for name, column in columns.items()}
            for columns in (self.covariates.past, self.covariates.known)
        )
        return self._replace(
            timestamps=self.timestamps[:count],
            values=self.values[:count],
            boundaries=SplitBoundaries(*(min(row, count) for row in self.boundaries)),
            covariates=self.covariates._replace(past=past, known=known),
        )

    def clock(self) -> NDArray[Any]:
        """Return the timestamps (T,) as local clocks show them, for plots; integers as they are."""
        return local_times(to_polars(self.timestamps, self.timezone)).to_numpy() if self.timezone else self.timestamps


class SeriesSource(Protocol):
    """Loader of a series or of a panel: several series with the same channels, each with its own rows."""

    @property
    def seasonal_period(self) -> int:
        """Steps of the main cycle, for the seasonal-naive baseline."""

    @property
    def simulated(self) -> bool:
        """Whether the values are simulated."""

    def prepare(self) -> None:
        """Download or check files; called on one process before `load` runs on all."""

    def load(self) -> Series | list[Series]:
        """Return the series, or the list of series of a panel; raises InputError when the data are invalid."""


class Scaler(NamedTuple):
    """Scaler to z-scores with a centre and a width of the training rows."""

    mean: NDArray[np.float64]  # (C,); the median of a robust scaler
    std: NDArray[np.float64]  # (C,)

    @classmethod
    def fit(cls, values: NDArray[np.float64], *, robust: bool = False) -> "Scaler":
        """Fit on `values` (T, C); a constant channel gets standard deviation 1.

        The centre and width are the mean and the population standard deviation (ddof 0). If `robust`, they are the
        median and the interquartile range, divided by that of a standard normal distribution; the standard deviation
        where half of the values are equal.
        """
        mean, std = values.mean(axis=0), values.std(axis=0)
        std = np.where(std > 1e-12 * np.abs(mean), std, 1.0)  # rounding makes it slightly above 0
        if not robust:
            return cls(mean, std)
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        width = (high - low) / _NORMAL_RANGE
        return cls(median, np.where(width > 1e-12 * np.abs(median), width, std))

    def transform(self, values: NDArray[Any]) -> NDArray[Any]:
        """Scale values (..., C) from the source's units to z-scores."""
        return (values - self.mean) / self.std

    def inverse(self, values: NDArray[Any]) -> NDArray[Any]:
        """Scale z-scores (..., C) back to the source's units."""
        return values * self.std + self.mean


def read_csv(path: Path, time_column: str = "date") -> tuple[NDArray[np.datetime64], list[str], NDArray[np.float64]]:
    """Return timestamps (T,), channel names and values (T, C) of a CSV file; every value must be a finite number.

    Raises InputError with the first cell that is not.
    """
    try:
        table = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable CSV file: {reason}") from None
    if time_column not in table.columns:
        raise InputError(f"{path}: no column {time_column!r}; found {_names(table.columns)}")

    timestamps = table[time_column].str.to_datetime(strict=False, time_unit="ns")
    if timestamps.null_count():
        row = int(timestamps.is_null().arg_max() or 0)
        raise InputError(
            f"{path}: {_line(row)}, column {time_column}: {_cell(table, time_column, row)} is not a timestamp"
        )
    channels = [name for name in table.columns if name != time_column]
    values = np.empty((len(table), len(channels)))
    for index, name in enumerate(channels):
        numbers = table[name].str.strip_chars().cast(pl.Float64, strict=False)
        bad = ~numbers.is_finite().fill_null(False)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise InputError(
                f"{path}: {_line(row)} ({table[time_column][row]}), column {name}: {_cell(table, name, row)} is not a "
                f"finite number; {bad.sum()} such cells in this column. Fix the file."
            )
        values[:, index] = numbers.to_numpy()
    return timestamps.to_numpy(), channels, values


def _names(columns: list[str]) -> str:
    """Return the header, printable and cut at 200 characters: that of a file which is not a table can be binary."""
    text = ", ".join(name if name.isprintable() else repr(name) for name in columns)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _line(row: int) -> str:
    return f"line {row + 2}"  # line numbers of an editor: from 1, header included


def _cell(table: pl.DataFrame, column: str, row: int) -> str:
    text = table[column][row]
    return "an empty cell" if text is None else repr(text)
