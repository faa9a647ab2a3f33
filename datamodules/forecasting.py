"""The data module of every forecasting data set: a source, z-scores, and windows of its three splits."""

from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from datamodules.digest import digest_of
from datamodules.epochs import share_of
from datamodules.series import Scaler, Series, SeriesSource
from datamodules.windows import WindowLoader, Windows
from titans_seq.errors import InputError

Split = Literal["train", "validation", "test"]


class ForecastingDataModule(LightningDataModule):
    """Windows over z-scored values, every window of a split counted (the field's long-term forecasting protocol).

    Validation and test begin `context_length` rows early, so that their targets begin right at the split's border and
    the number of their windows does not depend on the context.

    Args:
        source: where the series comes from.
        context_length: L, steps the model sees.
        horizon: H, steps it forecasts.
        batch_size: windows in a batch.
        seed: of the order in which an epoch shows the training windows.
    """

    series: Series
    scaler: Scaler

    def __init__(
        self, source: SeriesSource, *, context_length: int, horizon: int, batch_size: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        self.source = source
        self.context_length = context_length
        self.horizon = horizon
        self.batch_size = batch_size
        self.seed = seed
        self._scaled: NDArray[np.float32] | None = None

    def prepare_data(self) -> None:
        """Fetch what is missing."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Read the series once; statistics come from the training rows alone."""
        if self._scaled is not None:
            return
        self.series = self.source.load()
        self.scaler = Scaler.fit(self.series.values[: self.series.borders.train])
        self._scaled = self.scaler.transform(self.series.values).astype(np.float32)

    def rows(self, split: Split) -> tuple[int, int]:
        """First and last row (excluded) that the windows of a split touch, context included."""
        borders = self.series.borders
        if split == "train":
            return 0, borders.train
        end = borders.validation if split == "validation" else borders.test
        first = (borders.train if split == "validation" else borders.validation) - self.context_length
        if first < 0:
            before = first + self.context_length
            raise InputError(f"data.context_length={self.context_length} exceeds the {before} rows before {split}")
        return first, end

    def windows(self, split: Split) -> Windows:
        """All windows of a split."""
        assert self._scaled is not None, "setup has not run"
        first, end = self.rows(split)
        try:
            return Windows(self._scaled[first:end], self.context_length, self.horizon)
        except InputError as error:
            raise InputError(f"{self.series.name}, {split}: {error}") from None

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
        share = share_of(self.trainer)
        return WindowLoader(self.windows(split), self.batch_size, shuffle=shuffle, seed=self.seed, share=share)

    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others: a digest of the series, and where its splits end."""
        series = self.series
        digest = digest_of(series.timestamps.astype(np.int64), series.values)
        return {"name": series.name, "sha256": digest, "borders": [int(row) for row in series.borders]}
