"""Intervals on a genome."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Intervals(NamedTuple):
    """Places on a genome, 0-based and half-open: `start` is the first base, `end` the first one after."""

    regions: NDArray[np.str_]  # (n,): chromosomes or transcripts
    starts: NDArray[np.int64]  # (n,)
    ends: NDArray[np.int64]  # (n,)
    minus: NDArray[np.bool_]  # (n,): read from the reverse strand

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bases of each, (n,)."""
        return self.ends - self.starts

    @property
    def overlapping(self) -> NDArray[np.bool_]:
        """Which share a base with another, on either strand, (n,)."""
        before = min(0, int(self.starts.min(initial=0)))  # windows may begin before their chromosome does
        region = np.unique(self.regions, return_inverse=True)[1] * (int(self.ends.max(initial=0)) - before)
        order = np.argsort(region + self.starts, kind="stable")
        starts, ends = (region + self.starts)[order], (region + self.ends)[order]
        found = np.zeros(len(order), dtype=np.bool_)
        found[1:] = starts[1:] < np.maximum.accumulate(ends)[:-1]  # one that begins before
        found[:-1] |= starts[1:] < ends[:-1]  # the next one
        mask = np.empty_like(found)
        mask[order] = found
        return mask

    @classmethod
    def joined(cls, parts: Sequence["Intervals"]) -> "Intervals":
        """All intervals of `parts`, one after another."""
        return cls(
            np.concatenate([part.regions for part in parts]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
            np.concatenate([part.minus for part in parts]),
        )

    def take(self, index: NDArray[np.int64]) -> "Intervals":
        """The intervals `index`, in that order."""
        return Intervals(self.regions[index], self.starts[index], self.ends[index], self.minus[index])
