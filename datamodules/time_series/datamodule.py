"""Lightning data module for forecasting: one source, z-scored, as windows of the three splits."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from datamodules.common.digest import hash_arrays, hash_files
from datamodules.common.loading import shard_of
from datamodules.common.messages import listed
from datamodules.common.splitting import Split
from datamodules.time_series.encoder import FeatureEncoder, last_training_time
from datamodules.time_series.series import Scaler, Series, SeriesSource, SplitBoundaries
from datamodules.time_series.short_series import UNSEEN_CATEGORY, Short, choose_training, note, pad_series
from datamodules.time_series.windows import PanelWindows, WindowLoader, Windows
from titans_seq.errors import InputError


class ScaledSeries(NamedTuple):
    """One series, its scaler and its encoded values."""

    series: Series
    scaler: Scaler  # of the channels, from the training rows alone
    scaled: NDArray[np.float32]  # (T, C + P + K), see `FeatureEncoder.encode`
    floor: float | None = None  # least value of forecasts, in the units of the series

    def scaled_floor(self) -> NDArray[np.float32]:
        """Return the least z-score of forecasts, (C,); minus infinity without a least value."""
        floor = np.full(len(self.series.channels), -np.inf if self.floor is None else self.floor)
        # Rounded down, so that `restore` gives exactly the floor.
        return np.nextafter(self.scaler.transform(floor).astype(np.float32), np.float32(-np.inf))

    def restore(self, forecasts: NDArray[Any]) -> NDArray[np.float64]:
        """Scale z-scored forecasts (..., C), quantiles or bounds of intervals back to the units of the series."""
        units: NDArray[np.float64] = self.scaler.inverse(forecasts)
        return units if self.floor is None else np.maximum(units, self.floor)

    @classmethod
    def encode(
        cls,
        series: Series,
        scaler: Scaler,
        encoder: FeatureEncoder,
        padding: int = 0,
        *,
        floor: float | None = None,
    ) -> "ScaledSeries":
        """Encode a series, with `padding` more rows before its first (`pad_series`), whose `series.values` are NaN."""
        padded = pad_series(series, padding, encoder.season)
        scaled = encoder.encode(padded, scaler)
        values = padded.values.copy() if padding else padded.values
        values[:padding] = np.nan
        return cls(padded._replace(values=values), scaler, scaled, floor)

    def rescaled(self, end: int, *, robust: bool) -> "ScaledSeries":
        """Return the series with a scaler fitted on its rows before `end`; `robust`: see `Scaler.fit`."""
        values, scaled = self.series.values[:end], self.scaled.copy()
        channels = values.shape[1]
        scaler = Scaler.fit(values[~np.isnan(values).any(axis=1)], robust=robust)
        units = self.scaler.inverse(scaled[:, :channels].astype(np.float64))
        scaled[:, :channels] = scaler.transform(units)
        return self._replace(scaler=scaler, scaled=scaled)


class ForecastingDataModule(LightningDataModule):
    """Windows of z-scored series at stride 1, none dropped (the usual long-term forecasting protocol).

    Validation and test begin `context_length` rows early, so that their targets begin right at the split boundary
    and the number of their windows does not depend on the context. In a panel, the windows of one series follow those
    of another; no window spans two series.

    Args:
        source: loads the series, or a panel of series.
        context_length: L, input steps of the model.
        horizon: H, forecast steps.
        batch_size: windows in a batch.
        seed: of the shuffling of the training windows.
        calendar: names of timestamp features, from `datamodules.time_series.calendar.CALENDAR_FEATURES`.
        patch: patch length and stride of the model, which errors propose to lower with the context length.
        short: what happens to series of a panel that are too short, see `data.short`; the others are read as they are
            as long as one of them has a window in every split.
        unknown_categories: whether the model has a code for categories that are not in the training data.
        categories: values of the static text columns in the training data of a model to evaluate; empty: those found.
        robust: scale by median and interquartile range instead of mean and standard deviation.
        floor: least value of forecasts, in the units of the series; batches hold it z-scored.
    """

    scaled_series: list[ScaledSeries]  # one per series of the panel
    encoder: FeatureEncoder
    notes: list[str]  # messages about short series for the user, set by `setup`

    def __init__(
        self,
        source: SeriesSource,
        *,
        context_length: int,
        horizon: int,
        batch_size: int = 32,
        seed: int = 0,
        calendar: Sequence[str] = (),
        patch: tuple[int, int] = (1, 1),
        short: Short = "refuse",
        unknown_categories: bool = False,
        categories: Mapping[str, list[str]] = MappingProxyType({}),
        robust: bool = False,
        floor: float | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.context_length = context_length
        self.horizon = horizon
        self.batch_size = batch_size
        self.seed = seed
        self.calendar = calendar
        self.patch = patch
        self.short: Short = short
        self.unknown_categories = unknown_categories
        self.categories = categories
        self.notes = []
        self.robust = robust
        self.floor = floor
        self._rows: NDArray[np.float32] | None = None  # encoded rows of all series, concatenated

    @property
    def series(self) -> Series:
        """The series, or the first series of a panel."""
        return self.scaled_series[0].series

    @property
    def scaler(self) -> Scaler:
        """The scaler of `series`."""
        return self.scaled_series[0].scaler

    def prepare_data(self) -> None:
        """Download missing files."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Read the series, once; statistics are computed from the training rows alone."""
        if self._rows is not None:
            return
        loaded = self.source.load()
        panel = [loaded] if isinstance(loaded, Series) else loaded
        panel, padding = self._choose(panel)
        season, unknown, values = self.source.seasonal_period, self.unknown_categories, self.categories
        encoder = FeatureEncoder.fit(
            panel, self.calendar, season, unknown=unknown, categories=values, robust=self.robust
        )
        scaled = [
            ScaledSeries.encode(series, encoder.scalers[series.name], encoder, rows, floor=self.floor)
            for series, rows in zip(panel, padding, strict=True)
        ]
        self.take(encoder, scaled)
        self._note_splits()

    def take(self, encoder: FeatureEncoder, panel: Sequence[ScaledSeries]) -> None:
        """Use series that `encoder` has encoded, instead of reading the source."""
        self.encoder, self.scaled_series = encoder, list(panel)
        scaled = [each.scaled for each in panel]
        self._rows = scaled[0] if len(scaled) == 1 else np.concatenate(scaled)

    def with_boundaries(self, boundaries: Sequence[SplitBoundaries]) -> "ForecastingDataModule":
        """Return the same encoded series with other splits, one of `boundaries` for each; scales stay as they are."""
        split = [
            each._replace(series=each.series._replace(boundaries=ends))
            for each, ends in zip(self.scaled_series, boundaries, strict=True)
        ]
        other = ForecastingDataModule(
            self.source,
            context_length=self.context_length,
            horizon=self.horizon,
            batch_size=self.batch_size,
            seed=self.seed,
            calendar=self.calendar,
            patch=self.patch,
            short=self.short,
            unknown_categories=self.unknown_categories,
            categories=self.categories,
            robust=self.robust,
            floor=self.floor,
        )
        other.take(self.encoder._replace(trained_until=last_training_time([each.series for each in split])), split)
        return other

    def rows(self, split: Split, series: Series | None = None) -> tuple[int, int]:
        """Return the first row and the end row (excluded) of a split's windows, context included."""
        boundaries = (series or self.series).boundaries
        if split == "train":
            return 0, boundaries.train
        end = boundaries.validation if split == "validation" else boundaries.test
        first = (boundaries.train if split == "validation" else boundaries.validation) - self.context_length
        if first < 0:
            before = first + self.context_length
            raise InputError(f"data.context_length={self.context_length} exceeds the {before} rows before {split}")
        return first, end

    def windows(self, split: Split) -> Windows | PanelWindows:
        """Return all windows of a split."""
        assert self._rows is not None, "setup has not run"
        self._check_lengths(split)
        floors = None
        if self.floor is not None:
            floors = np.stack([each.scaled_floor() for each in self.scaled_series])
        if len(self.scaled_series) == 1 and not self.encoder.has_covariates:
            first, end = self.rows(split)
            floor = None if floors is None else floors[0]
            return Windows(self._rows[first:end], self.context_length, self.horizon, floor)
        firsts, counts = self._starts(split)
        before = np.cumsum([0, *(len(each.scaled) for each in self.scaled_series)])[:-1]
        statics = [self.encoder.static(each.series) for each in self.scaled_series]
        return PanelWindows(
            self._rows,
            self.context_length,
            self.horizon,
            starts=np.concatenate([np.arange(n) + f + b for f, n, b in zip(firsts, counts, before, strict=True)]),
            series=np.repeat(np.arange(len(self.scaled_series)), counts),
            widths=(len(self.encoder.channels), self.encoder.num_past),
            statics=(np.stack([codes for codes, _ in statics]), np.stack([numbers for _, numbers in statics])),
            floors=floors,
        )

    def locate_windows(self, split: Split, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each window's series number and the row of its first forecast step.

        Args:
            split: the split of the windows.
            index: window numbers within the split, (B,).
        """
        firsts, counts = self._starts(split)
        ends = np.cumsum(counts)
        series = np.searchsorted(ends, index, side="right")
        within = index - (ends - counts)[series]
        return series, firsts[series] + within + self.context_length

    def train_dataloader(self) -> WindowLoader:
        """Return the training windows, reshuffled every epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> WindowLoader:
        """Return the validation windows in order."""
        return self._loader("validation")

    def test_dataloader(self) -> WindowLoader:
        """Return the test windows in order; the last batch is kept even if smaller."""
        return self._loader("test")

    def predict_dataloader(self) -> WindowLoader:
        """Return the test windows, which `Trainer.predict` forecasts."""
        return self.test_dataloader()

    def _loader(self, split: Split, *, shuffle: bool = False) -> WindowLoader:
        shard = shard_of(self.trainer)
        return WindowLoader(self.windows(split), self.batch_size, shuffle=shuffle, seed=self.seed, shard=shard)

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data: checksums of the files and the series, and the split boundaries."""
        every = [each.series for each in self.scaled_series]
        parts = [(s.timestamps.astype(np.int64), s.values, *s.covariates.arrays()) for s in every]
        boundaries = [int(row) for series in every for row in series.boundaries]
        return {
            "name": self.series.name,
            "sha256": hash_arrays(*(a for part in parts for a in part)),
            "borders": boundaries,
            "files": hash_files(series.file for series in every if series.file is not None),
        }

    def _starts(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each series, the row at which a split's first window begins and the number of its windows."""
        spans = np.array([self.rows(split, each.series) for each in self.scaled_series])
        counts = spans[:, 1] - spans[:, 0] - self.context_length - self.horizon + 1
        return spans[:, 0], np.maximum(counts, 0)

    def _choose(self, panel: list[Series]) -> tuple[list[Series], list[int]]:
        """Return the series to read and the number of rows to put before each."""
        if self.short == "refuse":
            return panel, [0] * len(panel)
        season = self.source.seasonal_period
        chosen = choose_training(panel, self.short, self.context_length, self.horizon, season)
        self.notes += chosen.notes
        return chosen.series, chosen.padding

    def _note_splits(self) -> None:
        """Add notes about series of unseen categories, or without a window in a split where others have one."""
        categories = [(each.series.name, self.encoder.unseen_categories(each.series)) for each in self.scaled_series]
        unseen = [f"{name}: {listed(values)}" for name, values in categories if values]
        self.notes += note(unseen, UNSEEN_CATEGORY)
        if self.short == "refuse":
            return
        splits: tuple[Split, Split] = ("validation", "test")
        for split in splits:
            few = [each.series.name for each in self.scaled_series if not self.has_windows(split, each.series)]
            if len(few) < len(self.scaled_series):
                self.notes += note(few, f"fewer than {self.horizon} {split} rows: not among the {split} windows")

    def has_windows(self, split: Split, series: Series) -> bool:
        """Whether a split of a series has the rows of a window."""
        try:
            first, end = self.rows(split, series)
        except InputError:
            return False
        return end - first >= self.context_length + self.horizon

    def _check_lengths(self, split: Split) -> None:
        """Raise InputError when a series has no window in a split; without `refuse`, when none of them has."""
        panel = [each.series for each in self.scaled_series]
        if self.short != "refuse":
            if any(self.has_windows(split, series) for series in panel):
                return
            panel = [max(panel, key=lambda series: len(series.timestamps))]
        for series in panel:
            self._check_length(split, series)

    def _check_length(self, split: Split, series: Series) -> None:
        """Raise InputError when a split of a series is shorter than one window."""
        place = f"{self.series.name}, " if len(self.scaled_series) == 1 else f"series {series.name!r}, "
        try:
            first, end = self.rows(split, series)
        except InputError as error:
            raise InputError(f"{place}{split}: {error}") from None
        found, needed = end - first, self.context_length + self.horizon
        if found < needed:
            raise InputError(
                f"{place}{split}: {found} rows are too few for one window of {needed} "
                f"(data.context_length={self.context_length} + data.horizon={self.horizon}); the series has "
                f"{len(series.timestamps)} rows{self._advice()}"
            )

    def _advice(self) -> str:
        """Return the largest sizes up to those set with which every split has a window, as keys.

        With `short` that is not "refuse", every split of the longest series; else of every series.
        """
        borders = np.array([each.series.boundaries for each in self.scaled_series])
        if self.short != "refuse":
            borders = borders[[borders[:, -1].argmax()]]
        train, held_out = borders[:, 0].min(), np.diff(borders, axis=1).min()
        horizon = int(min(self.horizon, held_out, train - 1))
        if horizon < 1:
            return " and a split of a series too few for any: set data.train_end and data.validation_end"
        context = int(min(self.context_length, train - horizon))
        sizes = {
            "data.context_length": (context, self.context_length),
            "data.horizon": (horizon, self.horizon),
            "model.patch_length": (min(context, self.patch[0]), self.patch[0]),
            "model.stride": (min(context, self.patch[1]), self.patch[1]),
        }
        keys = " ".join(f"{key}={new}" for key, (new, old) in sizes.items() if new < old)
        return f". For all splits {keys} would fit"
