"""A suite: a grid of experiments and the published numbers to print beside them, read from one YAML file.

    name: small                       # results are kept below benchmarks/results/<name>
    base: [logging.wandb=off]         # words of every cell: config files, relative to the suite, and key=value
    axes:                             # the first changes slowest; words of later ones go on top
      seed: [0, 1, 2]                 # a list: the axis is the key
      data: {ETTh1: etth1.yaml}       # a mapping: labels to words
      data.horizon: [96, 192]
      model: {LMM: [], Transformer: [../model/transformer.yaml, task.learning_rate=1e-3]}
    leave_out: [{model: Transformer, seed: [1, 2]}]
    table:
      rows: [data, model]             # the last of them is what published rows name
      columns: data.horizon
      metrics: {test/mse: MSE}        # keys of results.json to headings
      facts: {context_length: lookback}  # optional: what else of results.json a row shows
      mean: true                      # optional: a column with the mean over the others, seed by seed
      decimals: 3                     # optional
      baselines: true                 # optional: rows for the baselines that every run measures
    published:
      - name: Titans LMM
        facts: {context_length: not stated}
        values: {ETTh1: {mean: [.420]}}   # labels of the rows but the last, then columns, then metrics
    pages: [../docs/results.md]       # optional: the tables are written there too, between their markers

Axes named `seed` are what means and spreads are taken over.
"""

import difflib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titans_seq.config import load_config, read_yaml
from titans_seq.errors import InputError
from titans_seq.schema import Config

SEED = "seed"
MEAN = "mean"  # label of the column with the mean


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    labels: Mapping[str, str]  # of every axis
    files: tuple[str, ...]
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Names its files: labels joined by underscores, `seed` before a seed."""
        parts = [f"{axis if axis == SEED else ''}{label}" for axis, label in self.labels.items()]
        return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)

    def load_config(self, words: Iterable[str] = ()) -> Config:
        """What the cell runs, with `words` on top of the suite's."""
        return load_config(self.files, [*self.overrides, *words])


@dataclass(frozen=True)
class Table:
    """How results become rows and columns; see the module."""

    rows: tuple[str, ...]
    columns: str
    metrics: Mapping[str, str]
    facts: Mapping[str, str]
    mean: bool
    decimals: int
    baselines: bool


@dataclass(frozen=True)
class Published:
    """A row of other people's numbers, printed as they stand in the file."""

    name: str
    facts: Mapping[str, str]
    values: Mapping[tuple[str, ...], tuple[float | str, ...]]  # by the labels of rows but the last, then the column


@dataclass(frozen=True)
class Suite:
    """A checked suite."""

    path: Path
    name: str
    axes: Mapping[str, tuple[str, ...]]  # labels
    cells: tuple[Cell, ...]
    table: Table
    published: tuple[Published, ...]
    pages: tuple[Path, ...]

    def chosen(self, only: Iterable[str]) -> list[Cell]:
        """The cells that `axis=label,label` words leave; an axis named twice takes either."""
        wanted: dict[str, set[str]] = {}
        for word in only:
            axis, equals, labels = word.partition("=")
            if not equals:
                raise InputError(f"--only {word}: takes axis=label, such as {self._example()}")
            asked = {label.strip() for label in labels.split(",")}
            _check_labels(f"--only {word}", axis, asked, self.axes)
            wanted.setdefault(axis, set()).update(asked)
        return [cell for cell in self.cells if all(cell.labels[axis] in labels for axis, labels in wanted.items())]

    def check(self, cells: Iterable[Cell], words: Iterable[str] = ()) -> None:
        """Raise InputError for the first cell whose configuration, with `words` on top, is not sound or another's."""
        words = list(words)
        seen: dict[str, str] = {}
        for cell in cells:
            try:
                config = cell.load_config(words)
            except InputError as error:
                raise InputError(f"{self.path}: {cell.name}: {error}") from None
            twin = seen.setdefault(repr(config), cell.name)
            if twin != cell.name:
                raise InputError(
                    f"{self.path}: {twin} and {cell.name} are the same run; words of later axes go on top of those of "
                    "earlier ones, so put the axis whose words are lost last"
                )

    def _example(self) -> str:
        axis, labels = next(iter(self.axes.items()))
        return f"{axis}={labels[0]}"


def read_suite(path: str | Path) -> Suite:
    """Read and check a suite, but for the configurations of its cells.

    Raises InputError, one line with the file and the key.
    """
    path = Path(path)
    content = read_yaml(path)
    known = ("name", "base", "axes", "leave_out", "table", "published", "pages")
    _check_keys(path, "", content, known, required=("name", "axes", "table"))
    name = content["name"]
    if not isinstance(name, str) or name != Path(name).name or not name:
        raise InputError(f"{path}: name: {name!r} names a folder below benchmarks/results; it must be one plain name")
    axes = _mapping(path, "axes", content["axes"])
    words = {str(axis): _axis_words(path, f"axes.{axis}", str(axis), values) for axis, values in axes.items()}
    labels = {axis: tuple(values) for axis, values in words.items()}
    left_out = [
        _left_out(path, f"leave_out[{i}]", entry, labels)
        for i, entry in enumerate(_list(path, "leave_out", content.get("leave_out")))
    ]
    base = _words(path, "base", content.get("base"))
    cells = _cells(path, base, words, left_out)
    table = _table(path, _mapping(path, "table", content["table"]), labels)
    published = tuple(
        _published(path, f"published[{i}]", entry, table, labels)
        for i, entry in enumerate(_list(path, "published", content.get("published")))
    )
    pages = tuple(
        Path(os.path.normpath(path.parent / str(page))) for page in _list(path, "pages", content.get("pages"))
    )
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
        files = tuple(str(path.parent / word) for word in words if "=" not in word)
        cell = Cell(chosen, files, tuple(word for word in words if "=" in word))
        if cell.name in cells:
            raise InputError(f"{path}: axes: two cells would be named {cell.name}; change a label")
        cells[cell.name] = cell
    if not cells:
        raise InputError(f"{path}: leave_out: leaves no cell at all")
    return tuple(cells.values())


def _axis_words(path: Path, where: str, axis: str, values: Any) -> dict[str, tuple[str, ...]]:
    """Labels of an axis to the words they stand for."""
    if isinstance(values, list) and values:
        labels = [str(value) for value in values]
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
    for axis, labels in _mapping(path, where, entry).items():
        chosen[str(axis)] = {str(label) for label in (labels if isinstance(labels, list) else [labels])}
        _check_labels(f"{path}: {where}", str(axis), chosen[str(axis)], axes)
    return chosen


def _table(path: Path, content: dict[Any, Any], axes: Mapping[str, tuple[str, ...]]) -> Table:
    known = ("rows", "columns", "metrics", "facts", "mean", "decimals", "baselines")
    _check_keys(path, "table", content, known, required=("rows", "columns", "metrics"))
    rows = tuple(str(axis) for axis in _list(path, "table.rows", content["rows"]))
    columns = str(content["columns"])
    for axis in (*rows, columns):
        _check_name(f"{path}: table", axis, axes)
    if sorted([*rows, columns, SEED]) != sorted({*axes, SEED}) or not rows:
        raise InputError(f"{path}: table: rows and columns must name every axis but {SEED} once: {', '.join(axes)}")
    mean, baselines, decimals = content.get("mean", False), content.get("baselines", False), content.get("decimals", 3)
    for key, value, kind in (("mean", mean, bool), ("baselines", baselines, bool), ("decimals", decimals, int)):
        if not isinstance(value, kind):
            raise InputError(f"{path}: table.{key}: {value!r} is not {'true or false' if kind is bool else 'a number'}")
    metrics, facts = (_texts(path, f"table.{key}", content.get(key)) for key in ("metrics", "facts"))
    return Table(rows, columns, metrics, facts, mean, decimals, baselines)


def _published(path: Path, where: str, entry: Any, table: Table, axes: Mapping[str, tuple[str, ...]]) -> Published:
    content = _mapping(path, where, entry)
    _check_keys(path, where, content, ("name", "facts", "values"), required=("name", "values"))
    facts = _texts(path, f"{where}.facts", content.get("facts"))
    for fact in facts:
        _check_name(f"{path}: {where}.facts", fact, table.facts)
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
        for label, inner in _mapping(path, place, node).items():
            _check_name(f"{path}: {place}", str(label), known, what=f"label of {axis}")
            walk(f"{place}.{label}", inner, (*labels, str(label)))

    walk(f"{where}.values", content["values"], ())
    return Published(str(content["name"]), facts, values)


def _check_labels(source: str, axis: str, labels: set[str], axes: Mapping[str, tuple[str, ...]]) -> None:
    _check_name(source, axis, axes)
    for label in sorted(labels):
        _check_name(source, label, axes[axis], what=f"label of {axis}")


def _check_name(source: str, name: str, known: Iterable[str], what: str = "axis") -> None:
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"{source}: no {what} {name!r}; {hint}there are {', '.join(known) or 'none'}")


def _check_keys(
    path: Path, where: str, content: Mapping[Any, Any], known: Sequence[str], required: Sequence[str]
) -> None:
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(
                f"{path}: {where}{'.' * bool(where)}{key}: no such key; {hint}accepted: {', '.join(known)}"
            )
    for key in required:
        if key not in content:
            raise InputError(f"{path}: {where}{'.' * bool(where)}{key}: is missing")


def _mapping(path: Path, where: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: {where}: takes a mapping, key: value")
    return value


def _list(path: Path, where: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: {where}: takes a list")
    return value


def _texts(path: Path, where: str, value: Any) -> dict[str, str]:
    return {} if value is None else {str(key): str(text) for key, text in _mapping(path, where, value).items()}
