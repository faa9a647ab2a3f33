"""W&B logger whose failures are printed as notes and never stop the training."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

STEP = "trainer/global_step"  # the horizontal axis of W&B's plots


class WandbRun(Logger):
    """W&B logger in which row i of metrics.csv is step i of the W&B run, so that a resumed run repeats its own steps.

    W&B ignores steps that it already has, so steps repeated by a resumed run are counted once.

    Args:
        run: the run returned by `wandb.init`.
        rows: number of rows logged before.
    """

    def __init__(self, run: Any, rows: int = 0) -> None:
        super().__init__()
        self._run = run
        self._rows = rows
        self._broken = False
        self._attempt("the axes", self._set_axes)

    @property
    def name(self) -> str:
        """Name of the W&B project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """Id of the W&B run."""
        return str(self._run.id)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `wandb.init` has received the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row."""
        number, self._rows = self._rows, self._rows + 1
        row = dict(metrics) if step is None else {**metrics, STEP: step}
        self._attempt("a row of metrics", lambda: self._run.log(row, step=number))

    def replay(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Log rows of metrics.csv from an earlier process that the server does not have."""
        first = int(self._run.step or 0)
        for number, row in enumerate(rows):
            if number >= first:
                numbers = {name: _number(cell) for name, cell in row.items() if name != "step"}
                line = {**numbers, STEP: int(row["step"])}
                self._attempt("a row of metrics", lambda line=line, number=number: self._run.log(line, step=number))  # type: ignore[misc]

    def log_image(self, key: str, path: Path) -> None:
        """Log an image file."""
        import wandb

        self._attempt(key, lambda: self._run.log({key: wandb.Image(str(path))}))

    def log_table(self, key: str, table: pl.DataFrame) -> None:
        """Log a table."""
        import wandb

        rows = [[_plain(cell) for cell in row] for row in table.iter_rows()]
        self._attempt(key, lambda: self._run.log({key: wandb.Table(columns=list[str | int](table.columns), data=rows)}))

    def log_artifact(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """Log a checkpoint file with its metadata."""
        import wandb

        def send() -> None:
            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            artifact.add_file(str(path))
            self._run.log_artifact(artifact)

        self._attempt(name, send)

    def finish(self, status: int = 0) -> None:
        """Close the run."""
        self._attempt("the end of the run", lambda: self._run.finish(exit_code=status))

    def _set_axes(self) -> None:
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP, step_sync=True)

    def _attempt(self, what: str, send: Callable[[], Any]) -> None:
        """Call `send`; after the first failure, print a note and send nothing more."""
        if self._broken:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001 - no failure of W&B may stop the training
            self._broken = True
            print(f"note: W&B failed to log {what}; nothing more is logged there: {one_line(error)}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """First line of an error's message, or the name of its type."""
    return str(error).partition("\n")[0] or type(error).__name__


def _number(cell: str) -> float | int:
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _plain(cell: Any) -> Any:
    return cell if cell is None or isinstance(cell, (bool, int, float, str)) else str(cell)
