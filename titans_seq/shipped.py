"""The configuration files that come with the package, found by name (`forecasting/etth1`) or by path."""

import difflib
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from titans_seq.errors import InputError

_SUFFIXES = (".yaml", ".yml")
_PACKAGED = Path(__file__).parent / "_configs"  # in a wheel, where setup.py puts them


class ConfigFile(NamedTuple):
    """A configuration file that exists."""

    path: Path
    shown: str  # for messages: the name of a shipped file, else the path


@cache
def folder() -> Path:
    """Return the folder of the shipped files: in the installed package, or `configs/` of a clone (setup.py)."""
    return _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "configs"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all shipped files: their paths in `folder()`, without the suffix."""
    return tuple(sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yaml")))


def is_shipped(name: str | Path) -> bool:
    """Whether `name`, with or without the suffix, is the name of a shipped file."""
    return _without_suffix(str(name)) in names()


def locate(name: str | Path, base: Path | None = None) -> ConfigFile | None:
    """Return the file at the path `name`, relative to `base`, or else the shipped file of that name, or else None."""
    path = base / name if base else Path(name)
    if os.path.exists(path):  # False for names that are invalid on this system
        return ConfigFile(path, str(path))
    return ConfigFile(path_of(str(name)), _without_suffix(str(name))) if is_shipped(name) else None


def find(name: str | Path, base: Path | None = None) -> ConfigFile:
    """Return the file that `locate` finds; raises InputError that suggests the closest name if there is none."""
    if found := locate(name, base):
        return found
    path = base / name if base else Path(name)
    meant = _meant(str(name), path)
    hint = f"did you mean {meant}? " if meant else ""
    raise InputError(f"{path}: no such config file; {hint}`titans-seq configs` lists the shipped ones")


def path_of(name: str) -> Path:
    """Return the path of a shipped file."""
    return folder() / f"{_without_suffix(name)}.yaml"


def first_line(name: str) -> str:
    """Return the comment in the first line of a shipped file, which describes its purpose."""
    with path_of(name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def is_in_package(path: Path) -> bool:
    """Whether a file is a shipped file of an installed wheel, outside a clone of the repository."""
    return _PACKAGED.is_dir() and path.resolve().is_relative_to(_PACKAGED.resolve())


def _without_suffix(name: str) -> str:
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def _meant(name: str, path: Path) -> str | None:
    """Return the closest name or path, None if there is none: a missing suffix, a missing or extra folder, a typo."""
    for suffix in _SUFFIXES:
        if os.path.isfile(f"{path}{suffix}"):
            return f"{name}{suffix}"
    plain = _without_suffix(name)
    last_parts = {each.rpartition("/")[2]: each for each in names()}
    longer = [each for each in names() if plain.endswith(f"/{each}") or each.endswith(f"/{plain}")]
    alike = difflib.get_close_matches(plain, names(), n=1, cutoff=0.8)
    alike_last = difflib.get_close_matches(plain.rpartition("/")[2], last_parts, n=1, cutoff=0.8)
    return next(iter([*longer, *alike, *(last_parts[each] for each in alike_last)]), None)
