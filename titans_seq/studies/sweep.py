"""Runs a sweep on this machine, one run after another, and writes a table and a plot."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from titans_seq.config import differences, load_config
from titans_seq.errors import InputError
from titans_seq.experiment.fit import fit
from titans_seq.experiment.run.loggers import print_note
from titans_seq.experiment.run.resume import CHANGEABLE_KEYS, read_results
from titans_seq.experiment.run.trainer import is_first_process
from titans_seq.schema import Config
from titans_seq.studies.plots import plot_parallel
from titans_seq.studies.sweep_file import Sweep
from titans_seq.system.files import write_atomically


def run_sweep(sweep: Sweep, folder: Path | None = None, *, seed: int = 0) -> pl.DataFrame:
    """Run the unfinished runs of a sweep in `folder` (default: runs/<name>); write sweep.csv and sweep.png there.

    An interrupted run resumes where it stopped; a run that fails because of its values (`InputError`) is listed without
    a score. Returns the table, best validation score first; test scores are never used for selection.
    """
    folder = folder or Path("runs") / sweep.name
    combinations = list(sweep.combinations(seed))
    configs = [sweep.config(values, folder / f"{number:03}") for number, values in enumerate(combinations, start=1)]
    _record_sweep(folder, sweep, seed, configs)
    rows = []
    for number, (values, config) in enumerate(zip(combinations, configs, strict=True), start=1):
        summary = ", ".join(f"{name}={_short(value)}" for name, value in values.items())
        print(f"[{number}/{len(combinations)}] {summary}", flush=True)
        results = read_results(Path(str(config.run.dir)))
        try:
            if results is None:
                quiet = replace(config, trainer=replace(config.trainer, progress_bar=False))
                results = fit(quiet).results
            score = results.get(f"best_{sweep.metric}")
            if score is None:
                used = ", ".join(name[5:] for name in results if name.startswith("best_val/"))
                raise InputError(f"metric.name: {sweep.metric} does not select these runs' checkpoints; use {used}")
        except InputError as error:
            print_note(f"run {number:03}: {error}")
            score = None
        plain = {name: str(value) if isinstance(value, list) else value for name, value in values.items()}
        rows.append({"run": f"{number:03}", **plain, sweep.metric: score})
    table = pl.DataFrame(rows, infer_schema_length=None)
    table = table.sort(sweep.metric, descending=sweep.maximize, nulls_last=True)
    if is_first_process():
        write_atomically(folder / "sweep.csv", table.write_csv())
        scored = table.drop_nulls(sweep.metric)
        if len(scored):
            plot_parallel(
                folder / "sweep.png",
                columns={name: scored[name].to_list() for name in [*sweep.parameters, sweep.metric]},
                maximize=sweep.maximize,
                title=f"{sweep.name}: {len(scored)} runs by {sweep.metric}",
            )
    return table


def sweep_text(table: pl.DataFrame) -> str:
    """Format the table for the terminal."""
    cells = [[_short(cell) if cell is not None else "-" for cell in row] for row in [table.columns, *table.iter_rows()]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.columns))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells)


def _record_sweep(folder: Path, sweep: Sweep, seed: int, configs: Sequence[Config]) -> None:
    """Write the sweep's definition to sweep.json in `folder`.

    Raises InputError when the folder belongs to another sweep, or contains a run with another configuration.
    """
    definition: dict[str, Any] = {
        "method": sweep.method,
        "parameters": {name: dict(spec) for name, spec in sweep.parameters.items()},
        "files": list(sweep.files),
        "words": list(sweep.overrides),
        "seed": seed,
    }
    path = folder / "sweep.json"
    if path.exists():
        if json.loads(path.read_text()) != definition:
            raise InputError(f"{folder}: contains another sweep's runs ({path}); choose another folder with --out")
        for config in configs:
            _check_same_configuration(config)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(definition, indent=2) + "\n")


def _check_same_configuration(config: Config) -> None:
    """Raise InputError if a run's folder contains a run with other values: one table must not rank both."""
    file = Path(str(config.run.dir)) / "config.yaml"
    if file.exists() and (found := differences(load_config([file]), config, CHANGEABLE_KEYS)):
        key, before, now = found[0]
        raise InputError(
            f"{file}: {key} is {before}, but {now} in the sweep; remove that folder to repeat the run, or choose "
            "another with --out"
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
