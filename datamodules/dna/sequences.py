"""Many sequences of different lengths in one array, padded only when a batch is made."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.tokenizer import Tokens, complement, decode, encode
from titans_seq.batch import PAD_TOKEN

Side = Literal["left", "right"]

_RUN = 1 << 22  # bases processed at a time


class Sequences:
    """Concatenated token sequences: one byte per base, no padding, no object per sequence.

    Args:
        tokens: all sequences one after another, (total,) uint8.
        lengths: their lengths, (n,).
        ambiguous: how many letters became N when they were read.
    """

    def __init__(self, tokens: Tokens, lengths: NDArray[np.int64], ambiguous: int = 0) -> None:
        self.tokens = tokens
        self.lengths = lengths
        self.ambiguous = ambiguous
        self.starts = np.cumsum(lengths) - lengths
        assert len(tokens) == lengths.sum()

    @classmethod
    def read(cls, texts: Sequence[str], locate: Callable[[int], str], *, rna: bool = False) -> "Sequences":
        """Encode sequences of letters; see `tokenizer.encode`."""
        return cls(*encode(texts, locate, rna=rna))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Tokens:
        """Tokens of one sequence, (length,); a view."""
        start = self.starts[row]
        return self.tokens[start : start + self.lengths[row]]

    def texts(self) -> list[str]:
        """The letters of every sequence."""
        letters, ends = decode(self.tokens), np.cumsum(self.lengths)
        return [letters[start:end] for start, end in zip(self.starts.tolist(), ends.tolist(), strict=True)]

    def rows(self) -> NDArray[np.int64]:
        """Row of the sequence that each token belongs to, (total,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, index: NDArray[np.int64], *, max_length: int | None = None) -> "Sequences":
        """The sequences `index` (m,), in that order, each truncated to its first `max_length` bases."""
        lengths = self.lengths[index]
        if max_length is not None:
            lengths = np.minimum(lengths, max_length)
        taken = Sequences(np.empty(lengths.sum(), dtype=np.uint8), lengths)
        for rows in runs(lengths):  # in runs, since indices of bases need far more memory than bases
            sizes, first = lengths[rows], taken.starts[rows.start]
            shifts = self.starts[index[rows]] - (taken.starts[rows] - first)
            where = np.arange(sizes.sum()) + np.repeat(shifts, sizes)
            taken.tokens[first : first + len(where)] = self.tokens[where]
        return taken

    def reverse_complement(self) -> "Sequences":
        """Reverse complements of all sequences, in reverse order."""
        return Sequences(complement(self.tokens[::-1]), self.lengths[::-1], self.ambiguous)

    def padded(
        self,
        index: NDArray[np.int64],
        *,
        max_length: int | None = None,
        side: Side = "right",
        reverse: NDArray[np.bool_] | None = None,
    ) -> tuple[Tokens, NDArray[np.bool_]]:
        """Return tokens and mask, both (B, T), of sequences `index` (B,); T is the length of the longest.

        Sequences longer than `max_length` are truncated at their end; then the rows where `reverse` (B,) is True are
        replaced by their reverse complements, so that both strands cover the same bases. `side` is the padded side.
        """
        lengths = self.lengths[index]
        if max_length is not None:
            lengths = np.minimum(lengths, max_length)
        width = int(lengths.max(initial=0))
        column = np.arange(width)
        if side == "left":
            position = column - (width - lengths)[:, None]
            mask = position >= 0
        else:
            position = np.broadcast_to(column, (len(index), width))
            mask = position < lengths[:, None]
        if reverse is not None:
            position = np.where(reverse[:, None], lengths[:, None] - 1 - position, position)
        # Padding reads the first base of its row, which always exists, and is overwritten below.
        tokens = self.tokens[self.starts[index][:, None] + np.where(mask, position, 0)]
        if reverse is not None:
            tokens[reverse] = complement(tokens[reverse])
        tokens[~mask] = PAD_TOKEN
        return tokens, mask


def runs(lengths: NDArray[np.int64]) -> list[slice]:
    """Slices of consecutive whole sequences of `lengths` (n,), of about `_RUN` bases each."""
    firsts = np.flatnonzero(np.diff((np.cumsum(lengths) - lengths) // _RUN, prepend=-1)).tolist()
    return [slice(first, end) for first, end in pairwise([*firsts, len(lengths)])]


def joined_sequences(parts: Sequence[Sequences]) -> Sequences:
    """Concatenate the sequences of `parts`."""
    tokens, lengths = (np.concatenate([getattr(part, field) for part in parts]) for field in ("tokens", "lengths"))
    return Sequences(tokens, lengths, sum(part.ambiguous for part in parts))
