"""Sliding windows of series as views of one array, gathered one batch at a time."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.common.loading import ALONE, Loader, Order, ProcessShard
from titans_seq.batch import CovariateBatch, CovariateInputs, ForecastBatch
from titans_seq.errors import InputError


class Windows:
    """All windows of a series at stride 1, each `context_length` steps followed by `horizon` steps.

    Nothing is copied until a batch is gathered, and a batch is gathered by one indexing operation: every window is one
    contiguous block of the row-major series, so all windows are the rows of one overlapping strided matrix. The
    indexing uses numpy because for copies this small, waking torch's threads costs several times the copy.

    Args:
        values: the series (T, C).
        context_length: L, input steps of the model.
        horizon: H, forecast steps.
        floor: least value of forecasts, z-scored (C,); None: no least value.
    """

    def __init__(
        self,
        values: NDArray[np.floating[Any]],
        context_length: int,
        horizon: int,
        floor: NDArray[np.float32] | None = None,
    ) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        self.context_length = context_length
        self.horizon = horizon
        self.floor = floor
        rows, channels = self.values.shape
        length = context_length + horizon
        if rows < length:
            raise InputError(
                f"{rows} rows are too few for one window of {length} "
                f"(data.context_length={context_length} + data.horizon={horizon}): lower one of these keys"
            )
        step = self.values.itemsize * channels
        self._matrix = np.lib.stride_tricks.as_strided(
            self.values, (rows - length + 1, length * channels), (step, self.values.itemsize), writeable=False
        )

    def __len__(self) -> int:
        return len(self._matrix)

    def __getitem__(self, index: NDArray[np.int64]) -> ForecastBatch:
        """Return the windows that start at rows `index`, (B,), as one batch."""
        block = self._matrix[index].reshape(len(index), self.context_length + self.horizon, -1)
        # Sliced in numpy because its views cost a tenth of torch's.
        context, target = block[:, : self.context_length], block[:, self.context_length :]
        floor = None if self.floor is None else torch.from_numpy(self.floor).expand(len(index), 1, -1)
        return ForecastBatch(torch.from_numpy(context), torch.from_numpy(target), torch.from_numpy(index), floor)


class PanelWindows:
    """Windows of a panel or of a series with covariates: blocks of one array, at given start rows.

    Args:
        values: the rows of all series, concatenated (T, C + P + K): channels, past and known covariates.
        context_length, horizon: see `Windows`.
        starts: the start row of each window, (n,); no window may reach into the rows of another series.
        widths: C and P.
        series: the number of each window's series, (n,).
        statics: codes (M, S) and numbers (M, N) of all M series.
        floors: least value of forecasts of each series, z-scored (M, C); None: no least value.
    """

    def __init__(
        self,
        values: NDArray[np.floating[Any]],
        context_length: int,
        horizon: int,
        *,
        starts: NDArray[np.int64],
        series: NDArray[np.int64],
        widths: tuple[int, int],
        statics: tuple[NDArray[np.int64], NDArray[np.float32]],
        floors: NDArray[np.float32] | None = None,
    ) -> None:
        self._windows = Windows(values, context_length, horizon)
        self.starts = starts
        self.series = series
        self._channels, self._known = widths[0], sum(widths)  # first columns of the past and the known covariates
        self._statics = statics
        self._floors = floors
        self._plain = self._windows.values.shape[1] == widths[0] and not any(part.size for part in statics)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: NDArray[np.int64]) -> ForecastBatch | CovariateBatch:
        """Return the windows with the numbers `index`, (B,), as one batch."""
        batch = self._windows[self.starts[index]]
        floor = None if self._floors is None else torch.from_numpy(self._floors[self.series[index]]).unsqueeze(1)
        if self._plain:
            return batch._replace(floor=floor)
        channels, known = self._channels, self._known
        codes, numbers = (torch.from_numpy(part[self.series[index]]) for part in self._statics)
        ahead = torch.cat([batch.context[..., known:], batch.target[..., known:]], dim=1)
        covariates = CovariateInputs(batch.context[..., channels:known], ahead, codes, numbers)
        return CovariateBatch(
            batch.context[..., :channels], batch.target[..., :channels], batch.start, covariates, floor
        )


class WindowOrder(Order):
    """Order of an epoch's windows."""

    def __init__(self, count: int, *, shuffle: bool, seed: int) -> None:
        super().__init__(shuffle=shuffle, seed=seed)
        self.count = count

    def __call__(self) -> NDArray[np.int64]:
        """Return the window numbers of the current epoch, (count,)."""
        return self.generator().permutation(self.count) if self.shuffle else np.arange(self.count)


class WindowLoader(Loader[WindowOrder, NDArray[np.int64], ForecastBatch | CovariateBatch]):
    """Loader of window batches: every window once per epoch; the last batch may be smaller.

    Args:
        windows: the windows of a split.
        batch_size: windows in a batch, those of all processes together.
        shuffle: a new order every epoch; for training, and so with equal parts for all processes.
        seed: of the order.
        shard: see `Loader`.
    """

    def __init__(
        self,
        windows: Windows | PanelWindows,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        shard: ProcessShard = ALONE,
    ) -> None:
        super().__init__(WindowOrder(len(windows), shuffle=shuffle, seed=seed), shard)
        self.windows = windows
        self.batch_size = batch_size

    def __len__(self) -> int:
        return self.shard.batches(len(self.windows), self.batch_size, even=self.sampler.shuffle)

    def plan(self) -> list[NDArray[np.int64]]:
        """Return the window numbers of each batch."""
        order = self.sampler()
        firsts = range(0, len(self) * self.batch_size, self.batch_size)
        batches = (order[first : first + self.batch_size] for first in firsts)
        return [self.shard.of_batch(rows, even=self.sampler.shuffle) for rows in batches]

    def batch(self, part: NDArray[np.int64]) -> ForecastBatch | CovariateBatch:
        """Return the windows with the numbers `part` (B,) as a batch."""
        return self.windows[part]
