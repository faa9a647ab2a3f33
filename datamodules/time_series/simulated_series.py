"""Data module of simulated series: every batch of every epoch is made anew, from a seed of its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from datamodules.common.loading import Loader, Order, ProcessShard, shard_of
from datamodules.common.splitting import SPLITS, Split
from datamodules.time_series.simulated.mixture import FAMILIES, simulate
from titans_seq.batch import SeriesBatch

_HELD_OUT_SEED = 0
_UNALIGNED = 16  # a random number of first steps below it is missing: series do not start where a patch does


class BatchPlan(NamedTuple):
    """Seed and shape of one process's part of a batch."""

    seed: tuple[int, ...]
    series: int
    length: int


class LengthOrder(Order):
    """Lengths of an epoch's batches: drawn anew every epoch, or with `shuffle` off each length in turn."""

    def __init__(
        self, lengths: Sequence[int], shares: Sequence[float] | None, batches: int, *, shuffle: bool, seed: int
    ) -> None:
        super().__init__(shuffle=shuffle, seed=seed)
        self.lengths = np.array(lengths)
        weights = np.ones(len(lengths)) if shares is None else np.array(shares)
        self.shares = weights / weights.sum()
        self.batches = batches

    def __call__(self) -> list[int]:
        """Return the length of every batch."""
        if not self.shuffle:
            return [int(length) for length in np.repeat(self.lengths, self.batches)]
        return [int(length) for length in self.generator().choice(self.lengths, size=self.batches, p=self.shares)]


class SimulatedLoader(Loader[LengthOrder, BatchPlan, SeriesBatch]):
    """Loader of simulated series; all batches have the same number of steps.

    Args:
        order: of the lengths.
        shard: the part of every batch that this process makes.
        split: splits have seeds of their own.
        batch_size: series of the longest length in a batch.
    """

    def __init__(self, order: LengthOrder, shard: ProcessShard, split: Split, batch_size: int) -> None:
        super().__init__(order, shard)
        self.split = split
        self.steps = batch_size * int(order.lengths.max())

    def plan(self) -> list[BatchPlan]:
        """Return seed, number and length of this process's series of every batch."""
        order, rank = self.sampler, self.shard.rank
        epoch = order.epoch if order.shuffle else 0
        plans = []
        for number, length in enumerate(order()):
            rows = self.shard.of_batch(np.arange(self.steps // length), even=order.shuffle)
            if len(rows):
                seed = (order.seed, SPLITS.index(self.split), epoch, number, rank)
                plans.append(BatchPlan(seed, len(rows), length))
        return plans

    def batch(self, part: BatchPlan) -> SeriesBatch:
        """Make the series."""
        rng = np.random.default_rng(part.seed)
        simulated = simulate(rng, part.series, part.length)
        values = torch.from_numpy(simulated.values.copy())
        first = torch.from_numpy(rng.integers(_UNALIGNED, size=part.series))
        values[torch.arange(part.length) < first.unsqueeze(1)] = torch.nan
        return SeriesBatch(values, torch.from_numpy(simulated.period))


class SimulatedDataModule(LightningDataModule):
    """Simulated series for training, validation and test; see `SimulatedLoader`.

    Args:
        lengths: steps of a series; every batch has one of them.
        shares: relative frequencies of the lengths in training; None: equal.
        batch_size: series of the longest length in a batch.
        epoch_batches: batches of a training epoch.
        held_out_batches: batches of each length in validation and in test.
        seed: of training; the validation and test series are the same for all seeds.
    """

    families: tuple[str, ...] = FAMILIES

    def __init__(
        self,
        lengths: Sequence[int],
        shares: Sequence[float] | None,
        *,
        batch_size: int,
        epoch_batches: int,
        held_out_batches: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lengths, self.shares = lengths, shares
        self.batch_size, self.epoch_batches, self.held_out_batches = batch_size, epoch_batches, held_out_batches
        self.seed = seed

    def train_dataloader(self) -> SimulatedLoader:
        """Return new series in every epoch."""
        return self.loader("train")

    def val_dataloader(self) -> SimulatedLoader:
        """Return the same series in every epoch."""
        return self.loader("validation")

    def test_dataloader(self) -> SimulatedLoader:
        """Return the same series in every epoch."""
        return self.loader("test")

    def predict_dataloader(self) -> SimulatedLoader:
        """Test series, which `Trainer.predict` forecasts."""
        return self.test_dataloader()

    def loader(self, split: Split) -> SimulatedLoader:
        """Return the loader of a split."""
        training = split == "train"
        batches = self.epoch_batches if training else self.held_out_batches
        seed = self.seed if training else _HELD_OUT_SEED
        order = LengthOrder(self.lengths, self.shares, batches, shuffle=training, seed=seed)
        return SimulatedLoader(order, shard_of(self.trainer), split, self.batch_size)

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return {"name": "simulated", "families": list(self.families), "lengths": list(self.lengths), "seed": self.seed}
