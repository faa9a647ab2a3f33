"""DNA tokenizer: one token per base, looked up a byte at a time over all sequences at once.

Lower case (soft-masked repeats) is read as upper case. IUPAC ambiguity codes become N and are counted. Any other letter
raises an error that gives its position; so does RNA's U unless `rna` is set.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_seq.batch import BASES, COMPLEMENT, PAD_TOKEN
from titans_seq.errors import InputError

Tokens = NDArray[np.uint8]

_AMBIGUOUS = "RYSWKMBDHV"  # IUPAC's ambiguity codes besides N: two or three possible bases each
_IS_AMBIGUOUS, _IS_NO_BASE = 254, 255  # markers in the tables below
_N = BASES.index("N")
_BLOCK_TEXTS, _BLOCK_LETTERS = 1 << 10, 1 << 20


def _table(extra: str = "") -> bytes:
    """Lookup table from bytes to tokens; `extra` pairs further letters with bases, as in "UT"."""
    table = np.full(256, _IS_NO_BASE, dtype=np.uint8)
    pairs = [(base, token) for token, base in enumerate(BASES)]
    pairs += [(code, _IS_AMBIGUOUS) for code in _AMBIGUOUS]
    pairs += [(letter, BASES.index(base)) for letter, base in zip(extra[::2], extra[1::2], strict=True)]
    for letter, token in pairs:
        table[[ord(letter), ord(letter.lower())]] = token
    return table.tobytes()


_DNA, _RNA = _table(), _table("UT")
_COMPLEMENTS = np.array(COMPLEMENT, dtype=np.uint8)
_LETTERS = np.frombuffer((BASES + "." * (256 - len(BASES))).encode(), dtype=np.uint8)


class Encoded(NamedTuple):
    """Many sequences, concatenated."""

    tokens: Tokens  # (total,)
    lengths: NDArray[np.int64]  # (n,)
    ambiguous: int  # letters that became N


def encode(texts: Sequence[str], locate: Callable[[int], str], *, rna: bool = False) -> Encoded:
    """Encode `texts` as tokens.

    Args:
        texts: the sequences, none of them empty.
        locate: returns the location of sequence `i`, for messages: `train.csv: line 7`.
        rna: read U as T.

    Raises InputError for an empty sequence, and for letters that are not bases; the message gives the first one, its
    position, and how many there are.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    if not lengths.all():
        row = int(lengths.argmin())
        raise InputError(f"{locate(row)}: no sequence; {np.count_nonzero(lengths == 0)} rows have none. Remove them.")
    tokens = _look_up(texts, int(lengths.sum()), _RNA if rna else _DNA)
    highest = tokens.max(initial=0)
    if highest == _IS_NO_BASE:
        _raise_not_dna(texts, lengths, tokens, locate)
    if highest < _IS_AMBIGUOUS:
        return Encoded(tokens, lengths, 0)
    ambiguous = tokens == _IS_AMBIGUOUS
    return Encoded(np.where(ambiguous, np.uint8(_N), tokens), lengths, int(np.count_nonzero(ambiguous)))


def decode(tokens: Tokens) -> str:
    """Return the letters of `tokens` (T,), without padding.

    Raises ValueError for a token that is not a base.
    """
    bases = tokens[tokens != PAD_TOKEN]
    if bases.max(initial=0) >= len(BASES):
        raise ValueError(f"tokens must be below {len(BASES)} or {PAD_TOKEN} (padding); got {bases.max()}")
    return str(_LETTERS[bases].tobytes(), "ascii")


def complement(tokens: Tokens) -> Tokens:
    """Complement each base, in the same order; N and padding stay."""
    return _COMPLEMENTS[tokens]


def reverse_complement(tokens: Tokens) -> Tokens:
    """Reverse complement of `tokens` (..., T)."""
    return complement(tokens[..., ::-1])


def _look_up(texts: Sequence[str], total: int, table: bytes) -> Tokens:
    """Table entry of every letter, (total,)."""
    tokens = np.empty(total, dtype=np.uint8)
    done = 0
    for first in range(0, len(texts), _BLOCK_TEXTS):
        block = "".join(texts[first : first + _BLOCK_TEXTS])
        for start in range(0, len(block), _BLOCK_LETTERS):
            # One byte for any character, so that positions are kept. `translate` is ten times as fast as numpy's
            # indexing, and twice as fast on blocks that stay in the cache as on all letters at once.
            letters = block[start : start + _BLOCK_LETTERS].encode("latin-1", "replace")
            tokens[done : done + len(letters)] = np.frombuffer(letters.translate(table), dtype=np.uint8)
            done += len(letters)
    assert done == total
    return tokens


def _raise_not_dna(
    texts: Sequence[str], lengths: NDArray[np.int64], tokens: Tokens, locate: Callable[[int], str]
) -> None:
    wrong = np.flatnonzero(tokens == _IS_NO_BASE)
    ends = np.cumsum(lengths)
    rows = np.searchsorted(ends, wrong, side="right")
    row = int(rows[0])
    base = int(wrong[0] - (ends[row] - lengths[row]))
    letter = texts[row][base]
    hint = " For RNA, set data.rna=true: it reads U as T." if letter in "Uu" else ""
    raise InputError(
        f"{locate(row)}: {letter!r} at base {base + 1} is not a DNA letter (A, C, G, T, N or another IUPAC code, in "
        f"either case); {len(wrong)} such letters in {len(np.unique(rows))} sequences.{hint}"
    )
