"""Write docs/configuration.md: every key, from the dataclasses of `titans_seq.schema` and their comments.

python docs/make_configuration.py
"""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from titans_seq.schema import SCHEMAS, Config
from titans_seq.schema.describe import default_text, describe_section, inner_section

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """\
# Configuration

Every key of a configuration file, generated from the schema by `python docs/make_configuration.py`. Files are merged
from left to right, then `key=value` overrides are applied (`model.memory.depth=2`, `data.target=[load,price]`); the key
`extends` of a file names the files that it builds on. `titans-seq show-config FILE key=value` prints the resolved
configuration. The key `task.name` selects the schema: keys that differ between tasks are listed in a separate section
for each task.
"""


def table(kind: type, own: bool, prefix: str) -> list[str]:
    """Return a table row per key of a section; with `own`, only keys that are not identical in all tasks."""
    shared = [base for base in kind.__mro__[1:] if is_dataclass(base) and base.__module__ == Config.__module__]
    inherited = {(f.name, default_text(f)) for base in shared for f in fields(base)}
    rows = []
    for key in describe_section(kind, prefix):
        name = key.name.removeprefix(prefix)
        if not (own and (name, key.default) in inherited and name != "name"):
            rows.append(f"| `{key.name}` | {key.accepted} | `{key.default}` | {key.meaning} |")
    return ["| key | accepted values | default | description |", "|---|---|---|---|", *rows, ""] if rows else []


def sections(kind: type, own: bool, prefix: str = "") -> Iterator[str]:
    """Yield the tables of a schema's sections, each under its name."""
    rows = table(kind, own, prefix)
    if rows and prefix:
        yield from (f"### {prefix[:-1]}", "", f"{inspect.getdoc(kind)}".partition("\n")[0], "")
    yield from rows
    for f in fields(kind):
        if inner := inner_section(f):
            shared = own and any(f.name == g.name and g.type == f.type for g in fields(kind.__mro__[1]))
            if not shared:
                yield from sections(inner, own, f"{prefix}{f.name}.")


def page() -> str:
    """Return the whole page."""
    lines = [HEAD, "## Keys of all tasks", "", *sections(Config, own=False)]
    for name, schema in SCHEMAS.items():
        lines += [f"## task.name={name}", "", *sections(schema, own=True)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
