"""Checks of the paths on the command line, before torch is imported: a wrong one is reported at once."""

import argparse
import os
import sys
from pathlib import Path

from titans_seq.errors import InputError
from titans_seq.system.run_folders import NEWEST, find_checkpoint

_INPUTS = ("data", "future", "input", "vcf", "reference")
_OUTPUTS = ("out", "plot")


def check_paths(options: argparse.Namespace) -> None:
    """Put the file that it means in place of `options.checkpoint`, and check the files to read and folders to write.

    Raises InputError.
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
        # A model is exported to a folder that is made with its parents.
        if path is not None and path.suffix and not path.parent.is_dir():
            raise InputError(f"--{name} {path}: no such folder {path.parent}")
