"""The covariates of steps to come, as a user's table gives them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.time_series.columns import Roles, parse_numbers, read_table
from datamodules.time_series.timestamps import parse_timestamps, stamp_text
from titans_seq.errors import InputError


def read_future(
    path: Path, roles: Roles, time_format: str | None, names: Sequence[str], times: Sequence[pl.Series]
) -> list[NDArray[np.float64]]:
    """The known columns of every series `names` at its `times` (N,): arrays (N, K). Other rows may be there.

    Raises InputError when one of them is missing.
    """
    if not path.is_file():
        raise InputError(f"--future {path}: no such file")
    table = read_table(path)
    id_ = [roles.id] if roles.id else []
    for name in (roles.time, *id_, *roles.known):
        if name not in table.columns:
            raise InputError(f"{path}: no column {name!r}; found {listed(table.columns)}")
    stamps = parse_timestamps(table[roles.time], f"{path}: column {roles.time}", time_format)
    numbers = [parse_numbers(table[name], stamps, "known", path, "ffill") for name in roles.known]
    series = table[roles.id].cast(pl.String).str.strip_chars() if roles.id else stamps.cast(pl.String).clear()
    found = []
    for name, wanted in zip(names, times, strict=True):
        mine = series == name if roles.id else pl.repeat(True, len(table), eager=True)
        rows = pl.DataFrame(numbers).with_columns(stamps.alias("time of row")).filter(mine)
        place = f"{path}: series {name!r}" if roles.id else str(path)
        found.append(_select(rows, wanted, roles.known, place))
    return found


def _select(rows: pl.DataFrame, wanted: pl.Series, known: Sequence[str], place: str) -> NDArray[np.float64]:
    """The columns (N, K) at each wanted time; all of them must be there, once."""
    until = f"{listed(known)} needed until {stamp_text(wanted[-1])} ({len(wanted)} steps)"
    if rows.is_empty():
        raise InputError(f"{place}: {until}; the file has no rows of it")
    twice = rows["time of row"].is_duplicated()
    if twice.any():
        raise InputError(f"{place}: {stamp_text(rows['time of row'].filter(twice)[0])} appears more than once")
    full = wanted.alias("time of row").to_frame().join(rows, on="time of row", how="left", maintain_order="left")
    lacking = full.select(pl.any_horizontal(pl.col(*known).is_null())).to_series()
    if lacking.any():
        first = int(lacking.arg_max() or 0)
        if lacking[first:].all():
            ends = f"ends {stamp_text(wanted[first - 1])}" if first else f"none from {stamp_text(wanted[0])} on"
            fewer = f", or forecast fewer steps: --horizon {first}" if first else ""
            raise InputError(f"{place}: {until}; {ends}. Extend the file{fewer}.")
        raise InputError(f"{place}: {until}; none for {stamp_text(wanted[first])}. Mend the file.")
    return full.select(known).to_numpy()
