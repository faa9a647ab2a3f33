"""Command for shell completion."""

import argparse

from titans_seq import shipped
from titans_seq.cli.command import Command, without_overrides
from titans_seq.errors import InputError

SHELLS = ("bash", "zsh")
_FILES = ("checkpoint", "data", "future", "plot", "out", "input", "vcf", "reference", "runs", "results")  # arguments
# Functions of the completion script: files, and the names of shipped configurations.
_PREAMBLE = {
    "bash": """\
_titans_seq_configs() {{ compgen -f -- "$1"; compgen -W "{names}" -- "$1"; }}
""",
    "zsh": """\
_titans_seq_configs() {{ _files; compadd -- {names}; }}
""",
}


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script, made by shtab, that completes commands, options, files and shipped names in `shell`."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise InputError("completion: requires shtab: pip install shtab") from None
    names = " ".join(shipped.names())
    _complete_configs(parser)
    preamble = _PREAMBLE[shell].format(names=names)
    return str(shtab.complete(parser, shell=shell, root_prefix="titans_seq", preamble=preamble))


def _complete_configs(parser: argparse.ArgumentParser) -> None:
    """Complete files for every argument that takes a file, and also shipped names for configurations."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                _complete_configs(subparser)
        elif not action.option_strings and action.dest in ("words", "data", "suite", "file"):
            action.complete = dict.fromkeys(SHELLS, "_titans_seq_configs")  # type: ignore[attr-defined]
        elif action.dest in _FILES:
            action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    without_overrides(parser)
    parser.add_argument("shell", choices=SHELLS, help='in ~/.bashrc: eval "$(titans-seq completion bash)"')


def _completion(options: argparse.Namespace) -> None:
    if options.words:
        raise InputError(f"completion takes one shell; got {' '.join(options.words)} too")
    print(completion_script(options.parser, options.shell))


COMPLETION = Command(
    "completion",
    "print the script that completes commands and files in bash or zsh (requires shtab)",
    ("completion bash", "completion zsh"),
    _add_arguments,
    _completion,
)
