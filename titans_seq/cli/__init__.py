"""The command line: `titans-seq COMMAND ...`."""

from titans_seq.cli.main import main

__all__ = ["main"]
