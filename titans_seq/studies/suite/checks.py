"""Checks of a suite's file, whose errors are one line with the file and the key."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from titans_seq.errors import InputError


def check_labels(source: str, axis: str, labels: set[str], axes: Mapping[str, tuple[str, ...]]) -> None:
    """Raise InputError unless `axis` is one of `axes` and all `labels` belong to it."""
    check_name(source, axis, axes)
    for label in sorted(labels):
        check_name(source, label, axes[axis], what=f"label of {axis}")


def check_name(source: str, name: str, known: Iterable[str], what: str = "axis") -> None:
    """Raise InputError, suggesting the closest name, unless `name` is one of `known`."""
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"{source}: unknown {what} {name!r}; {hint}accepted: {', '.join(known) or 'none'}")


def check_keys(
    path: Path, where: str, content: Mapping[Any, Any], known: Sequence[str], required: Sequence[str]
) -> None:
    """Raise InputError for an unknown or a missing key."""
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(
                f"{path}: {where}{'.' * bool(where)}{key}: no such key; {hint}accepted: {', '.join(known)}"
            )
    for key in required:
        if key not in content:
            raise InputError(f"{path}: {where}{'.' * bool(where)}{key}: is missing")


def as_mapping(path: Path, where: str, value: Any) -> dict[Any, Any]:
    """Return `value`; raise InputError unless it is a mapping that is not empty."""
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: {where}: must be a mapping, key: value")
    return value


def as_list(path: Path, where: str, value: Any) -> list[Any]:
    """Return `value`, with None as an empty list; raise InputError unless it is a list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: {where}: must be a list")
    return value


def as_texts(path: Path, where: str, value: Any) -> dict[str, str]:
    """Return `value`, a mapping or None, with keys and values as text."""
    return {} if value is None else {str(key): str(text) for key, text in as_mapping(path, where, value).items()}
