"""A multivariate series in memory, how it is split, and how it is read from a CSV file."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from titans_seq.errors import InputError


class Borders(NamedTuple):
    """The rows at which the splits end; validation and test begin where the split before them ends."""

    train: int
    validation: int
    test: int


class Covariates(NamedTuple):
    """What is known besides the series itself, in the units of the source."""

    past: dict[str, NDArray[np.float64]]  # name to (T,): seen up to now, as the series itself
    known: dict[str, NDArray[np.float64]]  # name to (T,): known for the future too
    static: dict[str, str]  # name to the one value of this series, as it is written

    def arrays(self) -> list[NDArray[np.float64]]:
        """All columns (T,), past and then known."""
        return [*self.past.values(), *self.known.values()]


NO_COVARIATES = Covariates({}, {}, {})


class Series(NamedTuple):
    """A table of equally spaced values."""

    name: str
    timestamps: NDArray[np.datetime64]  # (T,)
    channels: list[str]  # C names
    values: NDArray[np.float64]  # (T, C), in the units of the source
    borders: Borders
    covariates: Covariates = NO_COVARIATES
    file: Path | None = None  # that it was read from


class SeriesSource(Protocol):
    """Where a series comes from, or a panel: several series of the same channels, each with its own rows."""

    @property
    def season(self) -> int:
        """Steps of the main cycle, for the seasonal-naive baseline."""

    @property
    def simulated(self) -> bool:
        """Whether the values are made up."""

    def prepare(self) -> None:
        """Make the data available, on one process, before `load` runs on all."""

    def load(self) -> Series | list[Series]:
        """Read the series, those of a panel in a list; raises InputError when they are not what they should be."""


class Scaler(NamedTuple):
    """z-scores with the mean and the population deviation (ddof 0) of the training rows."""

    mean: NDArray[np.float64]  # (C,)
    std: NDArray[np.float64]  # (C,)

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> "Scaler":
        """Statistics of `values` (T, C); a constant channel keeps deviation 1."""
        mean, std = values.mean(axis=0), values.std(axis=0)
        return cls(mean, np.where(std > 1e-12 * np.abs(mean), std, 1.0))  # rounding gives a constant channel a little

    def transform(self, values: NDArray[Any]) -> NDArray[Any]:
        """From the source's units to z-scores, (..., C)."""
        return (values - self.mean) / self.std

    def inverse(self, values: NDArray[Any]) -> NDArray[Any]:
        """From z-scores to the source's units, (..., C)."""
        return values * self.std + self.mean


def read_csv(path: Path, time_column: str = "date") -> tuple[NDArray[np.datetime64], list[str], NDArray[np.float64]]:
    """Timestamps (T,), channel names and values (T, C) of a CSV file whose every cell must be a finite number.

    Raises InputError with the first cell that is not.
    """
    try:
        table = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable CSV file: {reason}") from None
    if time_column not in table.columns:
        raise InputError(f"{path}: no column {time_column!r}; found {_names(table.columns)}")

    stamps = table[time_column].str.to_datetime(strict=False, time_unit="ns")
    if stamps.null_count():
        row = int(stamps.is_null().arg_max() or 0)
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
                f"finite number; {bad.sum()} such cells in this column. Mend the file."
            )
        values[:, index] = numbers.to_numpy()
    return stamps.to_numpy(), channels, values


def _names(columns: list[str]) -> str:
    """The header, as far as it is of use: that of a file which is no table is long and unprintable."""
    text = ", ".join(name if name.isprintable() else repr(name) for name in columns)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _line(row: int) -> str:
    return f"line {row + 2}"  # as an editor counts: from 1, header included


def _cell(table: pl.DataFrame, column: str, row: int) -> str:
    text = table[column][row]
    return "an empty cell" if text is None else repr(text)
