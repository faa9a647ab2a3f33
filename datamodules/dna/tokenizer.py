"""DNA as tokens: one per base, looked up a byte at a time over all sequences at once.

Lower case (soft-masked repeats) is read as upper case. IUPAC's codes for several possible bases become N and are
counted. Anything else is refused with its place; so is RNA's U, unless asked for.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_seq.batch import BASES, COMPLEMENT, PAD_TOKEN
from titans_seq.errors import InputError

Tokens = NDArray[np.uint8]

_AMBIGUOUS = "RYSWKMBDHV"  # IUPAC's other codes: two or three possible bases each
_IS_AMBIGUOUS, _IS_NO_BASE = 254, 255  # marks of the tables below
_N = BASES.index("N")
_BLOCK_TEXTS, _BLOCK_LETTERS = 1 << 10, 1 << 20


def _table(extra: str = "") -> bytes:
    """Token of every byte; `extra` pairs further letters with bases, as in "UT"."""
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
    """Many sequences end to end."""

    tokens: Tokens  # (total,)
    lengths: NDArray[np.int64]  # (n,)
    ambiguous: int  # letters that became N


def encode(texts: Sequence[str], place: Callable[[int], str], *, rna: bool = False) -> Encoded:
    """Tokens of all `texts`.

    Args:
        texts: the sequences, none of them empty.
        place: says where sequence `i` stands, for messages: `train.csv: line 7`.
        rna: read U as T.

    Raises InputError with the first letter that is no base, its place, and how many there are.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    if not lengths.all():
        row = int(lengths.argmin())
        raise InputError(f"{place(row)}: no sequence; {np.count_nonzero(lengths == 0)} rows have none. Remove them.")
    tokens = _look_up(texts, int(lengths.sum()), _RNA if rna else _DNA)
    highest = tokens.max(initial=0)
    if highest == _IS_NO_BASE:
        _refuse(texts, lengths, tokens, place)
    if highest < _IS_AMBIGUOUS:
        return Encoded(tokens, lengths, 0)
    ambiguous = tokens == _IS_AMBIGUOUS
    return Encoded(np.where(ambiguous, np.uint8(_N), tokens), lengths, int(np.count_nonzero(ambiguous)))


def decode(tokens: Tokens) -> str:
    """The letters of `tokens` (T,), padding left out.

    Raises ValueError for a token that stands for no base.
    """
    bases = tokens[tokens != PAD_TOKEN]
    if bases.max(initial=0) >= len(BASES):
        raise ValueError(f"tokens must be below {len(BASES)} or {PAD_TOKEN} (padding); got {bases.max()}")
    return str(_LETTERS[bases].tobytes(), "ascii")


def complement(tokens: Tokens) -> Tokens:
    """The base opposite each, in the same order; N and padding stay."""
    return _COMPLEMENTS[tokens]


def reverse_complement(tokens: Tokens) -> Tokens:
    """The other strand of `tokens` (..., T), read in its own direction."""
    return complement(tokens[..., ::-1])


def _look_up(texts: Sequence[str], total: int, table: bytes) -> Tokens:
    """The table's entry for every letter, (total,)."""
    tokens = np.empty(total, dtype=np.uint8)
    done = 0
    for first in range(0, len(texts), _BLOCK_TEXTS):
        block = "".join(texts[first : first + _BLOCK_TEXTS])
        for start in range(0, len(block), _BLOCK_LETTERS):
            # One byte a character, whatever it is, so that places stay. `translate` is ten times as fast as numpy's
            # indexing, and twice as fast on blocks that stay in the cache as on all letters at once.
            letters = block[start : start + _BLOCK_LETTERS].encode("latin-1", "replace")
            tokens[done : done + len(letters)] = np.frombuffer(letters.translate(table), dtype=np.uint8)
            done += len(letters)
    assert done == total
    return tokens


def _refuse(texts: Sequence[str], lengths: NDArray[np.int64], tokens: Tokens, place: Callable[[int], str]) -> None:
    wrong = np.flatnonzero(tokens == _IS_NO_BASE)
    ends = np.cumsum(lengths)
    rows = np.searchsorted(ends, wrong, side="right")
    row = int(rows[0])
    base = int(wrong[0] - (ends[row] - lengths[row]))
    letter = texts[row][base]
    hint = " Is it RNA? data.rna=true reads U as T." if letter in "Uu" else ""
    raise InputError(
        f"{place(row)}: {letter!r} at base {base + 1} is no DNA letter (A, C, G, T, N or another IUPAC code, either "
        f"case); {len(wrong)} such letters in {len(np.unique(rows))} sequences.{hint}"
    )
