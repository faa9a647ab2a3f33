"""Weather: 21 measurements every ten minutes of 2020 in Jena (Max Planck Institute), as published with Autoformer.

The usual split takes 70 % of the rows to train, 10 % to validate and 20 % to test. 81 training cells hold -9999, the
code for "not measured". Published results keep them: they inflate the standard deviations of three channels, whose
z-scores are therefore almost flat, which lowers every average error.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.download import PublishedFile, locate, verify
from datamodules.time_series.series import Scaler, Series, SplitBoundaries, read_csv
from titans_seq.errors import InputError

ROWS = 52696
BOUNDARIES = SplitBoundaries(train=36887, validation=42157, test=52696)
_FILE = PublishedFile(
    "weather/weather.csv",
    "",
    "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
    "https://github.com/thuml/Autoformer (its README links the folder with weather/weather.csv) or "
    "https://github.com/ljnvs/HiCR-Mamba (datasets/weather/weather.csv.gz, to be unpacked)",
)
_NOT_MEASURED = -9999.0


class Weather:
    """The dataset as published, or with the missing measurements filled.

    Args:
        root: the data folder; None uses $TITANS_SEQ_DATA. There is no direct download.
        mask_missing: replace -9999 by the channel's last measured value, before any statistics are computed.
    """

    simulated = False
    seasonal_period = 144  # ten-minute steps of a day

    def __init__(self, root: str | None = None, mask_missing: bool = False) -> None:
        self.root = root
        self.mask_missing = mask_missing
        self.notes: list[str] = []  # messages about the data for the user, set by `load`

    def prepare(self) -> None:
        """Raise InputError when the file is missing."""
        locate(_FILE, self.root)

    def load(self) -> Series:
        """Read, check and split the dataset; raises InputError when the file is not the published one."""
        path = locate(_FILE, self.root)
        timestamps, channels, values = read_csv(path)
        if len(values) != ROWS or len(channels) != 21:
            raise InputError(
                f"{path}: {len(values)} rows of {len(channels)} values, Weather has {ROWS} of 21; "
                "the file is truncated or modified"
            )
        verify(path, _FILE)
        missing = values == _NOT_MEASURED
        filled = _carry_forward(values, missing)
        self.notes = [_note(channels, values, filled, missing, self.mask_missing)]
        return Series("Weather", timestamps, channels, filled if self.mask_missing else values, BOUNDARIES, file=path)


def _carry_forward(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fill each missing cell (T, C) with its channel's last value before it, or the next one at the start."""
    table = pl.DataFrame(np.where(missing, np.nan, values)).fill_nan(None)
    return table.select(pl.all().forward_fill().backward_fill()).to_numpy()


def _note(
    channels: list[str],
    values: NDArray[np.float64],
    filled: NDArray[np.float64],
    missing: NDArray[np.bool_],
    masked: bool,
) -> str:
    train = slice(0, BOUNDARIES.train)
    published, measured = (Scaler.fit(x[train]).std for x in (values, filled))
    touched = [
        f"{name} by {inflated / true:.0f}"
        for name, inflated, true, count in zip(channels, published, measured, missing.sum(0), strict=True)
        if count
    ]
    if masked:
        state, effect = "are filled with the previous value", "results are not comparable with published numbers"
    else:
        state, effect = "are kept, as published", "data.mask_missing=true fills them"
    return (
        f"Weather: {missing.sum()} training cells of -9999 {state}. They inflate the standard deviation of "
        f"{', '.join(touched)} times, and so lower the errors averaged over channels; {effect}."
    )
