"""Entry point of the command line: parse, run the command, turn errors into one line and an exit status."""

import argparse
import os
import sys
from collections.abc import Sequence

from titans_seq.cli.clash import check_names
from titans_seq.cli.hints import unknown_command, unknown_options
from titans_seq.cli.parser import COMMANDS, build_parser
from titans_seq.errors import InputError, Interrupted
from titans_seq.system.signals import StopSignals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0 on success; 2 for an error that the user can fix; 130, 143 or 138 when a signal stopped it; 141 for a broken pipe.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        build_parser().print_help(sys.stderr)
        return 2
    try:
        check_names()
        options = _parse(arguments)
    except InputError as error:
        return _fail(str(error))
    return _run(options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; raises InputError for a command or an option that does not exist."""
    if not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise InputError(unknown_command(arguments[0], COMMANDS))
    # argparse takes no positional words after an option.
    options, rest = build_parser().parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("-")]:
        raise InputError(unknown_options(unknown, arguments))
    options.words += rest
    return options


def _run(options: argparse.Namespace) -> int:
    try:
        with StopSignals():
            COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except InputError as error:
        if options.debug:
            raise
        return _fail(str(error))
    except OSError as error:  # a file instead of a folder, a missing folder, a full disk
        if options.debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except Interrupted as stop:
        print(f"titans-seq: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("titans-seq: interrupted", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"titans-seq: {_printable(message)}", file=sys.stderr)
    return 2


def _printable(text: str) -> str:
    """One line: characters that a terminal cannot show are escaped as in Python."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
