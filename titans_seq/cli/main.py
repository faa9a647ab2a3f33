"""Entry point of the command line: parse, run the command, turn errors into one line and an exit status."""

import os
import sys
from collections.abc import Sequence

from titans_seq.cli.parser import COMMANDS, build_parser
from titans_seq.errors import InputError, Interrupted
from titans_seq.system.signals import StopSignals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0 on success; 2 for an error that the user can fix; 130, 143 or 138 when a signal stopped it; 141 for a broken pipe.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)  # argparse takes no positional arguments after an option
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.words += rest
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
        print(f"titans-seq: {_printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:  # a file instead of a folder, a missing folder, a full disk
        if options.debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"titans-seq: {_printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"titans-seq: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("titans-seq: interrupted", file=sys.stderr)
        return 130
    return 0


def _printable(text: str) -> str:
    """One line: characters that a terminal cannot show are escaped as in Python."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
