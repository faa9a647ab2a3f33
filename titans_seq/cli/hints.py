"""Error lines for unknown commands and options, with the closest known ones."""

import difflib
from collections.abc import Collection, Sequence

from titans_seq.config import flatten
from titans_seq.schema import SCHEMAS
from titans_seq.schema.aliases import closest_key

# Other tools' names for commands.
_COMMANDS = {
    "train": "fit",
    "run": "fit",
    "eval": "test",
    "evaluate": "test",
    "val": "validate",
    "infer": "predict",
    "inference": "predict",
    "config": "configs",
    "list": "configs",
    "examples": "example",
    "help": "--help",
    "version": "--version",
    "ism": "mutagenesis",
    "vcf": "variants",
}


def unknown_command(word: str, commands: Collection[str]) -> str:
    """Return the error line for an unknown command."""
    close = difflib.get_close_matches(word, commands, n=1)
    meant = _COMMANDS.get(word.lower()) or (close[0] if close else None)
    hint = f"did you mean titans-seq {meant}? " if meant else ""
    return f"{word}: no such command; {hint}accepted: {', '.join(commands)}"


def unknown_options(unknown: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the error line for unknown options, which may be meant as key=value overrides or config files."""
    option = unknown[0]
    name, equals, value = option.lstrip("-").partition("=")
    after = arguments[arguments.index(option) + 1 :]
    if not equals and after and not after[0].startswith("-"):
        value = after[0]
    message = f"unrecognized arguments: {' '.join(unknown)}"
    if name in ("config", "cfg", "conf", "config-file", "config_file", "config-name", "f", "c"):
        return f"{message}; give the file as an argument: titans-seq {arguments[0]} {value or 'FILE'}"
    known = [key for schema in SCHEMAS.values() for key in flatten(schema())]
    key = closest_key(name.replace("-", "_"), dict.fromkeys(known))
    hint = f"; keys are set without dashes: {key}={value or 'VALUE'}" if key else ""
    return f"{message}{hint}; titans-seq {arguments[0]} --help lists the options"
