"""Reads a suite's YAML file into a checked `Suite`."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from titans_seq import shipped
from titans_seq.config import EXTENDS, read_yaml
from titans_seq.errors import InputError
from titans_seq.studies.suite.checks import as_list, as_mapping, as_texts, check_keys, check_labels, check_name
from titans_seq.studies.suite.grid import MEAN, REPEAT_AXES, Cell, Published, Suite, Table


def read_suite(path: str | Path) -> Suite:
    """Read and check a suite; the configurations of its cells are checked by `Suite.check`.

    Raises InputError, one line with the file and the key.
    """
    file = shipped.find(path)
    path = file.path
    content = read_yaml(path)
    if "axes" not in content and content.keys() & {EXTENDS, "data", "model", "task"}:
        suite = path.with_stem(f"{path.stem}_suite")
        hint = f"; did you mean {suite}?" if suite.is_file() else ""
        raise InputError(f"{file.shown}: is the configuration of one run; a suite has axes (docs/benchmark.md){hint}")
    known = ("name", "base", "axes", "leave_out", "table", "published", "pages")
    check_keys(path, "", content, known, required=("name", "axes", "table"))
    name = content["name"]
    if not isinstance(name, str) or name != Path(name).name or name in ("", ".."):
        raise InputError(f"{path}: name: {name!r} must be a plain name: it names a folder below benchmarks/results")
    axes = as_mapping(path, "axes", content["axes"])
    settings = {str(axis): _axis_settings(path, f"axes.{axis}", str(axis), values) for axis, values in axes.items()}
    labels = {axis: tuple(values) for axis, values in settings.items()}
    left_out = [
        _left_out(path, f"leave_out[{i}]", entry, labels)
        for i, entry in enumerate(as_list(path, "leave_out", content.get("leave_out")))
    ]
    base = _settings(path, "base", content.get("base"))
    cells = _cells(path, base, settings, left_out)
    table = _table(path, as_mapping(path, "table", content["table"]), labels)
    published = tuple(
        _published(path, f"published[{i}]", entry, table, labels)
        for i, entry in enumerate(as_list(path, "published", content.get("published")))
    )
    listed = [] if shipped.is_in_package(path) else as_list(path, "pages", content.get("pages"))  # of the repository
    pages = tuple(Path(os.path.normpath(path.parent / str(page))) for page in listed)
    for page in pages:
        if not page.is_file():
            raise InputError(f"{path}: pages: no such file {page}")
    return Suite(path, name, labels, cells, table, published, pages)


def _cells(
    path: Path,
    base: tuple[str, ...],
    axes: Mapping[str, Mapping[str, tuple[str, ...]]],
    left_out: Sequence[Mapping[str, set[str]]],
) -> tuple[Cell, ...]:
    cells: dict[str, Cell] = {}
    for labels in itertools.product(*axes.values()):
        by_axis = dict(zip(axes, labels, strict=True))
        if any(all(by_axis[axis] in some for axis, some in entry.items()) for entry in left_out):
            continue
        settings = base + tuple(each for axis, label in by_axis.items() for each in axes[axis][label])
        cell = Cell(by_axis, tuple(_absolute(each, path.parent) for each in settings))
        if cell.name in cells:
            raise InputError(f"{path}: axes: two cells would be named {cell.name}; change a label")
        cells[cell.name] = cell
    if not cells:
        raise InputError(f"{path}: leave_out: excludes every cell")
    return tuple(cells.values())


def _absolute(setting: str, folder: Path) -> str:
    """A file or override as it can be read from anywhere; a file that does not exist is reported with its cell."""
    found = None if "=" in setting else shipped.locate(setting, folder)
    return setting if "=" in setting else str(found.path if found else folder / setting)


def _axis_settings(path: Path, where: str, axis: str, values: Any) -> dict[str, tuple[str, ...]]:
    """Return the config files and overrides of each label of an axis."""
    if isinstance(values, list) and values:
        labels = ["null" if value is None else str(value) for value in values]
        if len(set(labels)) < len(labels):
            raise InputError(f"{path}: {where}: lists a value twice")
        return {label: (f"{axis}={label}",) for label in labels}
    if isinstance(values, dict) and values:
        return {str(label): _settings(path, f"{where}.{label}", settings) for label, settings in values.items()}
    raise InputError(f"{path}: {where}: must be a list of the key's values, or a mapping from labels to overrides")


def _settings(path: Path, where: str, settings: Any) -> tuple[str, ...]:
    settings = [settings] if isinstance(settings, str) else settings or []
    if not isinstance(settings, list) or not all(isinstance(each, str) for each in settings):
        raise InputError(f"{path}: {where}: must be a config file or a key=value override, or a list of them")
    return tuple(settings)


def _left_out(path: Path, where: str, entry: Any, axes: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    excluded = {}
    for axis, labels in as_mapping(path, where, entry).items():
        excluded[str(axis)] = {str(label) for label in (labels if isinstance(labels, list) else [labels])}
        check_labels(f"{path}: {where}", str(axis), excluded[str(axis)], axes)
    return excluded


def _table(path: Path, content: dict[Any, Any], axes: Mapping[str, tuple[str, ...]]) -> Table:
    known = ("rows", "columns", "metrics", "facts", "mean", "decimals", "baselines")
    check_keys(path, "table", content, known, required=("rows", "columns", "metrics"))
    rows = tuple(str(axis) for axis in as_list(path, "table.rows", content["rows"]))
    columns = str(content["columns"])
    for axis in (*rows, columns):
        check_name(f"{path}: table", axis, axes)
    over = next((axis for axis in REPEAT_AXES if axis in {*axes} - {*rows, columns}), REPEAT_AXES[0])
    if sorted([*rows, columns, over]) != sorted({*axes, over}) or not rows:
        rule = f"rows and columns must name every axis but {' or '.join(REPEAT_AXES)} once"
        raise InputError(f"{path}: table: {rule}: {', '.join(axes)}")
    mean, baselines, decimals = content.get("mean", False), content.get("baselines", False), content.get("decimals", 3)
    for key, value, kind in (("mean", mean, bool), ("baselines", baselines, bool), ("decimals", decimals, int)):
        if not isinstance(value, kind):
            expected = "true or false" if kind is bool else "a number"
            raise InputError(f"{path}: table.{key}: must be {expected}; got {value!r}")
    if isinstance(decimals, bool) or not 0 <= decimals <= 12:
        raise InputError(f"{path}: table.decimals: must be between 0 and 12; got {decimals!r}")
    metrics, facts = (as_texts(path, f"table.{key}", content.get(key)) for key in ("metrics", "facts"))
    return Table(rows, columns, over, metrics, facts, mean, decimals, baselines)


def _published(path: Path, where: str, entry: Any, table: Table, axes: Mapping[str, tuple[str, ...]]) -> Published:
    content = as_mapping(path, where, entry)
    check_keys(path, where, content, ("name", "facts", "values"), required=("name", "values"))
    facts = as_texts(path, f"{where}.facts", content.get("facts"))
    for fact in facts:
        check_name(f"{path}: {where}.facts", fact, table.facts)
    columns = {*axes[table.columns], *([MEAN] if table.mean else [])}
    levels = [(axis, {*axes[axis]}) for axis in table.rows[:-1]] + [(table.columns, columns)]
    values: dict[tuple[str, ...], tuple[float | str, ...]] = {}

    def walk(place: str, node: Any, labels: tuple[str, ...]) -> None:
        if len(labels) == len(levels):
            numbers = node if isinstance(node, list) else [node]
            if len(numbers) != len(table.metrics) or not all(isinstance(n, int | float | str) for n in numbers):
                raise InputError(f"{path}: {place}: must have one number for each of {', '.join(table.metrics)}")
            values[labels] = tuple(numbers)
            return
        axis, known = levels[len(labels)]
        for label, inner in as_mapping(path, place, node).items():
            check_name(f"{path}: {place}", str(label), known, what=f"label of {axis}")
            walk(f"{place}.{label}", inner, (*labels, str(label)))

    walk(f"{where}.values", content["values"], ())
    return Published(str(content["name"]), facts, values)
