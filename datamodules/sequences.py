"""Many sequences of unequal lengths in one array, padded only when a batch is cut."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.dna import Tokens, complement, decode, encode
from titans_seq.batch import PAD_TOKEN

Side = Literal["left", "right"]


class Sequences:
    """Token sequences end to end: one byte a base, no padding, no object per sequence.

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
    def read(cls, texts: Sequence[str], place: Callable[[int], str], *, rna: bool = False) -> "Sequences":
        """From letters, see `dna.encode`."""
        return cls(*encode(texts, place, rna=rna))

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
        """The sequence that each token belongs to, (total,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, index: NDArray[np.int64]) -> "Sequences":
        """The sequences `index` (m,), in that order."""
        lengths = self.lengths[index]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Sequences(self.tokens[np.repeat(self.starts[index], lengths) + within], lengths)

    def other_strand(self, which: NDArray[np.bool_] | None = None) -> "Sequences":
        """With the sequences `which` (n,), all if None, replaced by their reverse complements."""
        rows = self.rows()
        last = 2 * self.starts + self.lengths - 1
        mirrored = complement(self.tokens[last[rows] - np.arange(len(rows))])
        tokens = mirrored if which is None else np.where(which[rows], mirrored, self.tokens)
        return Sequences(tokens, self.lengths, self.ambiguous)

    def padded(
        self,
        index: NDArray[np.int64],
        *,
        max_length: int | None = None,
        side: Side = "right",
        other_strand: NDArray[np.bool_] | None = None,
    ) -> tuple[Tokens, NDArray[np.bool_]]:
        """Tokens and mask, both (B, T), of sequences `index` (B,), T the longest of them.

        Longer ones than `max_length` lose their end, after the rows `other_strand` (B,) have been replaced by their
        reverse complements: the order of the published recipes. `side` is where the padding goes.
        """
        full = self.lengths[index]
        lengths = full if max_length is None else np.minimum(full, max_length)
        width = int(lengths.max(initial=0))
        column = np.arange(width)
        if side == "left":
            position = column - (width - lengths)[:, None]
            mask = position >= 0
        else:
            position = np.broadcast_to(column, (len(index), width))
            mask = position < lengths[:, None]
        if other_strand is not None:
            position = np.where(other_strand[:, None], full[:, None] - 1 - position, position)
        # Padding reads its row's first base, which is always there, and is overwritten.
        tokens = self.tokens[self.starts[index][:, None] + np.where(mask, position, 0)]
        if other_strand is not None:
            tokens[other_strand] = complement(tokens[other_strand])
        tokens[~mask] = PAD_TOKEN
        return tokens, mask


def joined_sequences(parts: Sequence[Sequences]) -> Sequences:
    """All sequences of `parts`, one after another."""
    tokens, lengths = (np.concatenate([getattr(part, field) for part in parts]) for field in ("tokens", "lengths"))
    return Sequences(tokens, lengths, sum(part.ambiguous for part in parts))
