"""Preprocessing state of a forecaster: names, scales and time step, as needed to encode new data."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.time_series.calendar import calendar_features
from datamodules.time_series.series import Covariates, Scaler, Series
from datamodules.time_series.steps import step_of
from datamodules.time_series.timestamps import to_polars
from titans_seq.errors import InputError

_MOST_LEVELS = 64  # categories of a past or known covariate that are told apart; rarer ones are unknown


class FeatureEncoder(NamedTuple):
    """Feature columns and their scales, fitted on training rows; C, P, K as in `CovariateInputs`.

    A past or known covariate that is text becomes one indicator per category, less its mean, so that an unknown
    category is 0 in all of them. Checkpoints hold the fields under their names.
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
    levels: dict[str, list[str]]  # past and known columns of text: their categories in the training rows
    timezone: str | None = None  # of the training table
    unknown: bool = False  # whether the code after those of a category's values stands for all others

    @classmethod
    def fit(
        cls,
        panel: Sequence[Series],
        calendar: Sequence[str],
        seasonal_period: int,
        *,
        unknown: bool = False,
        categories: Mapping[str, list[str]] = MappingProxyType({}),
        robust: bool = False,
    ) -> "FeatureEncoder":
        """Fit on the training rows of the series; a static column is numeric if all its values are numbers.

        `categories` are values of static text columns that replace those found. `robust` is for the channels, see
        `Scaler.fit`.
        """
        first, train = panel[0], [series.boundaries.train for series in panel]
        static = {name: [series.covariates.static[name] for series in panel] for name in first.covariates.static}
        numbers = [name for name, values in static.items() if name not in categories and _are_numbers(values)]
        found = {name: sorted(set(values)) for name, values in static.items() if name not in numbers}
        levels = _fit_levels(panel)
        rows = np.concatenate([_columns(s, levels)[:end] for s, end in zip(panel, train, strict=True)])
        each = np.array([[float(static[name][i]) for name in numbers] for i in range(len(panel))])
        parts = [_fit_columns(rows, panel[0].covariates, levels), Scaler.fit(each.reshape(len(panel), len(numbers)))]
        return cls(
            channels=list(first.channels),
            past=list(first.covariates.past),
            known=list(first.covariates.known),
            calendar=list(calendar) if first.timestamps.dtype.kind == "M" else [],  # integers have no calendar
            categories={name: categories.get(name, values) for name, values in found.items()},
            numbers=numbers,
            interval=interval_of(first),
            season=seasonal_period,
            scalers={s.name: Scaler.fit(s.values[:end], robust=robust) for s, end in zip(panel, train, strict=True)},
            covariates=Scaler(*(np.concatenate(pair) for pair in zip(*parts, strict=True))),
            trained_until=last_training_time(panel),
            timezone=first.timezone,
            unknown=unknown,
            levels=levels,
        )

    @property
    def num_past(self) -> int:
        """P, columns of the past covariates."""
        return self._width(self.past)

    @property
    def has_covariates(self) -> bool:
        """Whether windows carry more than the channels."""
        return bool(self.past or self.known or self.calendar or self.categories or self.numbers)

    def sizes(self) -> dict[str, Any]:
        """Return the fields of `titans_seq.models.forecaster.CovariateSizes`."""
        return {
            "past": self.num_past,
            "known": self._width(self.known) + 2 * len(self.calendar),
            "categories": [len(values) + self.unknown for values in self.categories.values()],
            "numbers": len(self.numbers),
            "unknown": self.unknown,
        }

    def columns_of(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Return the columns of each of the names, all of `past` or of `known`: one, or one per category."""
        widths = [len(self.levels.get(name, [name])) for name in names]
        ends = np.cumsum(widths).tolist()
        return {name: list(range(end - n, end)) for name, n, end in zip(names, widths, ends, strict=True)}

    def encode(self, series: Series, scaler: Scaler) -> NDArray[np.float32]:
        """Return the scaled channels, past and known columns and calendar features of a series: (T, C + P + K)."""
        scaled = scaler.transform(series.values).astype(np.float32)
        if not self.has_covariates:
            return scaled
        columns = self._scale(_columns(series, self.levels), 0)
        calendar = calendar_features(series.timestamps, self.calendar, series.timezone)
        return np.column_stack([scaled, columns, calendar]).astype(np.float32)

    def known_future(
        self, columns: Mapping[str, NDArray[Any]], times: NDArray[Any], timezone: str | None = None
    ) -> NDArray[np.float32]:
        """Return the known columns, (N,) each, of future `times`, scaled, with the calendar features: (N, K).

        With a `timezone`, `times` are UTC.
        """
        calendar = calendar_features(times, self.calendar, timezone)
        parts = [_expand(columns[name], self.levels.get(name)) for name in self.known]
        known = np.concatenate(parts, axis=1) if parts else np.empty((len(times), 0))
        return np.column_stack([self._scale(known, self.num_past), calendar]).astype(np.float32)

    def unknown_levels_notes(self, columns: Iterable[Mapping[str, NDArray[Any]]]) -> list[str]:
        """Return a note for each covariate with categories that the training rows lack, or have too rarely.

        `columns` are covariates of several series by name, (T,) each.
        """
        unknown: dict[str, set[str]] = {name: set() for name in self.levels}
        for named in columns if self.levels else ():
            for name in unknown.keys() & named.keys():
                unknown[name] |= set(named[name].tolist()) - set(self.levels[name])
        return [
            f"{name}: {len(values)} of its categories unknown from the training rows, read as the mean of those known: "
            f"{listed(map(repr, sorted(values)), most=5)}"
            for name, values in unknown.items()
            if values
        ]

    def static(self, series: Series) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the category codes (S,) and scaled numbers (N,) of a series.

        What is not a number is taken for the mean. Raises InputError for a category that is not in the training data,
        unless a code stands for those.
        """
        codes, values = [], series.covariates.static
        for name, seen in self.categories.items():
            if values[name] not in seen and not self.unknown:
                raise InputError(
                    f"series {series.name!r}: unknown value {listed([repr(values[name])])} of static column {name}; "
                    f"expected one of the training data: {listed(seen)}"
                )
            codes.append(seen.index(values[name]) if values[name] in seen else len(seen))
        numbers = np.array([float(values[name]) if _are_numbers([values[name]]) else np.nan for name in self.numbers])
        scaled = np.nan_to_num(self._scale(numbers, self.num_past + self._width(self.known)), nan=0.0)
        return np.array(codes, dtype=np.int64), scaled.astype(np.float32)

    def unseen_categories(self, series: Series) -> list[str]:
        """Return the values of a series' static text columns that are not in the training data, as column=value."""
        values = series.covariates.static
        return [f"{name}={values[name]}" for name, seen in self.categories.items() if values[name] not in seen]

    def unreadable_numbers(self, series: Series) -> list[str]:
        """Return the static columns with a number in the training data but not in a series, as column=value."""
        values = series.covariates.static
        return [f"{name}={values[name]}" for name in self.numbers if not _are_numbers([values[name]])]

    def to_container(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars, for a checkpoint."""
        scalers = {name: _plain(scaler) for name, scaler in self.scalers.items()}
        return {**self._asdict(), "scalers": scalers, "covariates": _plain(self.covariates)}

    @classmethod
    def from_container(cls, container: Mapping[str, Any]) -> "FeatureEncoder":
        """Rebuild from the result of `to_container`; raises KeyError or TypeError for anything else."""
        scalers = {name: _scaler(scaler) for name, scaler in container["scalers"].items()}
        old: dict[str, Any] = {"levels": {}}  # checkpoints from before text was read as categories lack it
        return cls(**{**old, **container, "scalers": scalers, "covariates": _scaler(container["covariates"])})

    def _scale(self, columns: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        part = slice(first, first + columns.shape[-1])
        scaled: NDArray[np.float64] = (columns - self.covariates.mean[part]) / self.covariates.std[part]
        return np.nan_to_num(scaled, nan=0.0) if self.levels else scaled  # NaN: an unknown category

    def _width(self, names: Sequence[str]) -> int:
        return sum(map(len, self.columns_of(names).values()))


def last_training_time(panel: Sequence[Series]) -> str:
    """Return the last timestamp of all training rows, ISO 8601 (UTC with a timezone), or an integer."""
    last = max(series.timestamps[series.boundaries.train - 1] for series in panel)
    return str(last.astype("datetime64[us]") if last.dtype.kind == "M" else last)


def interval_of(series: Series) -> str:
    """Return the time step of a series: its own, else the most common one between its timestamps."""
    return series.interval or step_of(to_polars(series.timestamps, series.timezone).unique().sort()).interval


def _fit_levels(panel: Sequence[Series]) -> dict[str, list[str]]:
    """Return the categories of each covariate that is text, in the training rows: the most frequent ones, sorted."""
    levels = {}
    for name, column in panel[0].covariates.timed().items():
        if column.dtype.kind != "U":
            continue
        counts: Counter[str] = Counter()
        for series in panel:
            counts.update(series.covariates.timed()[name][: series.boundaries.train].tolist())
        levels[name] = sorted(value for value, _ in counts.most_common(_MOST_LEVELS))
    return levels


def _fit_columns(rows: NDArray[np.float64], covariates: Covariates, levels: Mapping[str, list[str]]) -> Scaler:
    """Return the scaler of the columns of `_columns`; indicators keep their width, so that rare ones stay small."""
    scaler = Scaler.fit(np.nan_to_num(rows, nan=0.0))
    indicators = [n in levels for n in covariates.timed() for _ in levels.get(n, [n])]
    return scaler._replace(std=np.where(indicators, 1.0, scaler.std)) if levels else scaler


def _columns(series: Series, levels: Mapping[str, list[str]]) -> NDArray[np.float64]:
    """Return the past and known columns (T, past + known): numbers, and indicators of categories."""
    parts = [_expand(column, levels.get(name)) for name, column in series.covariates.timed().items()]
    return np.concatenate(parts, axis=1) if parts else np.empty((len(series.timestamps), 0))


def _expand(column: NDArray[Any], levels: Sequence[str] | None) -> NDArray[np.float64]:
    """Return a column (T,) of numbers as (T, 1), or of categories as indicators (T, levels), NaN where unknown."""
    if levels is None:
        return column.astype(np.float64)[:, None]
    indicators: NDArray[np.float64] = (column[:, None] == np.array(levels, dtype=np.str_)).astype(np.float64)
    indicators[~indicators.any(axis=1)] = np.nan
    return indicators


def _are_numbers(values: Sequence[str]) -> bool:
    return bool(pl.Series(values, dtype=pl.String).cast(pl.Float64, strict=False).is_finite().fill_null(False).all())


def _plain(scaler: Scaler) -> dict[str, list[float]]:
    return {"mean": scaler.mean.tolist(), "std": scaler.std.tolist()}


def _scaler(container: Mapping[str, Any]) -> Scaler:
    return Scaler(np.array(container["mean"]), np.array(container["std"]))
