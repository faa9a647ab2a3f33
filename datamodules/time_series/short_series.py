"""Series of a panel that are too short for a window: padded at their start, or left out of the training."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from datamodules.common.messages import listed
from datamodules.time_series.series import Covariates, Series, SplitBoundaries
from datamodules.time_series.steps import times_before
from titans_seq.errors import InputError

Short = Literal["pad", "drop", "refuse"]
UNSEEN_CATEGORY = "not in training; read as an unknown category"
_NAMED = 5  # series that a note names


class Training(NamedTuple):
    """The series of a panel to train on."""

    series: list[Series]
    padding: list[int]  # of each, rows to put before its first
    notes: list[str]  # about series that are padded or left out


def choose_training(
    panel: Sequence[Series], short: Literal["pad", "drop"], context_length: int, horizon: int, season: int
) -> Training:
    """Choose the series to train on: those with training rows for a window, or for most of one that is padded.

    With "pad", a series needs a season and a horizon of training rows. When no series has the rows of a whole window,
    which the caller checks, returns all those with values. Raises InputError if there are none.
    """
    needed = context_length + horizon
    readable = [series for series in panel if series.boundaries.train and not has_empty_column(series)]
    if not readable:
        raise InputError("no series has a value in every column and training rows: fix the file or set data.train_end")
    if not any(series.boundaries.train >= needed for series in readable):
        return Training(readable, [0] * len(readable), [])
    kept, padding, empty, short_ones = [], [], [], []
    for series in panel:
        missing = max(0, needed - series.boundaries.train)
        if has_empty_column(series):
            empty.append(series.name)
        elif missing and (short == "drop" or series.boundaries.train < season + horizon):
            short_ones.append(series.name)
        else:
            kept.append(series)
            padding.append(missing)
    padded = [series.name for series, missing in zip(kept, padding, strict=True) if missing]
    below = f"fewer than {needed} training rows"
    notes = [
        *note(empty, "a column has no values: left out of the training"),
        *note(short_ones, f"{below}: left out of the training"),
        *note(padded, f"{below}: their first season is repeated before them"),
    ]
    return Training(kept, padding, notes)


def pad_series(series: Series, count: int, season: int) -> Series:
    """Return a series with `count` rows before its first, which repeat its first season, or all rows of a shorter one.

    The times continue backwards; boundaries move with their rows.
    """
    if not count:
        return series
    season = min(season, len(series.timestamps))
    source = np.arange(-count, 0) % season
    past, known = (
        {name: np.concatenate([column[source], column]) for name, column in columns.items()}
        for columns in (series.covariates.past, series.covariates.known)
    )
    earlier = times_before(series.timestamps, series.interval, count, series.timezone).to_numpy()
    return series._replace(
        timestamps=np.concatenate([earlier.astype(series.timestamps.dtype), series.timestamps]),
        values=np.concatenate([series.values[source], series.values]),
        boundaries=SplitBoundaries(*(row + count for row in series.boundaries)),
        covariates=Covariates(past, known, series.covariates.static),
    )


def has_empty_column(series: Series) -> bool:
    """Whether a channel or a covariate has no value in any row."""
    numeric = [column for column in series.covariates.arrays() if column.dtype.kind == "f"]  # of text none is empty
    return any(bool(np.isnan(column).all()) for column in [*series.values.T, *numeric])


def note(names: Sequence[str], reason: str) -> Iterator[str]:
    """Yield a note that the named series share a `reason`; nothing without names."""
    if names:
        yield f"{len(names):,} series ({listed(names, most=_NAMED)}): {reason}"
