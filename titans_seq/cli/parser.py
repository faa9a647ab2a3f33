"""The argument parser, built from the commands."""

import argparse

import titans_seq
from titans_seq.cli.command import Command
from titans_seq.cli.completion import COMPLETION
from titans_seq.cli.configs import CONFIGS
from titans_seq.cli.dna import AUDIT, MUTAGENESIS, VARIANTS
from titans_seq.cli.example import EXAMPLE
from titans_seq.cli.forecasting import BACKTEST, EXPLAIN, FORECAST
from titans_seq.cli.keys import KEYS
from titans_seq.cli.machine import DOCTOR
from titans_seq.cli.runs import EXPORT, FIT, PREDICT, SHOW_CONFIG, TEST, VALIDATE
from titans_seq.cli.studies import BENCHMARK, COMPARE, SWEEP

# In the order of `--help`. A new command adds one line here.
COMMANDS = {
    command.name: command
    for command in (
        FIT,
        VALIDATE,
        TEST,
        PREDICT,
        FORECAST,
        BACKTEST,
        EXPLAIN,
        MUTAGENESIS,
        VARIANTS,
        SWEEP,
        COMPARE,
        EXPORT,
        AUDIT,
        BENCHMARK,
        CONFIGS,
        EXAMPLE,
        SHOW_CONFIG,
        KEYS,
        DOCTOR,
        COMPLETION,
    )
}


def build_parser() -> argparse.ArgumentParser:
    """One subparser per command."""
    layout = argparse.RawDescriptionHelpFormatter
    examples = _examples(*COMMANDS.values())
    parser = argparse.ArgumentParser(
        prog="titans-seq", description="Titans for time series and DNA.", epilog=examples, formatter_class=layout
    )
    parser.add_argument("--version", action="version", version=f"titans-seq {titans_seq.__version__}")
    parser.set_defaults(parser=parser)  # which `completion` describes
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    overview = "\n".join(f"  {command.name:<12} {command.help}" for command in COMMANDS.values())
    for command in COMMANDS.values():
        description = f"{command.help[0].upper()}{command.help[1:]}."
        epilog = "\n\n".join([_examples(command), *([command.more] if command.more else []), f"commands:\n{overview}"])
        subparser = commands.add_parser(
            command.name, help=command.help, description=description, epilog=epilog, formatter_class=layout
        )
        command.add_arguments(subparser)
        help_text = "on invalid input, show the full Python traceback"
        subparser.add_argument("--debug", action="store_true", help=help_text)
    return parser


def _examples(*commands: Command) -> str:
    lines = [f"  titans-seq {example}" for command in commands for example in command.examples]
    return "\n".join([f"example{'s' if len(lines) > 1 else ''}:", *lines])
