"""A W&B run whose failures are notes: whatever goes wrong over there, the training goes on."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

STEP = "trainer/global_step"  # the axis of W&B's pictures


class WandbRun(Logger):
    """Row i of metrics.csv is step i of the W&B run, so that a run that is resumed writes over itself.

    W&B drops steps that it has already: what a resumed run repeats is counted once.

    Args:
        run: what `wandb.init` gave.
        rows: rows that were logged before.
    """

    def __init__(self, run: Any, rows: int = 0) -> None:
        super().__init__()
        self._run = run
        self._rows = rows
        self._broken = False
        self._attempt("axes", self._set_axes)

    @property
    def name(self) -> str:
        """The project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self._run.id)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They were given when the run was started."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row."""
        number, self._rows = self._rows, self._rows + 1
        row = dict(metrics) if step is None else {**metrics, STEP: step}
        self._attempt("a row of metrics", lambda: self._run.log(row, step=number))

    def replay(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Log rows of metrics.csv that an earlier process has logged, those that the server lacks."""
        first = int(self._run.step or 0)
        for number, row in enumerate(rows):
            if number >= first:
                numbers = {name: _number(cell) for name, cell in row.items() if name != "step"}
                line = {**numbers, STEP: int(row["step"])}
                self._attempt("a row of metrics", lambda line=line, number=number: self._run.log(line, step=number))  # type: ignore[misc]

    def log_image(self, key: str, path: Path) -> None:
        """Send a picture."""
        import wandb

        self._attempt(key, lambda: self._run.log({key: wandb.Image(str(path))}))

    def log_table(self, key: str, table: pl.DataFrame) -> None:
        """Send a table."""
        import wandb

        rows = [[_plain(cell) for cell in row] for row in table.iter_rows()]
        self._attempt(key, lambda: self._run.log({key: wandb.Table(columns=list[str | int](table.columns), data=rows)}))

    def log_artifact(self, name: str, path: Path, facts: Mapping[str, Any]) -> None:
        """Send a checkpoint."""
        import wandb

        def send() -> None:
            artifact = wandb.Artifact(name, type="model", metadata=dict(facts))
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
        """Do it; a failure is said once, and nothing more is sent."""
        if self._broken:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001 - as above
            self._broken = True
            print(f"note: W&B did not take {what}, and gets no more of this run: {one_line(error)}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__


def _number(cell: str) -> float | int:
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _plain(cell: Any) -> Any:
    return cell if cell is None or isinstance(cell, (bool, int, float, str)) else str(cell)
