"""Checks of the paths on the command line before torch is imported, so that errors are reported at once."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from titans_seq.config import flatten
from titans_seq.errors import InputError
from titans_seq.schema import FRAME, ClassificationConfig, Config
from titans_seq.system.run_folders import NEWEST, find_checkpoint, find_forecasters, find_resumed

_INPUTS = ("data", "future", "input", "vcf", "reference")
_OUTPUTS = ("out", "plot")
# Keys with files, lists of files or mappings to files.
_FILE_KEYS = ("data.path", "data.labels", "data.bed", "data.reference")
_DATASET_KEYS = ("data.name", "data.also", "data.exclude")  # with names of published datasets too


def check_paths(options: argparse.Namespace) -> None:
    """Resolve `options.checkpoint` to a file, and check that input files and output folders exist.

    Raises InputError if one does not.
    """
    if options.checkpoint is not None:  # without one, forecasts are those of the pre-trained forecaster
        options.checkpoint = _noted(options.checkpoint, find_checkpoint(options.checkpoint))
    for name in _INPUTS:
        path = getattr(options, name, None)
        if path is not None and not _exists(path):
            raise InputError(f"--{name} {path}: no such file")
    for name in _OUTPUTS:
        path = getattr(options, name, None)
        # Exporting a model creates the folder and its parents.
        if path is not None and path.suffix and not path.parent.is_dir():
            raise InputError(f"--{name} {path}: no such folder {path.parent}")
    _check_files({key: _parse(text) for key, _, text in (word.partition("=") for word in options.words)})


def find_checkpoints(given: Iterable[str], *, refit: bool = False) -> list[str] | None:
    """Return the checkpoints of runs, folders of runs and files; None without any. For `refit` see `find_forecasters`.

    Raises InputError if one does not exist.
    """
    found = [_noted(each, path) for each in given for path in find_forecasters(each, refit=refit)]
    return found or None


def check_config(config: Config) -> Config:
    """Return the configuration with `resume` and `model.pretrained` resolved to paths that exist.

    Raises InputError if one of its files does not exist.
    """
    if config.resume not in (None, "last", "auto"):
        config = replace(config, resume=_noted(config.resume, find_resumed(config.resume)))
    if isinstance(config, ClassificationConfig) and config.model.pretrained:
        pretrained = _find_pretrained(config.model.pretrained, required=not config.resume)
        config = replace(config, model=replace(config.model, pretrained=pretrained))
    _check_files(flatten(config))
    return config


def check_folders(folders: Iterable[Path]) -> None:
    """Raise InputError for the first folder that does not exist."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise InputError(f"{folder}: no such folder")


def _find_pretrained(given: str, *, required: bool) -> str:
    """Return the path of the checkpoint; if there is none, `given` where it is not required: a resumed run has it."""
    try:
        return _noted(given, find_checkpoint(given))
    except InputError as error:
        if required:
            raise InputError(f"model.pretrained: {error}") from None
        return given


def _noted(given: str, found: Path) -> str:
    """Return the path found, after a note if it belongs to the newest run."""
    if Path(given).name == NEWEST and not _exists(given):
        print(f"note: the newest run is {found if found.is_dir() else found.parent.parent}", file=sys.stderr)
    return str(found)


def _check_files(values: Mapping[str, Any]) -> None:
    """Raise InputError for the first file in the values of keys that does not exist."""
    for key in (*_DATASET_KEYS, *_FILE_KEYS):
        for file in _texts(values.get(key)):
            if key == "data.path" and file == FRAME:
                raise InputError(f"data.path={FRAME}: the run was trained on a data frame; resume it in Python: fit()")
            if key in _FILE_KEYS and not _exists(file):
                raise InputError(f"{file}: no such file; set {key}")
            if key in _DATASET_KEYS and Path(file).suffix and not _exists(file):  # published datasets have no suffix
                raise InputError(f"{file}: no such file or published dataset")


def _exists(path: str | Path) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _texts(value: Any) -> list[str]:
    """Return the texts in a text, a list or a mapping's values."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _parse(text: str) -> Any:
    """Return the value of an override; None if it is invalid, an error that loading the configuration reports."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
