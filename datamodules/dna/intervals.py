"""Intervals on a genome."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Intervals(NamedTuple):
    """Intervals on a genome, 0-based and half-open: `start` is the first base, `end` the one after the last."""

    regions: NDArray[np.str_]  # (n,): chromosomes or transcripts
    starts: NDArray[np.int64]  # (n,)
    ends: NDArray[np.int64]  # (n,)
    minus: NDArray[np.bool_]  # (n,): read from the reverse strand

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of bases of each interval, (n,)."""
        return self.ends - self.starts

    @property
    def overlapping(self) -> NDArray[np.bool_]:
        """Whether each interval overlaps another one, on either strand, (n,)."""
        before = min(0, int(self.starts.min(initial=0)))  # windows may start before base 0 of their chromosome
        region = np.unique(self.regions, return_inverse=True)[1] * (int(self.ends.max(initial=0)) - before)
        order = np.argsort(region + self.starts, kind="stable")
        starts, ends = (region + self.starts)[order], (region + self.ends)[order]
        found = np.zeros(len(order), dtype=np.bool_)
        found[1:] = starts[1:] < np.maximum.accumulate(ends)[:-1]  # with an interval that starts before
        found[:-1] |= starts[1:] < ends[:-1]  # with the next one
        mask = np.empty_like(found)
        mask[order] = found
        return mask

    @classmethod
    def joined(cls, parts: Sequence["Intervals"]) -> "Intervals":
        """Concatenate the intervals of `parts`."""
        return cls(
            np.concatenate([part.regions for part in parts]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
            np.concatenate([part.minus for part in parts]),
        )

    def take(self, index: NDArray[np.int64]) -> "Intervals":
        """The intervals `index`, in that order."""
        return Intervals(self.regions[index], self.starts[index], self.ends[index], self.minus[index])
