"""The data module of every forecasting data set: a source, z-scores, and windows of its three splits."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from datamodules.common.digest import hash_arrays, hash_files
from datamodules.common.loading import shard_of
from datamodules.common.splitting import Split
from datamodules.time_series.encoder import FeatureEncoder
from datamodules.time_series.series import Scaler, Series, SeriesSource
from datamodules.time_series.windows import PanelWindows, WindowLoader, Windows
from titans_seq.errors import InputError


class ScaledSeries(NamedTuple):
    """One series and how it is scaled."""

    series: Series
    scaler: Scaler  # of the channels, from the training rows alone
    scaled: NDArray[np.float32]  # (T, C + P + K), see `FeatureEncoder.encode`


class ForecastingDataModule(LightningDataModule):
    """Windows over z-scored values, every window of a split counted (the field's long-term forecasting protocol).

    Validation and test begin `context_length` rows early, so that their targets begin right at the split's border and
    the number of their windows does not depend on the context. The windows of a panel's series follow one another; none
    crosses from one series into the next.

    Args:
        source: where the series, or a panel of them, comes from.
        context_length: L, steps the model sees.
        horizon: H, steps it forecasts.
        batch_size: windows in a batch.
        seed: of the order in which an epoch shows the training windows.
        calendar: features of the timestamps, names of `datamodules.time_series.calendar.CALENDAR_FEATURES`.
    """

    members: list[ScaledSeries]
    layout: FeatureEncoder

    def __init__(
        self,
        source: SeriesSource,
        *,
        context_length: int,
        horizon: int,
        batch_size: int = 32,
        seed: int = 0,
        calendar: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.source = source
        self.context_length = context_length
        self.horizon = horizon
        self.batch_size = batch_size
        self.seed = seed
        self.calendar = calendar
        self._rows: NDArray[np.float32] | None = None  # of all series, one after another

    @property
    def series(self) -> Series:
        """The series; of a panel, its first."""
        return self.members[0].series

    @property
    def scaler(self) -> Scaler:
        """The scaler of `series`."""
        return self.members[0].scaler

    def prepare_data(self) -> None:
        """Fetch what is missing."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Read the series once; statistics come from the training rows alone."""
        if self._rows is not None:
            return
        loaded = self.source.load()
        panel = [loaded] if isinstance(loaded, Series) else loaded
        self.layout = FeatureEncoder.fit(panel, self.calendar, self.source.season)
        self.members = []
        for series in panel:
            scaler = self.layout.scalers[series.name]
            self.members.append(ScaledSeries(series, scaler, self.layout.encode(series, scaler)))
        scaled = [member.scaled for member in self.members]
        self._rows = scaled[0] if len(scaled) == 1 else np.concatenate(scaled)

    def rows(self, split: Split, series: Series | None = None) -> tuple[int, int]:
        """First and last row (excluded) that the windows of a split touch, context included."""
        borders = (series or self.series).borders
        if split == "train":
            return 0, borders.train
        end = borders.validation if split == "validation" else borders.test
        first = (borders.train if split == "validation" else borders.validation) - self.context_length
        if first < 0:
            before = first + self.context_length
            raise InputError(f"data.context_length={self.context_length} exceeds the {before} rows before {split}")
        return first, end

    def windows(self, split: Split) -> Windows | PanelWindows:
        """All windows of a split."""
        assert self._rows is not None, "setup has not run"
        for member in self.members:
            self._check_length(split, member.series)
        if len(self.members) == 1 and not self.layout.has_covariates:
            first, end = self.rows(split)
            return Windows(self._rows[first:end], self.context_length, self.horizon)
        firsts, counts = self._starts(split)
        before = np.cumsum([0, *(len(member.scaled) for member in self.members)])[:-1]
        statics = [self.layout.static(member.series) for member in self.members]
        return PanelWindows(
            self._rows,
            self.context_length,
            self.horizon,
            starts=np.concatenate([np.arange(n) + f + b for f, n, b in zip(firsts, counts, before, strict=True)]),
            series=np.repeat(np.arange(len(self.members)), counts),
            widths=(len(self.layout.channels), len(self.layout.past)),
            statics=(np.stack([codes for codes, _ in statics]), np.stack([numbers for _, numbers in statics])),
        )

    def place(self, split: Split, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where windows of a split stand: the number of the series, and the row of it that is forecast first."""
        firsts, counts = self._starts(split)
        ends = np.cumsum(counts)
        series = np.searchsorted(ends, index, side="right")
        within = index - (ends - counts)[series]
        return series, firsts[series] + within + self.context_length

    def train_dataloader(self) -> WindowLoader:
        """Training windows in a new order every epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> WindowLoader:
        """Validation windows in order."""
        return self._loader("validation")

    def test_dataloader(self) -> WindowLoader:
        """Test windows in order, the last ones too."""
        return self._loader("test")

    def _loader(self, split: Split, *, shuffle: bool = False) -> WindowLoader:
        share = shard_of(self.trainer)
        return WindowLoader(self.windows(split), self.batch_size, shuffle=shuffle, seed=self.seed, share=share)

    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others: digests of the files and of the series, and where its splits end."""
        every = [member.series for member in self.members]
        parts = [(s.timestamps.astype(np.int64), s.values, *s.covariates.arrays()) for s in every]
        borders = [int(row) for series in every for row in series.borders]
        return {
            "name": self.series.name,
            "sha256": hash_arrays(*(a for part in parts for a in part)),
            "borders": borders,
            "files": hash_files(series.file for series in every if series.file is not None),
        }

    def _starts(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each series, the row at which a split's first window begins, and how many windows there are."""
        spans = np.array([self.rows(split, member.series) for member in self.members])
        return spans[:, 0], spans[:, 1] - spans[:, 0] - self.context_length - self.horizon + 1

    def _check_length(self, split: Split, series: Series) -> None:
        """Raise InputError when a split of a series has no room for one window."""
        place = f"{self.series.name}, " if len(self.members) == 1 else f"series {series.name!r}, "
        try:
            first, end = self.rows(split, series)
        except InputError as error:
            raise InputError(f"{place}{split}: {error}") from None
        found, needed = end - first, self.context_length + self.horizon
        if found < needed:
            least = found - self.horizon
            if split == "train" and least > 0:
                mend = f"data.context_length={least} or a shorter data.horizon"
            else:
                mend = f"data.horizon={max(1, found - self.context_length)}"
            raise InputError(
                f"{place}{split}: {found} rows are too few for one window of {needed} "
                f"(data.context_length={self.context_length} + data.horizon={self.horizon}); the series has "
                f"{len(series.timestamps)} rows. Lower one of these keys: {mend} would fit"
            )
