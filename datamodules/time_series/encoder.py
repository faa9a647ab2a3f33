"""Preprocessing state of a forecaster: names, scales and time step, as needed to encode new data."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.time_series.calendar import calendar_features
from datamodules.time_series.series import Scaler, Series
from datamodules.time_series.steps import step_of
from datamodules.time_series.timestamps import to_polars
from titans_seq.errors import InputError


class FeatureEncoder(NamedTuple):
    """Feature columns and their scales, fitted on training rows; C, P, K as in `CovariateInputs`.

    Checkpoints hold the fields under their names.
    """

    channels: list[str]  # C
    past: list[str]  # P
    known: list[str]  # columns of the table; in K the calendar features follow them
    calendar: list[str]
    categories: dict[str, list[str]]  # static text columns: their values in the training data
    numbers: list[str]  # static numeric columns
    interval: str  # time step, as polars writes it
    season: int  # the seasonal period, in steps
    scalers: dict[str, Scaler]  # of the channels, by name of the series
    covariates: Scaler  # of past and known columns and static numbers, over the training rows of all series
    trained_until: str  # the last timestamp of all training rows, ISO 8601 (UTC with a timezone), or an integer
    timezone: str | None = None  # of the training table

    @classmethod
    def fit(cls, panel: Sequence[Series], calendar: Sequence[str], seasonal_period: int) -> "FeatureEncoder":
        """Fit on the training rows of the series; a static column is numeric if all its values are numbers."""
        first, train = panel[0], [series.boundaries.train for series in panel]
        static = {name: [series.covariates.static[name] for series in panel] for name in first.covariates.static}
        numbers = [name for name, values in static.items() if _are_numbers(values)]
        categories = {name: sorted(set(values)) for name, values in static.items() if name not in numbers}
        rows = np.concatenate([_columns(series)[:end] for series, end in zip(panel, train, strict=True)])
        each = np.array([[float(static[name][i]) for name in numbers] for i in range(len(panel))])
        parts = [Scaler.fit(rows), Scaler.fit(each.reshape(len(panel), len(numbers)))]
        return cls(
            channels=list(first.channels),
            past=list(first.covariates.past),
            known=list(first.covariates.known),
            calendar=list(calendar) if first.timestamps.dtype.kind == "M" else [],  # integers have no calendar
            categories=categories,
            numbers=numbers,
            interval=interval_of(first),
            season=seasonal_period,
            scalers={s.name: Scaler.fit(s.values[:end]) for s, end in zip(panel, train, strict=True)},
            covariates=Scaler(*(np.concatenate(pair) for pair in zip(*parts, strict=True))),
            trained_until=last_training_time(panel),
            timezone=first.timezone,
        )

    @property
    def has_covariates(self) -> bool:
        """Whether windows carry more than the channels."""
        return bool(self.past or self.known or self.calendar or self.categories or self.numbers)

    def sizes(self) -> dict[str, Any]:
        """Return the widths of `CovariateInputs`: past, known, numbers, and the number of values of each category."""
        return {
            "past": len(self.past),
            "known": len(self.known) + 2 * len(self.calendar),
            "categories": [len(values) for values in self.categories.values()],
            "numbers": len(self.numbers),
        }

    def encode(self, series: Series, scaler: Scaler) -> NDArray[np.float32]:
        """Return the scaled channels, past and known columns and calendar features of a series: (T, C + P + K)."""
        scaled = scaler.transform(series.values).astype(np.float32)
        if not self.has_covariates:
            return scaled
        columns = self._scale(_columns(series), 0)
        calendar = calendar_features(series.timestamps, self.calendar, series.timezone)
        return np.column_stack([scaled, columns, calendar]).astype(np.float32)

    def known_future(
        self, columns: NDArray[np.float64], times: NDArray[Any], timezone: str | None = None
    ) -> NDArray[np.float32]:
        """Return the known columns (N, names) of future `times`, scaled, with the calendar features: (N, K).

        With a `timezone`, `times` are UTC.
        """
        calendar = calendar_features(times, self.calendar, timezone)
        return np.column_stack([self._scale(columns, len(self.past)), calendar]).astype(np.float32)

    def static(self, series: Series) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the category codes (S,) and scaled numbers (N,) of a series.

        Raises InputError for a category that is not in the training data and for a number that cannot be parsed.
        """
        codes, values = [], series.covariates.static
        for name, seen in self.categories.items():
            if values[name] not in seen:
                raise InputError(
                    f"series {series.name!r}: unknown value {listed([repr(values[name])])} of static column {name}; "
                    f"expected one of the training data: {listed(seen)}"
                )
            codes.append(seen.index(values[name]))
        for name in self.numbers:
            if not _are_numbers([values[name]]):
                found = listed([repr(values[name])])
                raise InputError(f"series {series.name!r}: static column {name} must be a number; got {found}")
        numbers = np.array([float(values[name]) for name in self.numbers])
        scaled = self._scale(numbers, len(self.past) + len(self.known))
        return np.array(codes, dtype=np.int64), scaled.astype(np.float32)

    def to_container(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars, for a checkpoint."""
        scalers = {name: _plain(scaler) for name, scaler in self.scalers.items()}
        return {**self._asdict(), "scalers": scalers, "covariates": _plain(self.covariates)}

    @classmethod
    def from_container(cls, container: Mapping[str, Any]) -> "FeatureEncoder":
        """Rebuild from the result of `to_container`; raises KeyError or TypeError for anything else."""
        scalers = {name: _scaler(scaler) for name, scaler in container["scalers"].items()}
        return cls(**{**container, "scalers": scalers, "covariates": _scaler(container["covariates"])})

    def _scale(self, columns: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        part = slice(first, first + columns.shape[-1])
        scaled: NDArray[np.float64] = (columns - self.covariates.mean[part]) / self.covariates.std[part]
        return scaled


def last_training_time(panel: Sequence[Series]) -> str:
    """Return the last timestamp of all training rows, ISO 8601 (UTC with a timezone), or an integer."""
    last = max(series.timestamps[series.boundaries.train - 1] for series in panel)
    return str(last.astype("datetime64[us]") if last.dtype.kind == "M" else last)


def interval_of(series: Series) -> str:
    """Return the time step of a series: its own, else the most common one between its timestamps."""
    return series.interval or step_of(to_polars(series.timestamps, series.timezone).unique().sort()).interval


def _columns(series: Series) -> NDArray[np.float64]:
    """Return the past and known columns, (T, past + known)."""
    columns = series.covariates.arrays()
    return np.column_stack(columns) if columns else np.empty((len(series.timestamps), 0))


def _are_numbers(values: Sequence[str]) -> bool:
    return bool(pl.Series(values, dtype=pl.String).cast(pl.Float64, strict=False).is_finite().fill_null(False).all())


def _plain(scaler: Scaler) -> dict[str, list[float]]:
    return {"mean": scaler.mean.tolist(), "std": scaler.std.tolist()}


def _scaler(container: Mapping[str, Any]) -> Scaler:
    return Scaler(np.array(container["mean"]), np.array(container["std"]))
