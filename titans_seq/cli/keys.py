"""Command that explains the configuration keys."""

import argparse
import textwrap

from titans_seq.cli.command import Command
from titans_seq.errors import InputError
from titans_seq.schema import SCHEMAS
from titans_seq.schema.aliases import closest_key
from titans_seq.schema.describe import KeyDescription, describe_keys

WIDTH = 100  # of a line of the meaning


def keys_text(prefix: str = "", task: str | None = None) -> str:
    """Describe the keys that begin or end with `prefix`: accepted values, default and meaning.

    A key that differs between tasks is listed once per variant; `task` selects the keys of one task.
    """
    known: dict[KeyDescription, list[str]] = {}
    for name, schema in SCHEMAS.items():
        for key in describe_keys(schema):
            if task in (None, name):
                known.setdefault(key, []).append(name)
    prefix = prefix.rstrip(".=")
    chosen = [key for key in known if _is_below(key.name, prefix)]
    chosen = chosen or [key for key in known if key.name.rpartition(".")[2] == prefix]
    if not chosen:
        names = sorted({key.name for key in known} | {part for key in known for part in _sections(key.name)})
        close = closest_key(prefix, names)
        hint = f"; did you mean {close}?" if close else "; `titans-seq keys` lists all"
        raise InputError(f"keys {prefix}: no such key or section{hint}")
    order = {name: number for number, name in enumerate(dict.fromkeys(key.name for key in known))}
    everywhere = list(SCHEMAS) if task is None else [task]
    return "\n".join(
        _entry(key, [] if known[key] == everywhere else known[key])
        for key in sorted(chosen, key=lambda key: order[key.name])
    )


def _is_below(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def _sections(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _entry(key: KeyDescription, tasks: list[str]) -> str:
    accepted = key.accepted.replace("`", "")
    only = f"  [task.name={' or '.join(tasks)}]" if tasks else ""
    lines = [f"{key.name}={key.default}  ({accepted}){only}"]
    lines += textwrap.wrap(key.meaning, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    help_text = "a section or key, such as model.memory or learning_rate (default: all)"
    parser.add_argument("words", nargs="*", metavar="PREFIX", help=help_text)
    parser.add_argument("--task", choices=list(SCHEMAS), help="keys of one task only")


def _keys(options: argparse.Namespace) -> None:
    for prefix in options.words or [""]:
        print(keys_text(prefix, options.task))


KEYS = Command(
    "keys",
    "explain configuration keys: accepted values, default and meaning",
    ("keys model.memory", "keys learning_rate", "keys data --task classification"),
    _add_arguments,
    _keys,
)
