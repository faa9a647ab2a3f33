"""Names from outside in a message of one line: printable, and no more of them than help."""

import difflib
from collections.abc import Iterable, Sequence

_LONGEST = 60


def listed(names: Iterable[str], most: int = 20) -> str:
    """The first `most` names, separated by commas, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(_printable, every[:most])) + more


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`did you mean 'x'? ` where one of the known names is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def ambiguous_note(name: object, letters: int) -> tuple[str, ...]:
    """How many letters of `name` became N when they were read; nothing where none did."""
    return (f"{name}: {letters:,} IUPAC letters other than A, C, G, T, N were read as N",) if letters else ()


def _printable(name: str) -> str:
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
