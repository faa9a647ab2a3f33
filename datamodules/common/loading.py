"""Base classes of the data loaders: epoch order, resuming within an epoch, and sharding over processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from lightning.pytorch import Trainer

from datamodules.common.splitting import RowIndex


class ProcessShard(NamedTuple):
    """Rank and number of the processes over which every batch is split."""

    rank: int = 0
    world: int = 1

    def of_batch(self, rows: RowIndex, *, even: bool) -> RowIndex:
        """Return this process's rows of a batch (B,): a contiguous slice.

        With `even`, all processes get the same number of rows, as averaging gradients requires: up to world - 1 rows
        of an epoch's last batch are dropped. Without it, every row goes to exactly one process.
        """
        if even:
            rows = rows[: len(rows) // self.world * self.world]
        return np.array_split(rows, self.world)[self.rank]

    def batches(self, rows: int, batch_size: int, *, even: bool) -> int:
        """Return the number of batches per epoch of which this process gets at least one row."""
        whole, rest = divmod(rows, batch_size)
        last = rest // self.world if even else (rest + self.world - 1 - self.rank) // self.world
        return whole + bool(last)


ALONE = ProcessShard()


class Order(ABC):
    """Order of the rows in an epoch: a function of seed and epoch alone, so that any epoch can be repeated.

    Subclasses are final.
    """

    def __init__(self, *, shuffle: bool, seed: int) -> None:
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    @abstractmethod
    def __call__(self) -> Any:
        """Return the order of the current epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def generator(self) -> np.random.Generator:
        """Return a new random generator for the current epoch."""
        return np.random.default_rng((self.seed, self.epoch))


OrderT = TypeVar("OrderT", bound=Order)
PartT = TypeVar("PartT")
BatchT = TypeVar("BatchT")


class Loader(ABC, Generic[OrderT, PartT, BatchT]):
    """Loader that can resume in the middle of an epoch.

    Its state, which Lightning saves in checkpoints, is the epoch and the number of its batches already returned: a run
    resumed in the middle of an epoch gets the remaining batches, unchanged. Subclasses are final.

    Args:
        order: of the rows.
        shard: the part of every batch that this process gets; a batch is that of all processes together.
    """

    def __init__(self, order: OrderT, shard: ProcessShard) -> None:
        # Lightning calls set_epoch on the attributes of these two names, which are those of torch's DataLoader.
        self.sampler = order
        self.batch_sampler = None
        self.shard = shard
        self._returned = 0
        self._skipped = (0, 0)  # epoch, and how many of its batches to skip after resuming

    @abstractmethod
    def plan(self) -> Sequence[PartT]:
        """Return this process's part of each batch of the current epoch, without empty parts."""

    @abstractmethod
    def batch(self, part: PartT) -> BatchT:
        """Build the batch of one part of the plan."""

    def __len__(self) -> int:
        return len(self.plan())

    def __iter__(self) -> Iterator[BatchT]:
        plan = self.plan()
        epoch, batches = self._skipped
        self._returned = batches if epoch == self.sampler.epoch and batches < len(plan) else 0
        self._skipped = (0, 0)
        for part in plan[self._returned :]:
            self._returned += 1
            yield self.batch(part)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of its batches already returned."""
        return {"epoch": self.sampler.epoch, "batches": self._returned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state` if its epoch is iterated next; any other epoch starts at its first batch."""
        self._skipped = (int(state["epoch"]), int(state["batches"]))


def shard_of(trainer: Trainer | None) -> ProcessShard:
    """Return the shard of the process in which a data module's trainer runs."""
    return ALONE if trainer is None else ProcessShard(trainer.global_rank, trainer.world_size)
