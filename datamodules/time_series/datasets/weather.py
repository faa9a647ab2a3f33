"""Weather: 21 measurements every ten minutes of 2020 in Jena (Max Planck Institute), as Autoformer published them.

The usual split takes 70 % of the rows to train, 10 % to validate and 20 % to test. 81 training cells hold -9999, which
stands for "not measured". Published numbers keep them: they inflate three channels' deviations, so that these are
almost flat as z-scores and pull every average error down.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.download import PublishedFile, locate, verify
from datamodules.time_series.series import Borders, Scaler, Series, read_csv
from titans_seq.errors import InputError

ROWS = 52696
BORDERS = Borders(train=36887, validation=42157, test=52696)
_FILE = PublishedFile("weather/weather.csv", "", "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63")
_NOT_MEASURED = -9999.0


class Weather:
    """The set as published, or with what was not measured filled in.

    Args:
        root: the data folder; None takes $TITANS_SEQ_DATA. There is no direct download.
        mask_missing: put a channel's last measured value in the place of -9999, before anything is computed.
    """

    simulated = False
    season = 144  # ten-minute steps of a day

    def __init__(self, root: str | None = None, mask_missing: bool = False) -> None:
        self.root = root
        self.mask_missing = mask_missing
        self.notes: list[str] = []  # what a run should say about the data, once loaded

    def prepare(self) -> None:
        """Raise InputError when the file is nowhere."""
        locate(_FILE, self.root)

    def load(self) -> Series:
        """Read, check and split the set."""
        path = locate(_FILE, self.root)
        timestamps, channels, values = read_csv(path)
        if len(values) != ROWS or len(channels) != 21:
            raise InputError(
                f"{path}: {len(values)} rows of {len(channels)} values, Weather has {ROWS} of 21; "
                "the file is cut short or changed"
            )
        verify(path, _FILE)
        missing = values == _NOT_MEASURED
        filled = _carry_forward(values, missing)
        self.notes = [_note(channels, values, filled, missing, self.mask_missing)]
        return Series("Weather", timestamps, channels, filled if self.mask_missing else values, BORDERS, file=path)


def _carry_forward(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each missing cell (T, C) takes its channel's last value before it, or the next one at the start."""
    table = pl.DataFrame(np.where(missing, np.nan, values)).fill_nan(None)
    return table.select(pl.all().forward_fill().backward_fill()).to_numpy()


def _note(
    channels: list[str],
    values: NDArray[np.float64],
    filled: NDArray[np.float64],
    missing: NDArray[np.bool_],
    masked: bool,
) -> str:
    train = slice(0, BORDERS.train)
    published, measured = (Scaler.fit(x[train]).std for x in (values, filled))
    touched = [
        f"{name} by {wide / narrow:.0f}"
        for name, wide, narrow, count in zip(channels, published, measured, missing.sum(0), strict=True)
        if count
    ]
    if masked:
        done, then = "are filled with the value before", "results are not comparable with published numbers"
    else:
        done, then = "are kept, as published", "data.mask_missing=true fills them"
    return (
        f"Weather: {missing.sum()} training cells of -9999 {done}. They widen the deviation of {', '.join(touched)} "
        f"times, and so lower the averages over channels; {then}."
    )
