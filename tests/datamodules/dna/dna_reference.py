"""Letter-by-letter reference implementations for the vectorised DNA code, and helpers that write small DNA files."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from titans_seq.errors import InputError

OPPOSITE = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
TOKEN = {"A": 0, "C": 1, "G": 2, "T": 3, "N": 4}
PADDING = 5


def slow_encode(text: str) -> list[int]:
    return [TOKEN[letter] if letter in TOKEN else TOKEN["N"] for letter in text.upper()]


def slow_reverse_complement(text: str) -> str:
    return "".join(OPPOSITE[letter] for letter in reversed(text))


def random_dna(lengths: Iterable[int], seed: int = 0, letters: str = "ACGT") -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), length)) for length in lengths]


def place(row: int) -> str:
    return f"row {row}"


def refused(call: Callable[[], object]) -> str:
    """Return the one-line message of the `InputError` that `call` must raise."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def write_fasta(path: Path, records: dict[str, str], width: int = 7) -> Path:
    """Write a FASTA file with lines of `width` bases; return its path."""
    lines = []
    for header, text in records.items():
        lines += [f">{header}", *(text[i : i + width] for i in range(0, len(text), width))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_csv(path: Path, header: str, rows: Iterable[tuple[object, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path
