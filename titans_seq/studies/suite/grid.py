"""What a suite is: cells, and the table that their results go into."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from titans_seq.config import load_words
from titans_seq.errors import InputError
from titans_seq.schema import Config
from titans_seq.studies.suite.checks import check_labels

REPEATS = ("seed", "fold")  # axes that means and spreads are taken over
MEAN = "mean"  # label of the column with the mean


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    labels: Mapping[str, str]  # of every axis
    words: tuple[str, ...]  # config files and key=value words, later ones on top

    @property
    def name(self) -> str:
        """Names its files: labels joined by underscores, `seed` before a seed, `fold` before a fold."""
        parts = [f"{axis if axis in REPEATS else ''}{label}" for axis, label in self.labels.items()]
        return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)

    def load_config(self, words: Iterable[str] = ()) -> Config:
        """What the cell runs, with `words` on top of the suite's."""
        return load_words([*self.words, *words])


@dataclass(frozen=True)
class Table:
    """How results become rows and columns; see the module."""

    rows: tuple[str, ...]
    columns: str
    over: str  # the axis that means and spreads are taken over
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
            check_labels(f"--only {word}", axis, asked, self.axes)
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
            if config.seeds:
                raise InputError(f"{self.path}: {cell.name}: seeds: a cell has one seed; make seed an axis")
            for key in ("devices", "num_nodes"):
                if getattr(config.trainer, key) > 1:
                    rule = "a cell runs on one device; --jobs runs several cells at once"
                    raise InputError(f"{self.path}: {cell.name}: trainer.{key}: {rule}")
            twin = seen.setdefault(repr(config), cell.name)
            if twin != cell.name:
                raise InputError(
                    f"{self.path}: {twin} and {cell.name} are the same run; words of later axes go on top of those of "
                    "earlier ones, so put the axis whose words are lost last"
                )

    def _example(self) -> str:
        axis, labels = next(iter(self.axes.items()))
        return f"{axis}={labels[0]}"
