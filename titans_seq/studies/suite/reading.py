"""From a suite's YAML file to a checked `Suite`."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from titans_seq import shipped
from titans_seq.config import EXTENDS, read_yaml
from titans_seq.errors import InputError
from titans_seq.studies.suite.checks import as_list, as_mapping, as_texts, check_keys, check_labels, check_name
from titans_seq.studies.suite.grid import MEAN, REPEATS, Cell, Published, Suite, Table


def read_suite(path: str | Path) -> Suite:
    """Read and check a suite, but for the configurations of its cells.

    Raises InputError, one line with the file and the key.
    """
    file = shipped.find(path)
    path = file.path
    content = read_yaml(path)
    if "axes" not in content and content.keys() & {EXTENDS, "data", "model", "task"}:
        suite = path.with_stem(f"{path.stem}_suite")
        hint = f"; there is {suite}" if suite.is_file() else ""
        raise InputError(f"{file.shown}: is the configuration of one run; a suite has axes (docs/benchmark.md){hint}")
    known = ("name", "base", "axes", "leave_out", "table", "published", "pages")
    check_keys(path, "", content, known, required=("name", "axes", "table"))
    name = content["name"]
    if not isinstance(name, str) or name != Path(name).name or name in ("", ".."):
        raise InputError(f"{path}: name: {name!r} names a folder below benchmarks/results; it must be one plain name")
    axes = as_mapping(path, "axes", content["axes"])
    words = {str(axis): _axis_words(path, f"axes.{axis}", str(axis), values) for axis, values in axes.items()}
    labels = {axis: tuple(values) for axis, values in words.items()}
    left_out = [
        _left_out(path, f"leave_out[{i}]", entry, labels)
        for i, entry in enumerate(as_list(path, "leave_out", content.get("leave_out")))
    ]
    base = _words(path, "base", content.get("base"))
    cells = _cells(path, base, words, left_out)
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
        chosen = dict(zip(axes, labels, strict=True))
        if any(all(chosen[axis] in some for axis, some in entry.items()) for entry in left_out):
            continue
        words = base + tuple(word for axis, label in chosen.items() for word in axes[axis][label])
        cell = Cell(chosen, tuple(_place(word, path.parent) for word in words))
        if cell.name in cells:
            raise InputError(f"{path}: axes: two cells would be named {cell.name}; change a label")
        cells[cell.name] = cell
    if not cells:
        raise InputError(f"{path}: leave_out: leaves no cell at all")
    return tuple(cells.values())


def _place(word: str, folder: Path) -> str:
    """A word as it can be read from anywhere; a file that does not exist is reported with its cell."""
    found = None if "=" in word else shipped.locate(word, folder)
    return word if "=" in word else str(found.path if found else folder / word)


def _axis_words(path: Path, where: str, axis: str, values: Any) -> dict[str, tuple[str, ...]]:
    """Labels of an axis to the words they stand for."""
    if isinstance(values, list) and values:
        labels = ["null" if value is None else str(value) for value in values]
        if len(set(labels)) < len(labels):
            raise InputError(f"{path}: {where}: names a value twice")
        return {label: (f"{axis}={label}",) for label in labels}
    if isinstance(values, dict) and values:
        return {str(label): _words(path, f"{where}.{label}", words) for label, words in values.items()}
    raise InputError(f"{path}: {where}: takes a list of the key's values, or a mapping from labels to words")


def _words(path: Path, where: str, words: Any) -> tuple[str, ...]:
    words = [words] if isinstance(words, str) else words or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{path}: {where}: takes config files and key=value words, one or a list of them")
    return tuple(words)


def _left_out(path: Path, where: str, entry: Any, axes: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    chosen = {}
    for axis, labels in as_mapping(path, where, entry).items():
        chosen[str(axis)] = {str(label) for label in (labels if isinstance(labels, list) else [labels])}
        check_labels(f"{path}: {where}", str(axis), chosen[str(axis)], axes)
    return chosen


def _table(path: Path, content: dict[Any, Any], axes: Mapping[str, tuple[str, ...]]) -> Table:
    known = ("rows", "columns", "metrics", "facts", "mean", "decimals", "baselines")
    check_keys(path, "table", content, known, required=("rows", "columns", "metrics"))
    rows = tuple(str(axis) for axis in as_list(path, "table.rows", content["rows"]))
    columns = str(content["columns"])
    for axis in (*rows, columns):
        check_name(f"{path}: table", axis, axes)
    over = next((axis for axis in REPEATS if axis in {*axes} - {*rows, columns}), REPEATS[0])
    if sorted([*rows, columns, over]) != sorted({*axes, over}) or not rows:
        rule = f"rows and columns must name every axis but {' or '.join(REPEATS)} once"
        raise InputError(f"{path}: table: {rule}: {', '.join(axes)}")
    mean, baselines, decimals = content.get("mean", False), content.get("baselines", False), content.get("decimals", 3)
    for key, value, kind in (("mean", mean, bool), ("baselines", baselines, bool), ("decimals", decimals, int)):
        if not isinstance(value, kind):
            raise InputError(f"{path}: table.{key}: {value!r} is not {'true or false' if kind is bool else 'a number'}")
    if isinstance(decimals, bool) or not 0 <= decimals <= 12:
        raise InputError(f"{path}: table.decimals: {decimals!r} is not a number of decimals")
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
                raise InputError(f"{path}: {place}: takes one number for each of {', '.join(table.metrics)}")
            values[labels] = tuple(numbers)
            return
        axis, known = levels[len(labels)]
        for label, inner in as_mapping(path, place, node).items():
            check_name(f"{path}: {place}", str(label), known, what=f"label of {axis}")
            walk(f"{place}.{label}", inner, (*labels, str(label)))

    walk(f"{where}.values", content["values"], ())
    return Published(str(content["name"]), facts, values)
