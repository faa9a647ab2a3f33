"""Where an epoch stands, and whose part of it a process takes: the same for every loader of ours."""

from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Share(NamedTuple):
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


ALONE = Share()


class Position:
    """How many batches of an epoch are to be skipped when it is iterated next: where a resumed training stands."""

    def __init__(self) -> None:
        self.epoch, self.batches = 0, 0

    def take(self, epoch: int, count: int) -> int:
        """The batches of `epoch`, which has `count`, to skip; the position is used up."""
        skipped = self.batches if epoch == self.epoch and self.batches < count else 0
        self.epoch, self.batches = 0, 0
        return skipped

    def load(self, state: dict[str, Any]) -> None:
        """From what a loader's `state_dict` said."""
        self.epoch, self.batches = int(state["epoch"]), int(state["batches"])


def share_of(trainer: Trainer | None) -> Share:
    """The share of the process that a data module's trainer runs in."""
    return ALONE if trainer is None else Share(trainer.global_rank, trainer.world_size)
