"""Checks of the paths on the command line before torch is imported, so that errors are reported at once."""

import argparse
import os
import sys
from pathlib import Path

from titans_seq.errors import InputError
from titans_seq.system.run_folders import NEWEST, find_checkpoint

_INPUTS = ("data", "future", "input", "vcf", "reference")
_OUTPUTS = ("out", "plot")


def check_paths(options: argparse.Namespace) -> None:
    """Resolve `options.checkpoint` to a file, and check that input files and output folders exist.

    Raises InputError if one does not.
    """
    given = Path(options.checkpoint)
    found = find_checkpoint(given)
    if given.name == NEWEST and not given.exists():
        print(f"note: the newest run is {found.parent.parent}", file=sys.stderr)
    options.checkpoint = str(found)
    for name in _INPUTS:
        path = getattr(options, name, None)
        if path is not None and not os.path.exists(path.expanduser()):
            raise InputError(f"--{name} {path}: no such file")
    for name in _OUTPUTS:
        path = getattr(options, name, None)
        # Exporting a model creates the folder and its parents.
        if path is not None and path.suffix and not path.parent.is_dir():
            raise InputError(f"--{name} {path}: no such folder {path.parent}")
