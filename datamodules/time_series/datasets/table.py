"""Series from a user's CSV or Parquet table: wide (one column per series) or long (one row per series and time).

The checks are those that real user tables call for; each error is one line with the file, the place, what was found
and the key that fixes it.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.common.numbers import PLAIN, NumberFormat, find_number_format
from datamodules.common.text_format import TextFormat
from datamodules.time_series.columns import (
    ColumnRoles,
    Fill,
    holds_numbers,
    parse_categories,
    parse_numbers,
    read_series_table,
    resolve_column_roles,
    static_values,
)
from datamodules.time_series.datasets.row_layout import (
    NAME,
    VALUE,
    check_row_layout,
    from_row_layout,
    has_row_layout,
)
from datamodules.time_series.filling import LEAST_ROWS, fill_missing
from datamodules.time_series.inferred_roles import infer_column_roles
from datamodules.time_series.outliers import remove_outliers
from datamodules.time_series.series import Covariates, Series, SplitBoundaries
from datamodules.time_series.steps import Step, infer_step, regular_grid
from datamodules.time_series.timestamps import (
    has_offsets,
    local_times,
    parse_timestamps,
    span_text,
    timestamp_text,
    to_polars,
)
from titans_seq.errors import InputError


class SplitPoints(NamedTuple):
    """Ends of training and validation: fractions of a series' rows, rows from its end (-28), or the first time after.

    The time is the first one that is no longer in the split.
    """

    train: float | int | str
    validation: float | int | str


_DEFAULT_SPLIT = SplitPoints(0.7, 0.8)
_NAMED = 5  # late starts and early ends that notes name
_SUNDAY = 7
_MOST_REPEATED = 0.02  # of the rows: those of hours that clocks going back repeat are two of a year
_OFFSETS = (
    "local times across daylight saving? Set data.timezone to their zone, such as data.timezone=Europe/Berlin; or "
    "resample the table to a regular step"
)
_ONE_HOUR_TWICE = "Local times, where clocks go back? Set data.timezone, such as data.timezone=Europe/Berlin."


class Table:
    """Series on regular time grids: a wide table is one multivariate series, a long table a panel of series.

    Every series of a panel has its own range of rows, from its first timestamp to its last. M4's layout, one row per
    series and no times, is read as a long table of integer times (`row_layout`).

    Args:
        source: a .csv or .parquet file, or a table in memory.
        roles: the role of each column; without targets, all columns without another role are forecast.
        time_format: strftime format of the timestamps; None expects ISO 8601, or integers.
        timezone: of the timestamps, such as Europe/Berlin: those with an offset are converted to it, others are its
            local times. None: no zone, unless the column of a Parquet file has one with a name.
        fill: handling of missing timestamps and empty cells: "none" raises an error, "ffill" repeats the last value,
            "interpolate" interpolates linearly (which leaks the value after a gap into the gap), "missing" keeps NaN.
            Both fills start a series where all its columns have a value, and repeat the last value at its end.
        split: the ends of training and validation.
        seasonal_period: steps of the main cycle, for the seasonal-naive baseline; None derives it from the time step
            (24 for hourly data).
        infer_roles: find the roles that are not set (`infer_column_roles`).
        keep_short: also return those series of a long table that have too few rows for the splits, or no value in a
            column (as NaN), for the caller to choose from, if there are others; False raises an error.
        text_format: how a CSV file, and numbers in text, are written.
        outliers: see `remove_outliers`; such cells take the value before. None keeps all, and so does fill "missing".
        categories: past and known covariates that are categories; None: those whose cells are mostly no numbers.
    """

    simulated = False

    def __init__(
        self,
        source: str | Path | pl.DataFrame,
        roles: ColumnRoles = ColumnRoles(),  # noqa: B008 - immutable
        *,
        time_format: str | None = None,
        timezone: str | None = None,
        fill: Fill = "none",
        split: SplitPoints = _DEFAULT_SPLIT,
        seasonal_period: int | None = None,
        infer_roles: bool = False,
        keep_short: bool = False,
        text_format: TextFormat = TextFormat(),  # noqa: B008 - immutable
        outliers: float | None = None,
        categories: Collection[str] | None = None,
    ) -> None:
        self.frame = source if isinstance(source, pl.DataFrame) else None
        self.path = Path("table") if isinstance(source, pl.DataFrame) else Path(source)
        self.infer_roles = infer_roles
        self.keep_short = keep_short and roles.id is not None
        self.text_format = text_format
        self.outliers = outliers
        self.categories = categories
        self.roles = roles
        self.time_format = time_format
        self.timezone = timezone
        self.fill = fill
        self.split = split
        self._seasonal_period = seasonal_period
        self._filled_cells = 0
        self._ends: list[str] = []  # notes about series that start later or end earlier than their rows
        self._outliers: list[str] = []  # notes about outlying cells
        self.interval = ""  # time step, see `steps`, set by `read`
        self._zone_advice = ""  # ends the error for times off the grid, where a time zone may be what they lack
        self.resolved_roles = roles  # with the roles that `read` found
        self.notes: list[str] = []  # messages about the data for the user, set by `read`

    @property
    def seasonal_period(self) -> int:
        """Steps of the main cycle; 1 before the table is read."""
        return self._seasonal_period or 1

    def prepare(self) -> None:
        """Raise InputError when the file does not exist."""
        if self.frame is None and not self.path.is_file():
            raise InputError(f"{self.path}: no such file; set data.path")

    def load(self) -> list[Series]:
        """Read and check the table, align each series to its time grid, and split it."""
        panel = self.read()
        boundaries = [self._boundaries(series) for series in panel]
        faults = [self._fault(series, rows) for series, rows in zip(panel, boundaries, strict=True)]
        found = [fault for fault in faults if fault]
        if found and (len(found) == len(panel) or not self.keep_short):
            raise InputError(found[0])
        return [series._replace(boundaries=rows) for series, rows in zip(panel, boundaries, strict=True)]

    def read(self) -> list[Series]:
        """Read the table as `load` does but without splitting: all rows are training rows."""
        self.prepare()
        table, notes = (
            read_series_table(self.path, self.text_format) if self.frame is None else (self.frame, list[str]())
        )
        if self.fill == "missing":
            table = table.with_columns(pl.selectors.float().fill_nan(None))
        roles, infer_roles = self.roles, self.infer_roles
        if roles.time not in table.columns and has_row_layout(table):
            table, roles = self._turn(table)
            infer_roles = False
            numbered = "one row per series, without times: values are numbered from 1"
            notes.append(f"{self.path}: {numbered}; data.season sets the seasonal period in steps")
        roles, number_format, found = self._resolve(table, roles, infer_roles=infer_roles)
        notes += found
        where, ids = f"{self.path}: column {roles.time}", self._ids(table, roles)
        timestamps = parse_timestamps(table[roles.time], where, self.time_format, self.timezone, ids)
        zoned = isinstance(timestamps.dtype, pl.Datetime) and timestamps.dtype.time_zone
        self._zone_advice = _OFFSETS if not zoned and has_offsets(table[roles.time]) else ""
        clock = local_times(timestamps)
        texts = self._text_columns(table, roles, number_format)
        values = [
            parse_categories(table[name])
            if name in texts
            else parse_numbers(table[name], clock, key, self.path, self._fill_of(table[name], ids), number_format)
            for key, names in roles.named().items()
            if key in ("target", "past", "known")
            for name in names
        ]
        notes += _notes_on_empty_categories(values, self.path)
        static = table.select(roles.static) if roles.id is not None else pl.DataFrame()
        static_columns = [column.alias(f"static {column.name}") for column in static]
        rows = pl.DataFrame([*values, *static_columns, timestamps.alias("time of row"), ids])
        self._check_duplicates(table, rows, roles)
        rows = rows.sort("time of row", maintain_order=True)
        step = self._step(rows)
        self.interval = step.interval
        if self._seasonal_period is None:
            self._seasonal_period = step.seasonal_period
        self._filled_cells, self._ends, self._outliers = 0, [], []
        parts = rows.partition_by("series of row", maintain_order=True)
        panel = [self._series(part, roles, step) for part in sorted(parts, key=lambda p: str(p["series of row"][0]))]
        if self._filled_cells:
            notes.append(f"{self.path}: {self._filled_cells} missing values filled, data.fill={self.fill}")
        for each in (self._outliers, self._ends):
            notes += each[:_NAMED]
            notes += [f"{self.path}: {len(each) - _NAMED} more such notes"] if len(each) > _NAMED else []
        self.notes = notes
        return panel

    def _turn(self, table: pl.DataFrame) -> tuple[pl.DataFrame, ColumnRoles]:
        """Return the long table of one with a row per series, and the roles of its columns."""
        roles = self.roles._replace(id=self.roles.id or NAME) if self.infer_roles else self.roles
        check_row_layout(roles, self.path)
        return from_row_layout(table, roles.time), roles._replace(target=(VALUE,))

    def _resolve(
        self, table: pl.DataFrame, roles: ColumnRoles, *, infer_roles: bool
    ) -> tuple[ColumnRoles, NumberFormat, list[str]]:
        """Return the columns' roles, the format of numbers in text, and notes on it; also sets `resolved_roles`."""
        known, place = self.text_format, str(self.path)
        number_format, notes = PLAIN, list[str]()
        if infer_roles:
            others = [column for column in table if column.name not in (roles.time, roles.id)]
            number_format, notes = find_number_format(others, place, known.decimal, known.thousands)
            roles = infer_column_roles(table, roles, self.path, self.time_format, number_format)
        roles = self.resolved_roles = resolve_column_roles(table, roles, self.path)
        if not infer_roles:
            numbers = table.select(roles.timed()).get_columns()
            number_format, notes = find_number_format(numbers, place, known.decimal, known.thousands)
        return roles, number_format, notes

    def _text_columns(self, table: pl.DataFrame, roles: ColumnRoles, number_format: NumberFormat) -> set[str]:
        """Return the covariates that are categories."""
        covariates = (*roles.past, *roles.known)
        if self.categories is not None:
            return {name for name in covariates if name in self.categories}
        return {name for name in covariates if not holds_numbers(table[name], number_format)}

    def _ids(self, table: pl.DataFrame, roles: ColumnRoles) -> pl.Series:
        """Return the series name of every row."""
        if roles.id is None:
            return pl.Series("series of row", [self.path.stem]).new_from_index(0, len(table))
        names = table[roles.id].cast(pl.String).str.strip_chars().alias("series of row")
        empty = names.is_null() | (names == "")
        if empty.any():
            row = int(empty.arg_max() or 0)
            raise InputError(f"{self.path}: column {roles.id}: {empty.sum()} empty cells, first in row {row + 1}")
        return names

    def _fill_of(self, column: pl.Series, ids: pl.Series) -> Fill:
        """Return the handling of a column's empty cells: they stay missing if they are whole series, to be kept."""
        if not self.keep_short or self.fill != "none":
            return self.fill
        text = column.cast(pl.String).str.strip_chars()
        cells = pl.DataFrame({"empty": text.is_null() | (text == ""), "id": ids})
        partly = pl.col("empty") & ~pl.col("empty").all().over("id")
        return "none" if cells.select(partly.any()).item() else "missing"

    def _check_duplicates(self, table: pl.DataFrame, rows: pl.DataFrame, roles: ColumnRoles) -> None:
        counts = rows.group_by("series of row", "time of row").len().filter(pl.col("len") > 1)
        if counts.is_empty():
            return
        counts = counts.sort("len", "time of row", descending=[True, False])
        name, count = counts.row(0)[0], counts.row(0)[2]
        times = local_times(counts["time of row"])
        time = times[0]
        is_rare = count == 2 and len(times) < len(rows) * _MOST_REPEATED
        if is_rare and times.dtype != pl.Int64 and (times.dt.weekday() == _SUNDAY).all():
            raise InputError(f"{self.path}: {timestamp_text(time)} appears 2 times. {_ONE_HOUR_TWICE}")
        if roles.id is not None:
            raise InputError(
                f"{self.path}: series {name!r}: {timestamp_text(time)} appears {count} times; data.id={roles.id} "
                "does not distinguish these rows"
            )
        texts = [n for n in table.columns if n != roles.time and table[n].cast(pl.Float64, strict=False).null_count()]
        candidates = [n for n in texts if n not in roles.target and table[n].n_unique() < len(table)]
        raise InputError(
            f"{self.path}: {timestamp_text(time)} appears {count} times. Several series? Set data.id=<column>; "
            f"candidates: {listed(candidates) or 'none'}."
        )

    def _step(self, rows: pl.DataFrame) -> Step:
        before = pl.col("time of row").shift(1).over("series of row").alias("before")
        pairs = rows.select(before, "time of row").drop_nulls()
        counts = rows.group_by("series of row").len().sort("len", "series of row")
        name, least = counts.row(0)
        enough = counts["len"][-1 if self.keep_short else 0] >= LEAST_ROWS
        if not enough and self.fill != "missing":
            place = f"{self.path}: series {name!r}" if len(counts) > 1 else f"{self.path}"
            raise InputError(f"{place}: {least} distinct times; a series needs at least {LEAST_ROWS}")
        if pairs.is_empty():
            raise InputError(f"{self.path}: every series has one row; a time step needs two")
        return infer_step(pairs["before"], pairs["time of row"])

    def _series(self, rows: pl.DataFrame, roles: ColumnRoles, step: Step) -> Series:
        """Build one series from its rows, which are in time order, on its regular time grid."""
        name = rows["series of row"][0]
        place = str(self.path) if roles.id is None else f"{self.path}: series {name!r}"
        grid = regular_grid(rows["time of row"], step, place, self._zone_advice)
        zone = grid.dtype.time_zone if isinstance(grid.dtype, pl.Datetime) else None
        if self.fill == "none":
            self._check_gaps(rows["time of row"], grid, step, place)
        full = grid.to_frame("time of row").join(rows, on="time of row", how="left", maintain_order="left")
        full = self._without_outliers(full, roles, place)
        empty = self.keep_short and any(full[column].null_count() == len(full) for column in roles.timed())
        if self.fill in ("ffill", "interpolate") and not empty:
            filled = fill_missing(full, roles.timed(), self.fill, place, 1 if self.keep_short else LEAST_ROWS)
            full, grid = filled.rows, filled.rows["time of row"]
            self._filled_cells += filled.cells
            self._ends += filled.notes
        columns = {column: _to_numpy(full[column]) for column in roles.timed()}
        labels = rows.select(pl.col(f"static {n}").alias(n) for n in roles.static) if roles.static else rows
        return Series(
            name,
            grid.to_numpy(),
            list(roles.target),
            np.column_stack([columns[column] for column in roles.target]),
            SplitBoundaries(len(grid), len(grid), len(grid)),
            Covariates(
                {column: columns[column] for column in roles.past},
                {column: columns[column] for column in roles.known},
                static_values(labels, roles.static, name, self.path),
            ),
            self.path if self.frame is None else None,
            zone,
            step.interval,
        )

    def _without_outliers(self, rows: pl.DataFrame, roles: ColumnRoles, place: str) -> pl.DataFrame:
        """Return the rows of a series with the value before in place of outlying cells, or empty cells to be filled."""
        if self.outliers is None or self.fill == "missing":
            return rows
        rows, found = remove_outliers(rows, roles.timed(), self.outliers)
        if not found:
            return rows
        clock = local_times(rows["time of row"])
        self._outliers += [
            f"{place}: {each.column} is {each.value:.12g} at {timestamp_text(clock[each.row])}, more than "
            f"{self.outliers:g} times as far from the median as usual values: read as missing (data.outliers)"
            for each in found
        ]
        if self.fill == "none":  # the value before; of the first row, the value after
            rows = rows.with_columns(pl.col({each.column for each in found}).forward_fill().backward_fill())
        return rows

    def _check_gaps(self, times: pl.Series, grid: pl.Series, step: Step, place: str) -> None:
        """Raise InputError with the number of gaps and the time span of the first, if there are any."""
        missing = ~grid.is_in(times.implode())
        if not missing.any():
            return
        begins = missing & ~missing.shift(1, fill_value=False)
        first = int(begins.arg_max() or 0)
        length = int((~missing[first:]).arg_max() or 0)  # the last time of a grid is never missing
        count, clock = int(begins.sum()), local_times(grid)
        raise InputError(
            f"{place}: {count} gap{'s' * (count > 1)} at a {step.name} step, first "
            f"{span_text(clock[first], clock[first + length - 1])}. Set data.fill=ffill|interpolate or fix the file."
        )

    def _boundaries(self, series: Series) -> SplitBoundaries:
        train, validation = (self._row(point, series) for point in self.split)
        return SplitBoundaries(train, validation, len(series.timestamps))

    def _fault(self, series: Series, boundaries: SplitBoundaries) -> str:
        """Return the error of a series for which a split has no rows; empty if there is none."""
        train, validation, count = boundaries
        if 0 < train < validation < count:
            return ""
        place = self.path if self.roles.id is None else f"{self.path}: series {series.name!r}"
        clock = local_times(to_polars(series.timestamps[[0, -1]], series.timezone))
        return (
            f"{place}: {count} rows, {timestamp_text(clock[0])} to {timestamp_text(clock[-1])}, split at {train} "
            f"and {validation}; every split needs rows: set data.train_end and data.validation_end"
        )

    def _row(self, point: float | int | str, series: Series) -> int:
        if isinstance(point, str):
            integers = series.timestamps.dtype.kind == "i"
            try:
                times = parse_timestamps(pl.Series([point]), "", None, series.timezone)
            except InputError:
                times = pl.Series([])
            if times.is_empty() or (times.dtype == pl.Int64) != integers:
                keys, example = "data.train_end and data.validation_end", "240" if integers else "2024-03-10 01:00"
                raise InputError(f"{keys}: expected a fraction or a time such as {example}, got {point!r}")
            end = times.to_numpy()[0]
            return int((series.timestamps < end).sum())
        rows = len(series.timestamps)
        return max(0, rows + point) if isinstance(point, int) else round(point * rows)


def _to_numpy(column: pl.Series) -> NDArray[Any]:
    """Return the values (T,) of a column: float64, or text of fixed width."""
    return column.to_numpy().astype(np.str_) if column.dtype == pl.String else column.to_numpy()


def _notes_on_empty_categories(columns: Iterable[pl.Series], path: Path) -> list[str]:
    texts = [column for column in columns if column.dtype == pl.String]
    return [
        f"{path}: column {listed([column.name])}: {empty} empty cells are a category of their own"
        for column in texts
        if (empty := (column == "").sum())
    ]
