"""A user's own table, CSV or Parquet: wide, one column a series, or long, one row a series and time.

What users of such tools really feed them decides what is checked here; each fault is one line with the file, the place,
what was found and the key that mends it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.time_series.columns import Fill, Roles, parse_numbers, read_table, settle_roles, static_values
from datamodules.time_series.series import Borders, Covariates, Series
from datamodules.time_series.timestamps import Step, infer_step, lay_grid, parse_timestamps, span_text, stamp_text
from titans_seq.errors import InputError


class SplitPoints(NamedTuple):
    """Where training and validation end: shares of a series' rows, or the first time that no longer belongs to them."""

    train: float | str
    validation: float | str


_SHARES = SplitPoints(0.7, 0.8)


class Table:
    """Series on regular grids of times: a wide table is one series of many channels, a long one a panel of series.

    Every series of a panel has its own rows, from its first time to its last.

    Args:
        path: a .csv or .parquet file.
        roles: the part each column plays; without targets all columns that have no other part are forecast.
        time_format: how timestamps are written, as strftime has it; None takes ISO 8601.
        fill: what to do about times that are missing, and about empty cells: refuse them, repeat the value before, or
            draw a line between the values around them (which lets values before a gap's end know what comes after).
        split: where training and validation end.
        season: steps of the main cycle, for the seasonal-naive baseline; None takes the step's own (a day of hours).
    """

    simulated = False

    def __init__(
        self,
        path: str | Path,
        roles: Roles = Roles(),  # noqa: B008 - immutable
        *,
        time_format: str | None = None,
        fill: Fill = "none",
        split: SplitPoints = _SHARES,
        season: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.roles = roles
        self.time_format = time_format
        self.fill = fill
        self.split = split
        self._season = season
        self._filled_cells = 0
        self.notes: list[str] = []  # what a run should say about the data, once read

    @property
    def season(self) -> int:
        """Steps of the main cycle; 1 before the table is read."""
        return self._season or 1

    def prepare(self) -> None:
        """Raise InputError when the file is not there."""
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file; set data.path")

    def load(self) -> list[Series]:
        """Read, check, put on the grid and split."""
        return [series._replace(borders=self._borders(series)) for series in self.read()]

    def read(self) -> list[Series]:
        """As `load`, but nothing is split: all rows are training rows."""
        self.prepare()
        table = read_table(self.path)
        roles = settle_roles(table, self.roles, self.path)
        where = f"{self.path}: column {roles.time}"
        stamps = parse_timestamps(table[roles.time], where, self.time_format)
        numbers = [
            parse_numbers(table[name], stamps, key, self.path, self.fill)
            for key, names in roles.named().items()
            if key in ("target", "past", "known")
            for name in names
        ]
        static = table.select(roles.static) if roles.id is not None else pl.DataFrame()
        others = [column.alias(f"static {column.name}") for column in static]
        rows = pl.DataFrame([*numbers, *others, stamps.alias("time of row"), self._ids(table, roles)])
        self._refuse_duplicates(table, rows, roles)
        rows = rows.sort("time of row", maintain_order=True)
        step = self._step(rows)
        if self._season is None:
            self._season = step.season
        self._filled_cells = 0
        parts = rows.partition_by("series of row", maintain_order=True)
        panel = [self._series(part, roles, step) for part in sorted(parts, key=lambda p: str(p["series of row"][0]))]
        filled = f"{self.path}: {self._filled_cells} missing values filled, data.fill={self.fill}"
        self.notes = [filled] if self._filled_cells else []
        return panel

    def _ids(self, table: pl.DataFrame, roles: Roles) -> pl.Series:
        """The name of every row's series."""
        if roles.id is None:
            return pl.Series("series of row", [self.path.stem]).new_from_index(0, len(table))
        names = table[roles.id].cast(pl.String).str.strip_chars().alias("series of row")
        empty = names.is_null() | (names == "")
        if empty.any():
            row = int(empty.arg_max() or 0)
            raise InputError(f"{self.path}: column {roles.id}: {empty.sum()} empty cells, first in row {row + 1}")
        return names

    def _refuse_duplicates(self, table: pl.DataFrame, rows: pl.DataFrame, roles: Roles) -> None:
        counts = rows.group_by("series of row", "time of row").len().filter(pl.col("len") > 1)
        if counts.is_empty():
            return
        name, stamp, count = counts.sort("len", "time of row", descending=[True, False]).row(0)
        if roles.id is not None:
            raise InputError(
                f"{self.path}: series {name!r}: {stamp_text(stamp)} appears {count} times; data.id={roles.id} "
                "does not tell these rows apart"
            )
        texts = [n for n in table.columns if n != roles.time and table[n].cast(pl.Float64, strict=False).null_count()]
        candidates = [n for n in texts if table[n].n_unique() < len(table)]
        raise InputError(
            f"{self.path}: {stamp_text(stamp)} appears {count} times. Several series? Set data.id=<column>; "
            f"candidates: {listed(candidates) or 'none'}."
        )

    def _step(self, rows: pl.DataFrame) -> Step:
        apart = rows.select(pl.col("time of row").diff().over("series of row")).to_series().drop_nulls()
        counts = rows.group_by("series of row").len().sort("len", "series of row")
        name, least = counts.row(0)
        if least < 3:
            place = f"{self.path}: series {name!r}" if len(counts) > 1 else f"{self.path}"
            raise InputError(f"{place}: {least} distinct times; a series needs at least 3")
        return infer_step(apart)

    def _series(self, rows: pl.DataFrame, roles: Roles, step: Step) -> Series:
        """The rows of one series, in order, on its grid."""
        name = rows["series of row"][0]
        place = str(self.path) if roles.id is None else f"{self.path}: series {name!r}"
        grid = lay_grid(rows["time of row"], step, place)
        if self.fill == "none":
            self._refuse_gaps(rows["time of row"], grid, step, place)
        full = grid.to_frame("time of row").join(rows, on="time of row", how="left", maintain_order="left")
        columns = {column: self._filled(full[column], place) for column in roles.numeric()}
        labels = rows.select(pl.col(f"static {n}").alias(n) for n in roles.static) if roles.static else rows
        return Series(
            name,
            grid.to_numpy(),
            list(roles.target),
            np.column_stack([columns[column] for column in roles.target]),
            Borders(len(grid), len(grid), len(grid)),
            Covariates(
                {column: columns[column] for column in roles.past},
                {column: columns[column] for column in roles.known},
                static_values(labels, roles.static, name, self.path),
            ),
            self.path,
        )

    def _filled(self, column: pl.Series, place: str) -> NDArray[np.float64]:
        """A column (T,) whose nulls are filled, if that was asked for."""
        if not column.null_count():
            return column.to_numpy()
        if column.null_count() == len(column):
            raise InputError(f"{place}: column {column.name} is empty; leave it out")
        line = column.interpolate() if self.fill == "interpolate" else column
        self._filled_cells += column.null_count()
        return line.forward_fill().backward_fill().to_numpy()

    def _refuse_gaps(self, times: pl.Series, grid: pl.Series, step: Step, place: str) -> None:
        """Say how many gaps there are, and between which times the first one lies."""
        missing = ~grid.is_in(times.implode())
        if not missing.any():
            return
        begins = missing & ~missing.shift(1, fill_value=False)
        first = int(begins.arg_max() or 0)
        length = int((~missing[first:]).arg_max() or 0)  # a grid ends with a time that is there
        count = int(begins.sum())
        raise InputError(
            f"{place}: {count} gap{'s' * (count > 1)} at a {step.name} step, first "
            f"{span_text(grid[first], grid[first + length - 1])}. Set data.fill=ffill|interpolate or mend the file."
        )

    def _borders(self, series: Series) -> Borders:
        count = len(series.timestamps)
        train, validation = (self._row(border, series) for border in self.split)
        if not 0 < train < validation < count:
            place = self.path if self.roles.id is None else f"{self.path}: series {series.name!r}"
            raise InputError(
                f"{place}: {count} rows, {stamp_text(series.timestamps[0].item())} to "
                f"{stamp_text(series.timestamps[-1].item())}, split at {train} and {validation}; every split needs "
                "rows: set data.train_end and data.validation_end"
            )
        return Borders(train, validation, count)

    def _row(self, border: float | str, series: Series) -> int:
        if isinstance(border, str):
            try:
                end = parse_timestamps(pl.Series([border]), "", None).to_numpy()[0]
            except InputError:
                keys = "data.train_end and data.validation_end"
                raise InputError(f"{keys}: {border!r} is neither a share nor a time such as 2024-03-10 01:00") from None
            return int((series.timestamps < end).sum())
        return round(border * len(series.timestamps))
