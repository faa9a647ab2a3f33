"""Class names and numbers: sorted by name, taken from the training rows, the same for every split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from titans_seq.errors import InputError

_FEW = 20  # classes that are accepted even with a single row each


class Classes(NamedTuple):
    """Names of the classes; the number of a class is its index."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str | None], source: str) -> "Classes":
        """Classes that occur in `labels`: whole numbers in numerical order, other names in code point order.

        Raises InputError if there are fewer than two; `source` is the file of the labels, for the message.
        """
        names = {label for label in labels if label}
        if len(names) < 2:
            found = f"only {names.pop()!r}" if names else "none"
            raise InputError(f"{source}: found {found} among {len(labels)} labels; at least two classes are required")
        numeric = all(name.removeprefix("-").isascii() and name.removeprefix("-").isdigit() for name in names)
        return cls(tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name))))

    def check_few(self, rows: int, source: str) -> None:
        """Raise InputError for more than 20 classes and more than half the rows: likely names or measurements."""
        if len(self.names) > max(_FEW, rows / 2):
            raise InputError(
                f"{source}: {len(self.names):,} classes among {rows:,} labels: {listed(self.names, 3)}. Check that "
                "data.label is the column of the classes, or that data.header_label matches them in the headers."
            )

    def numbers(self, labels: Sequence[str | None], locate: Callable[[int], str]) -> NDArray[np.int64]:
        """Class numbers of `labels`, (n,); `locate` returns the location of label `i`, for messages.

        Raises InputError for a missing label and for an unknown class.
        """
        numbers = pl.Series(labels, dtype=pl.String).replace_strict(
            list(self.names), list(range(len(self.names))), default=None, return_dtype=pl.Int64
        )
        if not numbers.null_count():
            return numbers.to_numpy()
        wrong = np.flatnonzero(numbers.is_null().to_numpy()).tolist()
        row = wrong[0]
        if not labels[row]:
            raise InputError(
                f"{locate(row)}: no label; {len(wrong)} rows have no label or an unknown one. Remove or label them."
            )
        unseen = sorted({labels[i] or "(empty)" for i in wrong})
        raise InputError(
            f"{locate(row)}: class {labels[row]!r} is not a training class ({listed(self.names)}); "
            f"{len(wrong)} rows of {listed(unseen)}. Remove them, or add examples to the training rows."
        )
