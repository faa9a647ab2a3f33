"""Command for the shipped configuration files: list them, copy one."""

import argparse
from pathlib import Path

from titans_seq import shipped
from titans_seq.cli.command import Command
from titans_seq.errors import InputError

# Usage of a file by its folder; suites and parts are recognised by their names.
_RUNS = "titans-seq fit NAME [KEY=VALUE ...]"
_PARTS = "titans-seq fit NAME NAME [KEY=VALUE ...]: on top of a configuration above, such as forecasting/etth1"
_SUITES = "titans-seq benchmark NAME"
_SWEEPS = "titans-seq sweep NAME"


def configs_text() -> str:
    """List the shipped configuration files, one per line, grouped by the command that uses them."""
    uses: dict[str, list[str]] = {use: [] for use in (_RUNS, _PARTS, _SUITES, _SWEEPS)}
    for name in shipped.names():
        uses[_use(name)].append(name)
    width = max(len(name) for name in shipped.names())
    blocks = [
        "\n".join([use, *(f"  {name:<{width}}  {shipped.first_line(name)}" for name in names)])
        for use, names in uses.items()
    ]
    return "\n\n".join(blocks)


def _use(name: str) -> str:
    if name.startswith("sweeps/"):
        return _SWEEPS
    if name.rpartition("/")[2].endswith("suite"):
        return _SUITES
    return _PARTS if name.startswith(("model/", "forecasting/base/")) else _RUNS


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    help_text = "nothing: list the files; copy NAME FILE: write the shipped file NAME to FILE, to edit it"
    parser.add_argument("words", nargs="*", metavar="copy NAME FILE", help=help_text)


def _configs(options: argparse.Namespace) -> None:
    match options.words:
        case []:
            print(configs_text())
        case ["copy", name, file]:
            print(f"{copy_config(name, Path(file))}: a copy of {name}; what it extends is found wherever it is")
        case words:
            raise InputError(f"configs {' '.join(words)}: takes nothing, or copy NAME FILE")


def copy_config(name: str, target: Path) -> Path:
    """Write a shipped file to `target`, which must not exist.

    The pages of a suite are left out, because they belong to the repository.
    """
    if not shipped.is_shipped(name):
        shipped.find(name)  # raises with a hint, unless the name is a path
        raise InputError(f"configs copy {name}: not a shipped file; `titans-seq configs` lists them")
    if not target.name.endswith((".yaml", ".yml")):
        raise InputError(f"configs copy {name} {target}: takes a file name that ends in .yaml")
    source = shipped.path_of(name)
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.writelines(line for line in lines if not line.startswith("pages:"))
    except FileExistsError:
        raise InputError(f"configs copy {name} {target}: the file exists; name another") from None
    return target


CONFIGS = Command(
    "configs",
    "list the shipped configuration files, or copy one",
    ("configs", "configs copy forecasting/table my.yaml"),
    _add_arguments,
    _configs,
)
