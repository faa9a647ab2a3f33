"""The record of one command: its name, help, examples, arguments and function."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXAMPLE_RUN = "runs/etth1/2026-01-31_12-00-00"


@dataclass(frozen=True)
class Command:
    """A command `titans-seq NAME ...`.

    Its parser has an argument `words`: the positional arguments, as written. `run` imports what it needs, so that an
    error in a key is reported at once, without loading torch.
    """

    name: str
    help: str  # one line, for the list of commands
    examples: tuple[str, ...]  # command lines after `titans-seq`
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    more: str = ""  # for its `--help`, after the examples: where to read on


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Config files and overrides."""
    help_text = "config files or names of shipped ones (`titans-seq configs`), then overrides of their keys"
    parser.add_argument("words", nargs="*", metavar="FILE|KEY=VALUE", help=help_text)


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """A checkpoint and overrides of its configuration."""
    help_text = "folder of a run (its best checkpoint), FOLDER/last (the newest run below it), or a checkpoint"
    parser.add_argument("checkpoint", metavar="RUN", help=help_text)
    help_text = "overrides of the checkpoint's configuration"
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help=help_text)


def add_optional_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoints or none, and overrides; `split_checkpoints` sorts them."""
    help_text = "folder of a run, FOLDER/last, or a checkpoint; several of them, or a folder of several runs, are "
    help_text += "averaged (default: the pre-trained forecaster)"
    parser.add_argument("checkpoint", nargs="?", metavar="RUN", help=help_text)
    help_text = "overrides of the run's configuration; without a run, of data.time, data.id, data.target, data.season"
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help=help_text)


def split_checkpoints(options: argparse.Namespace) -> list[str]:
    """Return the checkpoints among the words, and leave the overrides in `options.words`."""
    every = [*([] if options.checkpoint is None else [options.checkpoint]), *options.words]
    options.checkpoint = None
    options.words = [word for word in every if "=" in word and not Path(word).exists()]
    return [word for word in every if word not in options.words]


def add_output_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """The table to write."""
    help_text = "file to write, .parquet or .csv (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path(default), help=help_text)


def without_overrides(parser: argparse.ArgumentParser) -> None:
    """No positional arguments."""
    parser.set_defaults(words=[])
