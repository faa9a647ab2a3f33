"""Runs the cells of a suite, one after another or in several processes, and writes one small JSON file for each."""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from titans_seq.config import differences, from_container, load_config, to_container
from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.fit import fit
from titans_seq.experiment.run.resume import CHANGEABLE_KEYS
from titans_seq.schema import Config
from titans_seq.studies.suite import Cell, Suite
from titans_seq.system.console import quiet
from titans_seq.system.files import try_lock, write_atomically
from titans_seq.system.signals import StopSignals

Status = Literal["done", "outdated", "missing"]


class Store:
    """Folders of a suite's results and runs.

    Args:
        suite: the suite.
        overrides: `key=value`, applied to every cell last.
        results: folder of the results, whose subfolder runs/ has the runs; None: benchmarks/results/<name>, and the
            runs are in runs/<name>.
    """

    def __init__(self, suite: Suite, overrides: Sequence[str] = (), results: Path | None = None) -> None:
        self.suite = suite
        self.overrides = tuple(overrides)
        self.results = results or Path("benchmarks") / "results" / suite.name
        # Another folder of results has its own runs, so that a trial does not take the folder of an unfinished run.
        self.runs = Path("runs") / suite.name if results is None else results / "runs"
        self._configs: dict[str, Config] = {}
        self._statuses: dict[str, tuple[int, Status]] = {}  # with the modification time of the result's file

    def config(self, cell: Cell) -> Config:
        """Return the configuration of a cell."""
        if cell.name not in self._configs:
            self._configs[cell.name] = cell.load_config([*self.overrides, f"run.dir={self.run_folder(cell)}"])
        return self._configs[cell.name]

    def run_folder(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self.runs / cell.name

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """Return the stored result of a cell, or None if there is none."""
        path = self.path(cell)
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable result: {error}; remove it to run the cell again") from None
        if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
            raise InputError(f"{path}: not a result of a suite; remove it to run the cell again")
        return content

    def status(self, cell: Cell) -> Status:
        """Whether a cell's result exists and belongs to the suite's present configuration."""
        try:
            written = self.path(cell).stat().st_mtime_ns
        except FileNotFoundError:
            return "missing"
        cached = self._statuses.get(cell.name)
        if cached is None or cached[0] != written:
            cached = self._statuses[cell.name] = (written, self._compare(cell))
        return cached[1]

    def _compare(self, cell: Cell) -> Status:
        content = self.read(cell)
        if content is None:
            return "missing"
        try:
            stored = from_container(content["config"], source=str(self.path(cell)))
        except (InputError, KeyError):
            return "outdated"
        differing = [
            key for key, *_ in differences(stored, self.config(cell), CHANGEABLE_KEYS) if not key.startswith("logging.")
        ]
        return "outdated" if differing else "done"

    def path(self, cell: Cell) -> Path:
        """Return the file of a cell's result."""
        return self.results / f"{cell.name}.json"

    @contextlib.contextmanager
    def lock(self, cell: Cell) -> Iterator[bool]:
        """Try to lock a cell against other processes, where the file system has locks; yields whether it succeeded."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / f"{cell.name}.lock").open("w") as handle:
            yield try_lock(handle)


def run_suite(store: Store, cells: Sequence[Cell]) -> list[str]:
    """Run the cells that have no result; return the names of those that failed. A failure does not stop the others.

    An interrupted run resumes from its last checkpoint, unless it has another configuration.
    """
    failed = []
    for count, cell in enumerate(cells, start=1):
        place = f"[{count}/{len(cells)}] {cell.name}"
        with store.lock(cell) as acquired:
            if not acquired:
                print(f"{place}: another process is running it", flush=True)
                continue
            if store.status(cell) == "done":
                continue
            try:
                results = _run(store, cell)
            except Exception as error:  # noqa: BLE001 - one cell's failure must not stop the others
                failed.append(cell.name)
                log = store.runs / f"{cell.name}.error.txt"
                log.write_text(traceback.format_exc())
                reason = str(error).partition("\n")[0] or type(error).__name__
                print(f"{place}: failed: {reason} ({log})", file=sys.stderr, flush=True)
                continue
        scores = ", ".join(
            f"{heading} {results[key]:.4f}" for key, heading in store.suite.table.metrics.items() if key in results
        )
        print(f"{place}: {scores} ({results['seconds']:.0f} s of training)", flush=True)
    return failed


def run_in_parallel(store: Store, cells: Sequence[Cell], jobs: int) -> None:
    """Call `run_suite` in several processes, which share the cells by locks; with several GPUs, each sees one."""
    gpus, spawn = _gpus(), multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_run_worker, args=(store, cells, gpus[job % len(gpus)] if len(gpus) > 1 else None))
        for job in range(jobs)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except BaseException:  # a stop signal to this process: stop the others too; they write a checkpoint first
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise


def _gpus() -> list[str]:
    """Return the names, as in CUDA_VISIBLE_DEVICES, of the GPUs that this process sees."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")][:count] if named else [str(gpu) for gpu in range(count)]


def _run_worker(store: Store, cells: Sequence[Cell], gpu: str | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used
    quiet()
    try:
        with StopSignals():
            run_suite(store, cells)
    except Interrupted as stop:
        print(f"titans-seq: {stop}", file=sys.stderr)
        sys.exit(stop.status)


def _run(store: Store, cell: Cell) -> dict[str, Any]:
    folder, config = store.run_folder(cell), store.config(cell)
    if _unfinished(folder, config):
        config = replace(config, resume=str(folder))
    elif folder.exists():
        shutil.rmtree(folder)
    started = time.monotonic()
    console = io.StringIO()
    try:
        with contextlib.redirect_stdout(console):  # one line per cell is printed instead
            results = fit(config).results
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.txt").write_text(console.getvalue())
    content = {
        "suite": store.suite.name,
        "cell": dict(cell.labels),
        "elapsed": round(time.monotonic() - started, 1),  # seconds, including data, baselines and the test
        "results": results,
        "config": to_container(replace(config, resume=None)),
    }
    store.results.mkdir(parents=True, exist_ok=True)
    write_atomically(store.path(cell), json.dumps(content, indent=1) + "\n")
    return results


def _unfinished(folder: Path, config: Config) -> bool:
    """Whether the folder contains a run of this configuration that can resume."""
    try:
        return not differences(load_config([folder / "config.yaml"]), config, CHANGEABLE_KEYS)
    except InputError:
        return False
