"""A user's own table, CSV or Parquet: wide, one column a series, or long, one row a series and time.

What users of such tools really feed them decides what is checked here; each fault is one line with the file, the place,
what was found and the key that mends it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.messages import shown
from datamodules.series import Borders, Series
from datamodules.timestamps import Grid, infer_grid, parse_timestamps
from titans_seq.errors import InputError

Fill = Literal["none", "ffill", "interpolate"]


class Split(NamedTuple):
    """Where training and validation end: shares of the rows, or the first timestamps that no longer belong to them."""

    train: float | str
    validation: float | str


_SHARES = Split(0.7, 0.8)


class Table:
    """A table of series on one regular grid of times.

    Args:
        path: a .csv or .parquet file.
        time: the column of timestamps.
        target: columns to forecast; empty takes all that are left. In a long table the one column of values.
        id: the column that names a row's series; None is a wide table.
        time_format: how timestamps are written, as strftime has it; None takes ISO 8601.
        fill: what to do about times that are missing, and about empty cells: refuse them, repeat the value before, or
            draw a line between the values around them.
        split: where training and validation end.
        season: steps of the main cycle, for the seasonal-naive baseline; None takes the grid's own (a day of hours).
    """

    simulated = False

    def __init__(
        self,
        path: str | Path,
        *,
        time: str = "date",
        target: Sequence[str] = (),
        id: str | None = None,
        time_format: str | None = None,
        fill: Fill = "none",
        split: Split = _SHARES,
        season: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.time = time
        self.target = list(target)
        self.id = id
        self.time_format = time_format
        self.fill = fill
        self.split = split
        self._season = season

    @property
    def season(self) -> int:
        """Steps of the main cycle; 1 before the table is read."""
        return self._season or 1

    def prepare(self) -> None:
        """Raise InputError when the file is not there."""
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file; set data.path")

    def load(self) -> Series:
        """Read, check, put on the grid and split."""
        table = self._read()
        targets = self._targets(table)
        stamps = parse_timestamps(table[self.time], self._where(self.time), self.time_format)
        numbers = table.select(self._numbers(table, name, stamps) for name in targets).with_columns(stamps.alias("at"))
        wide = numbers if self.id is None else self._widen(numbers.with_columns(table[self.id].alias("id")), targets[0])
        self._refuse_duplicates(table, wide)
        grid = infer_grid(wide["at"], str(self.path))
        values = self._on_grid(wide.sort("at"), grid)
        if self._season is None:
            self._season = grid.season
        channels = [name for name in wide.columns if name != "at"]
        return Series(self.path.stem, grid.stamps.to_numpy(), channels, values, self._borders(grid))

    def _read(self) -> pl.DataFrame:
        try:
            if self.path.suffix == ".parquet":
                table = pl.read_parquet(self.path)
            else:
                table = pl.read_csv(self.path, infer_schema=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(
                f"{self.path}: not a readable table: {shown([str(error).partition(chr(10))[0]])}"
            ) from None
        wanted = {"data.time": [self.time], "data.target": self.target, "data.id": [self.id] if self.id else []}
        for key, names in wanted.items():
            for name in names:
                if name not in table.columns:
                    found = shown(table.columns)
                    raise InputError(f"{self.path}: no column {name!r}; found {found}. Set {key}.")
        if table.is_empty():
            raise InputError(f"{self.path}: no rows")
        return table

    def _targets(self, table: pl.DataFrame) -> list[str]:
        left = [name for name in table.columns if name not in (self.time, self.id)]
        targets = self.target or left
        if not targets:
            raise InputError(f"{self.path}: no columns besides {self.time}; nothing to forecast")
        if self.id is not None and len(targets) != 1:
            raise InputError(
                f"{self.path}: data.id={self.id} needs one column of values; set data.target to one of {shown(left)}"
            )
        return targets

    def _where(self, column: str) -> str:
        return f"{self.path}: column {column}"

    def _numbers(self, table: pl.DataFrame, name: str, stamps: pl.Series) -> pl.Series:
        """A column as numbers; empty cells are null, anything else that is no finite number is refused."""
        column = table[name]
        text = column.cast(pl.String).str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        empty = text.is_null() | (text == "")
        bad = ~empty & ~numbers.is_finite().fill_null(False)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise InputError(
                f"{self._where(name)}: {bad.sum()} cells are no finite numbers, first {shown([repr(text[row])])} in "
                f"row {row + 1} ({stamps[row]}). Mend the file, or leave the column out of data.target."
            )
        if empty.any() and self.fill == "none":
            row = int(empty.arg_max() or 0)
            raise InputError(
                f"{self._where(name)}: {empty.sum()} empty cells, first in row {row + 1} ({stamps[row]}). "
                "Set data.fill=ffill|interpolate or mend the file."
            )
        return numbers.alias(name)

    def _widen(self, long: pl.DataFrame, value: str) -> pl.DataFrame:
        """One column for each series; its name is the value of the id."""
        twice = long.group_by("id", "at").len().filter(pl.col("len") > 1).sort("at", "id")
        if len(twice):
            first = twice.row(0, named=True)
            raise InputError(
                f"{self.path}: series {first['id']!r}: {first['at']} appears {first['len']} times; data.id={self.id} "
                "does not tell these rows apart"
            )
        return long.pivot(on="id", index="at", values=value)

    def _refuse_duplicates(self, table: pl.DataFrame, wide: pl.DataFrame) -> None:
        counts = wide["at"].value_counts(sort=True)
        stamp, count = counts.row(0)
        if count > 1:
            texts = [
                n for n in table.columns if n != self.time and table[n].cast(pl.Float64, strict=False).null_count()
            ]
            several = [n for n in texts if table[n].n_unique() < len(table)]
            candidates = shown(several) or "none"
            raise InputError(
                f"{self.path}: {stamp} appears {count} times. Several series? Set data.id=<column>; "
                f"candidates: {candidates}."
            )

    def _on_grid(self, wide: pl.DataFrame, grid: Grid) -> NDArray[np.float64]:
        """Values (T, C) at every time of the grid."""
        full = grid.stamps.to_frame("at").join(wide, on="at", how="left")
        columns = []
        for name in (n for n in full.columns if n != "at"):
            column = full[name]
            if column.null_count() and self.fill == "none":
                self._refuse_gaps(name, full, grid)
            if self.fill == "interpolate":
                column = column.interpolate()
            columns.append(column.forward_fill().backward_fill() if self.fill != "none" else column)
        return np.column_stack([column.to_numpy() for column in columns])

    def _refuse_gaps(self, name: str, full: pl.DataFrame, grid: Grid) -> None:
        """Say how many gaps there are, and between which times the first one lies."""
        missing = full[name].is_null()
        begins = missing & ~missing.shift(1, fill_value=False)
        first = int(begins.arg_max() or 0)
        length = int((~missing[first:]).arg_max() or len(missing) - first)
        series = f"series {name!r}" if self.id is not None else f"column {name}"
        raise InputError(
            f"{self.path}: {series}: {begins.sum()} gaps at a {grid.step} step, first {full['at'][first]} to "
            f"{full['at'][first + length - 1]}. Set data.fill=ffill|interpolate or mend the file."
        )

    def _borders(self, grid: Grid) -> Borders:
        count = len(grid.stamps)
        train, validation = (self._row(border, grid) for border in self.split)
        if not 0 < train < validation < count:
            raise InputError(
                f"{self.path}: {count} rows split at {train} and {validation}; every split needs rows: set "
                "data.train_end and data.validation_end"
            )
        return Borders(train, validation, count)

    def _row(self, border: float | str, grid: Grid) -> int:
        if isinstance(border, str):
            end = parse_timestamps(pl.Series([border]), f"data split {border!r}", None)[0]
            return int((grid.stamps < end).sum())
        return round(border * len(grid.stamps))
