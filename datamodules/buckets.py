"""Batches of sequences of similar length: little padding, in an order that any epoch can repeat and resume."""

from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.epochs import ALONE, Position, Share
from datamodules.labelled import Rows
from datamodules.sequences import Side
from datamodules.strands import other_strand
from titans_seq.batch import SequenceBatch

_POOL = 50  # batches that are sorted together: near enough to sorted for the padding, far from it for the order


class BucketOrder:
    """The batches of an epoch: a function of seed and epoch alone.

    A random order is cut into pools of 50 batches; within a pool rows are sorted by length and cut into batches, and
    the batches of all pools are shown in a random order. So every row's place is random, while a batch's rows are of
    nearly one length. Without `shuffle`, rows are sorted by length, equal ones in the split's order.

    Args:
        lengths: of the rows (n,).
        batch_size: rows in a batch; one batch of an epoch is smaller where it does not divide n.
        shuffle: see above.
        seed: of the random order.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, *, shuffle: bool, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return ceil(len(self.lengths) / self.batch_size)

    def __call__(self) -> list[NDArray[np.int64]]:
        """The rows of each batch of the current epoch."""
        if not self.shuffle:
            return self._cut(np.argsort(self.lengths, kind="stable"))
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        size = _POOL * self.batch_size
        pools = [order[first : first + size] for first in range(0, len(order), size)]
        batches = [batch for pool in pools for batch in self._cut(pool[np.argsort(self.lengths[pool], kind="stable")])]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]


class SequenceLoader:
    """Batches of labelled sequences, every row once an epoch.

    Its state, which Lightning keeps in checkpoints, is the epoch and how many of its batches have been given: a run
    resumed in the middle of an epoch sees the batches that were left, as they would have been.

    Args:
        rows: the split.
        batch_size: rows in a batch.
        max_length: bases kept of a longer sequence, its first ones; None keeps all.
        padding: the side it goes to.
        shuffle: a new order every epoch.
        both_strands: show half of the rows, another half every epoch, as their reverse complements.
        seed: of order and strands.
        share: the part of every batch that is given here; batches are those of all processes together.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        max_length: int | None = None,
        padding: Side = "right",
        shuffle: bool = False,
        both_strands: bool = False,
        seed: int = 0,
        share: Share = ALONE,
    ) -> None:
        self.rows = rows
        self.share = share
        self.max_length = max_length
        self.padding: Side = padding
        self.both_strands = both_strands
        lengths = rows.sequences.lengths
        shown = lengths if max_length is None else np.minimum(lengths, max_length)
        # Under these two names, torch's own, Lightning looks for what to tell the epoch.
        self.sampler = BucketOrder(shown, batch_size, shuffle=shuffle, seed=seed)
        self.batch_sampler = None
        self._given = 0
        self._position = Position()

    def __len__(self) -> int:
        return self.share.batches(len(self.rows), self.sampler.batch_size, even=self.sampler.shuffle)

    def __iter__(self) -> Iterator[SequenceBatch]:
        parts = (self.share.of_batch(rows, even=self.sampler.shuffle) for rows in self.sampler())
        batches = [part for part in parts if len(part)]
        self._given = self._position.take(self.sampler.epoch, len(batches))
        for rows in batches[self._given :]:
            self._given += 1
            yield self.batch(rows)

    def batch(self, rows: NDArray[np.int64]) -> SequenceBatch:
        """The rows `rows` (B,) as the current epoch shows them."""
        order, strands = self.sampler, None
        if self.both_strands:
            strands = other_strand(rows, seed=order.seed, epoch=order.epoch)
        tokens, mask = self.rows.sequences.padded(
            rows, max_length=self.max_length, side=self.padding, other_strand=strands
        )
        return SequenceBatch(
            torch.from_numpy(tokens.astype(np.int64)),
            torch.from_numpy(mask),
            torch.from_numpy(self.rows.labels[rows]),
            torch.from_numpy(rows),
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: epoch, and batches of it that have been given."""
        return {"epoch": self.sampler.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there when that epoch is iterated next; any other epoch begins at its first batch."""
        self._position.load(state)
