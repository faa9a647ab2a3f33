"""Electricity Transformer Temperature: ETTh1, ETTh2 (hourly), ETTm1, ETTm2 (every 15 minutes); Zhou et al., AAAI 2021.

Seven columns: six loads and the oil temperature OT, July 2016 to June 2018. The usual split takes the first 20 months
of 30 days (12 to train, 4 to validate, 4 to test) and leaves the rest unused.
"""

from typing import NamedTuple

from datamodules.common.download import PublishedFile, locate, verify
from datamodules.time_series.series import Series, SplitBoundaries, read_csv
from titans_seq.errors import InputError

_URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_CHANNELS = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
_HOURLY = SplitBoundaries(train=8640, validation=11520, test=14400)
_QUARTERLY = SplitBoundaries(train=34560, validation=46080, test=57600)


class _EttFacts(NamedTuple):
    rows: int
    boundaries: SplitBoundaries
    seasonal_period: int  # steps of a day
    sha256: str


ETT_DATASETS = {
    "ETTh1": _EttFacts(17420, _HOURLY, 24, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
    "ETTh2": _EttFacts(17420, _HOURLY, 24, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
    "ETTm1": _EttFacts(69680, _QUARTERLY, 96, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e"),
    "ETTm2": _EttFacts(69680, _QUARTERLY, 96, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd"),
}


class ETT:
    """One of the four datasets, as published.

    Args:
        name: a key of `ETT_DATASETS`.
        root: the data folder; None uses $TITANS_SEQ_DATA, else the user's cache, to which files are downloaded.
    """

    simulated = False

    def __init__(self, name: str, root: str | None = None) -> None:
        if name not in ETT_DATASETS:
            raise ValueError(f"name must be one of {', '.join(ETT_DATASETS)}; got {name!r}")
        self.name = name
        self.root = root
        self.file = PublishedFile(f"ETT-small/{name}.csv", f"{_URL}/{name}.csv", ETT_DATASETS[name].sha256)

    @property
    def seasonal_period(self) -> int:
        """Steps of a day."""
        return ETT_DATASETS[self.name].seasonal_period

    def prepare(self) -> None:
        """Download the file if it is missing."""
        locate(self.file, self.root)

    def load(self) -> Series:
        """Read, check and split the dataset.

        Raises InputError. The content is checked before the checksum, since its message is more specific.
        """
        path = locate(self.file, self.root)
        timestamps, channels, values = read_csv(path)
        expected = ETT_DATASETS[self.name]
        if channels != _CHANNELS:
            raise InputError(f"{path}: columns must be date, {', '.join(_CHANNELS)}; found {', '.join(channels)}")
        if len(values) != expected.rows:
            raise InputError(
                f"{path}: {len(values)} rows, {self.name} has {expected.rows}; the file is truncated or modified. "
                f"Download it again from {self.file.url}"
            )
        verify(path, self.file)
        return Series(self.name, timestamps, channels, values, expected.boundaries, file=path)
