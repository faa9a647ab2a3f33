"""Writes docs/configuration.md: every key, read off the dataclasses of `titans_seq.schema` and their comments.

python docs/make_configuration.py
"""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from titans_seq.schema import SCHEMAS, Config

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """\
# Configuration

Every key of a configuration file, generated from the schema by `python docs/make_configuration.py`. Files are merged
from left to right, then `key=value` overrides are applied (`model.memory.depth=2`, `data.target=[load,price]`); the key
`extends` of a file names the files that it builds on. `titans-seq show-config FILE key=value` prints the resolved
configuration. The key `task.name` selects the schema: keys that differ between tasks are listed in a separate section
for each task.
"""


def comments(kind: type) -> dict[str, str]:
    """What is written beside, or else right above, each field of a dataclass."""
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


def default(f: "Field[Any]") -> str:
    """As it is written in YAML."""
    value = f.default_factory() if f.default_factory is not MISSING else f.default
    if value is None or value is MISSING:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if value == "" else str(value).replace("'", "")


def accepted(f: "Field[Any]") -> str:
    """Type and bounds, as a reader would say them."""
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


def table(kind: type, own: bool, prefix: str) -> list[str]:
    """Rows of a section's keys; with `own` only those that it does not share, as they stand, with other tasks."""
    shared = [base for base in kind.__mro__[1:] if is_dataclass(base) and base.__module__ == Config.__module__]
    inherited = {(f.name, default(f)) for base in shared for f in fields(base)}
    lineage = [each for each in reversed(kind.__mro__) if is_dataclass(each)]
    texts = {name: text for each in lineage for name, text in comments(each).items() if text}
    rows = []
    for f in fields(kind):
        value = f.default_factory() if f.default_factory is not MISSING else f.default
        if is_dataclass(value) or (own and (f.name, default(f)) in inherited and f.name != "name"):
            continue
        rows.append(f"| `{prefix}{f.name}` | {accepted(f)} | `{default(f)}` | {texts.get(f.name, '')} |")
    return ["| key | accepted values | default | description |", "|---|---|---|---|", *rows, ""] if rows else []


def sections(kind: type, own: bool, prefix: str = "") -> Iterator[str]:
    """The tables of a schema's sections, each under its name."""
    rows = table(kind, own, prefix)
    if rows and prefix:
        yield from (f"### {prefix[:-1]}", "", f"{inspect.getdoc(kind)}".partition("\n")[0], "")
    yield from rows
    for f in fields(kind):
        if f.default_factory is not MISSING and is_dataclass(inner := f.default_factory()):
            shared = own and any(f.name == g.name and g.type == f.type for g in fields(kind.__mro__[1]))
            if not shared:
                yield from sections(type(inner), own, f"{prefix}{f.name}.")


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## Keys of all tasks", "", *sections(Config, own=False)]
    for name, schema in SCHEMAS.items():
        lines += [f"## task.name={name}", "", *sections(schema, own=True)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
