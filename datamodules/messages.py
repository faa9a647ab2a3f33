"""Names from outside in a message of one line: printable, and no more of them than help."""

from collections.abc import Iterable

_LONGEST = 60


def shown(names: Iterable[str], most: int = 20) -> str:
    """The first `most` names, separated by commas, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(_printable, every[:most])) + more


def _printable(name: str) -> str:
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
