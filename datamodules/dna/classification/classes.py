"""Classes and their numbers: by sorted name, learnt from the training rows, the same for every split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from titans_seq.errors import InputError

_FEW = 20  # classes, which may have a row each


class Classes(NamedTuple):
    """The names of the classes; a class's number is its place."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str | None], source: str) -> "Classes":
        """The classes that occur in `labels`, whole numbers in numerical order, other names in code point order.

        Raises InputError when there are fewer than two; `source` says where the labels are from.
        """
        names = {label for label in labels if label}
        if len(names) < 2:
            found = f"only {names.pop()!r}" if names else "none"
            raise InputError(f"{source}: found {found} among {len(labels)} labels; two classes are the least to tell")
        numeric = all(name.removeprefix("-").isascii() and name.removeprefix("-").isdigit() for name in names)
        return cls(tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name))))

    def check_few(self, rows: int, source: str) -> None:
        """Raise InputError for more classes than half the rows, and than 20: names, most likely, or measurements."""
        if len(self.names) > max(_FEW, rows / 2):
            raise InputError(
                f"{source}: {len(self.names):,} classes among {rows:,} labels: {listed(self.names, 3)}. Are these the "
                "classes? data.label names their column, data.header_label finds them in headers."
            )

    def numbers(self, labels: Sequence[str | None], place: Callable[[int], str]) -> NDArray[np.int64]:
        """Class numbers of `labels`, (n,); `place` says where label `i` stands.

        Raises InputError for a missing label and for classes that are none of these.
        """
        numbers = pl.Series(labels, dtype=pl.String).replace_strict(
            list(self.names), list(range(len(self.names))), default=None, return_dtype=pl.Int64
        )
        if not numbers.null_count():
            return numbers.to_numpy()
        wrong = np.flatnonzero(numbers.is_null().to_numpy()).tolist()
        row = wrong[0]
        if not labels[row]:
            raise InputError(f"{place(row)}: no label; {len(wrong)} rows without a known one. Remove or label them.")
        unseen = sorted({labels[i] or "(empty)" for i in wrong})
        raise InputError(
            f"{place(row)}: class {labels[row]!r} is none of the training classes ({listed(self.names)}); "
            f"{len(wrong)} rows of {listed(unseen)}. Remove them, or add examples to the training rows."
        )
