"""metrics.csv: one row per logging call, truncated to a checkpoint's rows when a run is resumed."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from titans_seq.system.files import write_atomically

_PENDING = 50  # rows in memory before they are written


class MetricsCsv(Logger):
    """CSV logger whose columns are the names logged so far and `step`, in alphabetical order.

    Args:
        path: path of the file.
        rows: number of rows of an existing file to keep: those before the checkpoint that is resumed.
    """

    def __init__(self, path: Path, rows: int = 0) -> None:
        super().__init__()
        self.path = path
        self._written: list[dict[str, str]] = _read(path)[:rows] if rows else []
        self.missing = rows - len(self._written)  # rows to keep that the file does not contain
        self._pending: list[dict[str, str]] = []
        self._names = sorted({name for row in self._written for name in row} | {"step"})
        if path.exists():
            self._rewrite()

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    @property
    def rows(self) -> list[dict[str, str]]:
        """All rows so far, without their empty cells."""
        return [*self._written, *self._pending]

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: hyperparameters are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        row = {name: str(value) for name, value in metrics.items()}
        row["step"] = str(len(self._written) + len(self._pending) if step is None else step)
        self._pending.append(row)
        if len(self._pending) >= _PENDING:
            self._flush()

    def secure(self) -> int:
        """Write all rows and flush them to the disk; returns their number."""
        self._flush()
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        return len(self._written)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the pending rows."""
        self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        names = {name for row in self._pending for name in row}
        grown = not names <= set(self._names) or not self.path.exists()
        self._names = sorted(names | set(self._names))
        pending, self._pending = self._pending, []
        self._written += pending
        if grown:
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._names).writerows(pending)

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._names)
        writer.writeheader()
        writer.writerows(self._written)
        write_atomically(self.path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            return [{name: cell for name, cell in row.items() if cell and name} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
