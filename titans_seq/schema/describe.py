"""Descriptions of the configuration keys (accepted values, default, meaning) from the dataclasses and comments."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin


class KeyDescription(NamedTuple):
    """One key of a configuration."""

    name: str  # in full, such as model.dim
    accepted: str  # type and bounds
    default: str  # as YAML
    meaning: str


def describe_section(kind: type, prefix: str = "") -> list[KeyDescription]:
    """Return the keys of a section, without those of nested sections."""
    texts = _meanings(kind)
    return [
        KeyDescription(f"{prefix}{f.name}", accepted_values(f), default_text(f), texts.get(f.name, ""))
        for f in fields(kind)
        if inner_section(f) is None
    ]


def describe_keys(kind: type, prefix: str = "") -> Iterator[KeyDescription]:
    """Yield the keys of a configuration or section, then those of its nested sections."""
    yield from describe_section(kind, prefix)
    for f in fields(kind):
        if inner := inner_section(f):
            yield from describe_keys(inner, f"{prefix}{f.name}.")


def inner_section(f: "Field[Any]") -> type | None:
    """Return the class of a field that is a section, None for a key."""
    if f.default_factory is not MISSING and is_dataclass(value := f.default_factory()):
        return type(value)
    return None


def default_text(f: "Field[Any]") -> str:
    """Return the default of a key as YAML."""
    value = f.default_factory() if f.default_factory is not MISSING else f.default
    if value is None or value is MISSING:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if value == "" else str(value).replace("'", "")


def accepted_values(f: "Field[Any]") -> str:
    """Return type and bounds of a key in plain English, with choices in backquotes."""
    optional = type(None) in get_args(f.type)
    kinds = [kind for kind in get_args(f.type) if kind is not type(None)] if optional else [f.type]
    text = ", ".join(_words(kind) for kind in kinds) + (", null" if optional else "")
    low, high = f.metadata.get("low"), f.metadata.get("high")
    if low is not None:
        text += f", {low} to {high}" if high is not None else f", at least {low}"
    return text


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_words(get_args(kind)[0])}"
    return {int: "integer", float: "number", str: "text", bool: "true, false"}.get(kind, "any type")


def _meanings(kind: type) -> dict[str, str]:
    """Return the comments of a section's keys; its own take precedence over those of its base classes."""
    lineage = [each for each in reversed(kind.__mro__) if is_dataclass(each)]
    return {name: text for each in lineage for name, text in _comments(each).items() if text}


@cache
def _comments(kind: type) -> dict[str, str]:
    """Return the comment at the end of the line of each field of a dataclass, or else the one right above it."""
    source = textwrap.dedent(inspect.getsource(kind))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    lines = source.splitlines()
    alone = {n for n in by_line if lines[n - 1].lstrip().startswith("#")}
    found = {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        last = node.end_lineno or node.lineno
        beside = [n for n in range(node.lineno, last + 1) if n in by_line and n not in alone]
        above = list(_above(node.lineno, alone))
        text = " ".join(by_line[n].string.lstrip("# ") for n in [*above[::-1], *beside])
        found[node.target.id] = text
    return found


def _above(line: int, alone: set[int]) -> Iterator[int]:
    while (line := line - 1) in alone:
        yield line
