"""Formatting of user-supplied names in one-line messages: printable and of limited length."""

import difflib
from collections.abc import Iterable, Sequence

_LONGEST = 60


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return the first `most` names, separated by commas, and the number of the others."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(_printable, every[:most])) + more


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return `did you mean 'x'? ` if one of the known names is close, else an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def ambiguous_note(name: object, letters: int) -> tuple[str, ...]:
    """Return a note on how many letters of `name` were read as N, or nothing if there were none."""
    return (f"{name}: {letters:,} IUPAC letters other than A, C, G, T, N were read as N",) if letters else ()


def _printable(name: str) -> str:
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
