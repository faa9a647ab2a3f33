"""Data classes of a suite: its cells (runs of the grid) and the layout of their table of results."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from titans_seq.config import load_settings
from titans_seq.errors import InputError
from titans_seq.schema import Config
from titans_seq.studies.suite.checks import check_labels

REPEAT_AXES = ("seed", "fold")  # axes that means and standard deviations are taken over
MEAN = "mean"  # label of the column with the mean


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    labels: Mapping[str, str]  # by axis
    settings: tuple[str, ...]  # config files and key=value overrides; later ones override earlier ones

    @property
    def name(self) -> str:
        """Name of its files: the labels joined by underscores, a seed with the prefix `seed`, a fold with `fold`."""
        parts = [f"{axis if axis in REPEAT_AXES else ''}{label}" for axis, label in self.labels.items()]
        return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)

    def load_config(self, overrides: Iterable[str] = ()) -> Config:
        """Return the cell's configuration, with `overrides` applied last."""
        return load_settings([*self.settings, *overrides])


@dataclass(frozen=True)
class Table:
    """Layout of the table of results; keys as in the section `table` of a suite's file."""

    rows: tuple[str, ...]
    columns: str
    over: str  # the axis that means and standard deviations are taken over
    metrics: Mapping[str, str]
    facts: Mapping[str, str]
    mean: bool
    decimals: int
    baselines: bool


@dataclass(frozen=True)
class Published:
    """A row of published numbers, printed as written in the file."""

    name: str
    facts: Mapping[str, str]
    # By the labels of all row axes but the last, then the column.
    values: Mapping[tuple[str, ...], tuple[float | str, ...]]


@dataclass(frozen=True)
class Suite:
    """A suite whose file has been checked."""

    path: Path
    name: str
    axes: Mapping[str, tuple[str, ...]]  # labels
    cells: tuple[Cell, ...]
    table: Table
    published: tuple[Published, ...]
    pages: tuple[Path, ...]

    def select(self, only: Iterable[str]) -> list[Cell]:
        """Return the cells that match all `axis=label,label` filters; filters on the same axis are joined by "or".

        Raises InputError for an unknown axis or label.
        """
        wanted: dict[str, set[str]] = {}
        for option in only:
            axis, equals, labels = option.partition("=")
            if not equals:
                raise InputError(f"--only {option}: expected axis=label, such as {self._example()}")
            selected = {label.strip() for label in labels.split(",")}
            check_labels(f"--only {option}", axis, selected, self.axes)
            wanted.setdefault(axis, set()).update(selected)
        return [cell for cell in self.cells if all(cell.labels[axis] in labels for axis, labels in wanted.items())]

    def check(self, cells: Iterable[Cell], overrides: Iterable[str] = ()) -> None:
        """Raise InputError for the first cell whose configuration, with `overrides`, is invalid or a duplicate."""
        overrides = list(overrides)
        seen: dict[str, str] = {}
        for cell in cells:
            try:
                config = cell.load_config(overrides)
            except InputError as error:
                raise InputError(f"{self.path}: {cell.name}: {error}") from None
            if config.seeds:
                raise InputError(f"{self.path}: {cell.name}: seeds: not supported in a suite; make seed an axis")
            for key in ("devices", "num_nodes"):
                if getattr(config.trainer, key) > 1:
                    rule = "must be 1 in a suite; --jobs runs several cells in parallel"
                    raise InputError(f"{self.path}: {cell.name}: trainer.{key}: {rule}")
            twin = seen.setdefault(repr(config), cell.name)
            if twin != cell.name:
                raise InputError(
                    f"{self.path}: {twin} and {cell.name} are the same run: later axes override earlier ones; move "
                    "the axis that is overridden to the end"
                )

    def _example(self) -> str:
        axis, labels = next(iter(self.axes.items()))
        return f"{axis}={labels[0]}"
