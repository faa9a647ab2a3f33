"""Length-bucketed batches: little padding, in an order that any epoch can reproduce and resume."""

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.common.loading import ALONE, Loader, Order, ProcessShard
from datamodules.dna.augmentation import draw_reverse_complements
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.sequences import Side
from titans_seq.batch import SequenceBatch

_POOL = 50  # batches sorted together: enough for little padding, few enough for a random order


class BucketOrder(Order):
    """Batches of an epoch.

    A random order is cut into pools of 50 batches; within a pool rows are sorted by length and cut into batches, and
    the batches of all pools are shuffled. So every row's position is random, while the rows of a batch have nearly the
    same length. Without `shuffle`, rows are sorted by length, equal ones in the split's order.

    Args:
        lengths: lengths of the rows, (n,).
        batch_size: rows in a batch; one batch of an epoch is smaller where it does not divide n.
        shuffle: see above.
        seed: of the random order.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, *, shuffle: bool, seed: int) -> None:
        super().__init__(shuffle=shuffle, seed=seed)
        self.lengths = lengths
        self.batch_size = batch_size

    def __len__(self) -> int:
        return ceil(len(self.lengths) / self.batch_size)

    def __call__(self) -> list[NDArray[np.int64]]:
        """Rows of each batch of the current epoch."""
        if not self.shuffle:
            return self._cut(np.argsort(self.lengths, kind="stable"))
        rng = self.generator()
        order = rng.permutation(len(self.lengths))
        size = _POOL * self.batch_size
        pools = [order[first : first + size] for first in range(0, len(order), size)]
        batches = [batch for pool in pools for batch in self._cut(pool[np.argsort(self.lengths[pool], kind="stable")])]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]


class SequenceLoader(Loader[BucketOrder, NDArray[np.int64], SequenceBatch]):
    """Batches of labelled sequences, every row once per epoch.

    Args:
        rows: the split.
        batch_size: rows in a batch.
        max_length: bases kept of a longer sequence, its first ones; None keeps all.
        padding: the padded side.
        shuffle: a new order every epoch.
        both_strands: show half of the rows, another half every epoch, as their reverse complements.
        seed: of order and strands.
        shard: see `Loader`.
    """

    def __init__(
        self,
        rows: Examples,
        batch_size: int,
        *,
        max_length: int | None = None,
        padding: Side = "right",
        shuffle: bool = False,
        both_strands: bool = False,
        seed: int = 0,
        shard: ProcessShard = ALONE,
    ) -> None:
        lengths = rows.sequences.lengths
        truncated = lengths if max_length is None else np.minimum(lengths, max_length)
        super().__init__(BucketOrder(truncated, batch_size, shuffle=shuffle, seed=seed), shard)
        self.rows = rows
        self.max_length = max_length
        self.padding: Side = padding
        self.both_strands = both_strands

    def __len__(self) -> int:
        return self.shard.batches(len(self.rows), self.sampler.batch_size, even=self.sampler.shuffle)

    def plan(self) -> list[NDArray[np.int64]]:
        """Rows of each batch for this process."""
        parts = (self.shard.of_batch(rows, even=self.sampler.shuffle) for rows in self.sampler())
        return [part for part in parts if len(part)]

    def batch(self, part: NDArray[np.int64]) -> SequenceBatch:
        """Make the batch of the rows `part` (B,), on the strands that the current epoch draws."""
        order, strands = self.sampler, None
        if self.both_strands:
            strands = draw_reverse_complements(part, seed=order.seed, epoch=order.epoch)
        tokens, mask = self.rows.sequences.padded(part, max_length=self.max_length, side=self.padding, reverse=strands)
        return SequenceBatch(
            torch.from_numpy(tokens.astype(np.int64)),
            torch.from_numpy(mask),
            torch.from_numpy(self.rows.labels[part]),
            torch.from_numpy(part),
        )
