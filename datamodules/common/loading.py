"""The epochs of every loader of ours: their order, where a resumed one stands, and whose part a process takes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class ProcessShard(NamedTuple):
    """One of several processes that share every batch."""

    rank: int = 0
    world: int = 1

    def of_batch(self, rows: Rows, *, even: bool) -> Rows:
        """This process's part of a batch (B,): a contiguous piece.

        With `even`, all pieces are of one length, as averaging gradients over processes needs it: up to world - 1 rows
        of an epoch's last batch are left out. Without, every row is in one of them.
        """
        if even:
            rows = rows[: len(rows) // self.world * self.world]
        return np.array_split(rows, self.world)[self.rank]

    def batches(self, rows: int, batch_size: int, *, even: bool) -> int:
        """Batches of an epoch of which this process has a part that is not empty."""
        whole, rest = divmod(rows, batch_size)
        last = rest // self.world if even else (rest + self.world - 1 - self.rank) // self.world
        return whole + bool(last)


ALONE = ProcessShard()


class Order(ABC):
    """Which rows an epoch shows when: a function of seed and epoch alone, so that any epoch can be repeated.

    Subclasses are final.
    """

    def __init__(self, *, shuffle: bool, seed: int) -> None:
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    @abstractmethod
    def __call__(self) -> Any:
        """The order of the current epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def generator(self) -> np.random.Generator:
        """That of the current epoch, at its start."""
        return np.random.default_rng((self.seed, self.epoch))


OrderT = TypeVar("OrderT", bound=Order)
PartT = TypeVar("PartT")
BatchT = TypeVar("BatchT")


class Loader(ABC, Generic[OrderT, PartT, BatchT]):
    """Batches of an epoch, which a run that was stopped goes on with where it stood.

    Its state, which Lightning keeps in checkpoints, is the epoch and how many of its batches have been given: a run
    resumed in the middle of an epoch sees the batches that were left, as they would have been. Subclasses are final.

    Args:
        order: of the rows.
        share: the part of every batch that is given here; batches are those of all processes together.
    """

    def __init__(self, order: OrderT, share: ProcessShard) -> None:
        # Under these two names, torch's own, Lightning looks for what to tell the epoch.
        self.sampler = order
        self.batch_sampler = None
        self.share = share
        self._given = 0
        self._skipped = (0, 0)  # epoch, and batches of it that are not to be given again

    @abstractmethod
    def plan(self) -> Sequence[PartT]:
        """What this process has of the current epoch's batches; those without any are left out."""

    @abstractmethod
    def batch(self, part: PartT) -> BatchT:
        """The batch of a part of the plan."""

    def __len__(self) -> int:
        return len(self.plan())

    def __iter__(self) -> Iterator[BatchT]:
        plan = self.plan()
        epoch, batches = self._skipped
        self._given = batches if epoch == self.sampler.epoch and batches < len(plan) else 0
        self._skipped = (0, 0)
        for part in plan[self._given :]:
            self._given += 1
            yield self.batch(part)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: epoch, and batches of it that have been given."""
        return {"epoch": self.sampler.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there when that epoch is iterated next; any other epoch begins at its first batch."""
        self._skipped = (int(state["epoch"]), int(state["batches"]))


def shard_of(trainer: Trainer | None) -> ProcessShard:
    """The share of the process that a data module's trainer runs in."""
    return ALONE if trainer is None else ProcessShard(trainer.global_rank, trainer.world_size)
