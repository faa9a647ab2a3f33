"""Running the cells of a suite, one after another or in several processes, and keeping one small JSON of each."""

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
    """Where a suite's results are kept, and where its runs are.

    Args:
        suite: the suite.
        words: `key=value` words on top of every cell's.
        results: folder of the results, with the runs in it below runs/; None is benchmarks/results/<name>, and
            runs/<name> for the runs.
    """

    def __init__(self, suite: Suite, words: Sequence[str] = (), results: Path | None = None) -> None:
        self.suite = suite
        self.words = tuple(words)
        self.results = results or Path("benchmarks") / "results" / suite.name
        # Those of other results are others: a try-out must not take the folder of a run that is half done.
        self.runs = Path("runs") / suite.name if results is None else results / "runs"
        self._configs: dict[str, Config] = {}
        self._statuses: dict[str, tuple[int, Status]] = {}  # with the time at which the result was written

    def config(self, cell: Cell) -> Config:
        """What a cell runs."""
        if cell.name not in self._configs:
            self._configs[cell.name] = cell.load_config([*self.words, f"run.dir={self.run_folder(cell)}"])
        return self._configs[cell.name]

    def run_folder(self, cell: Cell) -> Path:
        """Where a cell's run is."""
        return self.runs / cell.name

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """What was kept of a cell, None when nothing was."""
        path = self.path(cell)
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable result: {error}; remove it, and the cell is run again") from None
        if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
            raise InputError(f"{path}: not a result of a suite; remove it, and the cell is run again")
        return content

    def status(self, cell: Cell) -> Status:
        """Whether a cell's result is there, and of the configuration that the suite has now."""
        try:
            written = self.path(cell).stat().st_mtime_ns
        except FileNotFoundError:
            return "missing"
        known = self._statuses.get(cell.name)
        if known is None or known[0] != written:
            known = self._statuses[cell.name] = (written, self._compare(cell))
        return known[1]

    def _compare(self, cell: Cell) -> Status:
        content = self.read(cell)
        if content is None:
            return "missing"
        try:
            kept = from_container(content["config"], source=str(self.path(cell)))
        except (InputError, KeyError):
            return "outdated"
        differing = [
            key for key, *_ in differences(kept, self.config(cell), CHANGEABLE_KEYS) if not key.startswith("logging.")
        ]
        return "outdated" if differing else "done"

    def path(self, cell: Cell) -> Path:
        """The file of a cell's result."""
        return self.results / f"{cell.name}.json"

    @contextlib.contextmanager
    def lock(self, cell: Cell) -> Iterator[bool]:
        """Whether nobody else is at this cell; they are kept from it until the end, as far as the disk has locks."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / f"{cell.name}.lock").open("w") as handle:
            yield try_lock(handle)


def run_suite(store: Store, cells: Sequence[Cell]) -> list[str]:
    """Run the cells whose result is not there; returns the names of those that failed, which stops no other.

    A run that was cut off is taken up where its last checkpoint stands, unless it was of another configuration.
    """
    failed = []
    for count, cell in enumerate(cells, start=1):
        place = f"[{count}/{len(cells)}] {cell.name}"
        with store.lock(cell) as ours:
            if not ours:
                print(f"{place}: another process is at it", flush=True)
                continue
            if store.status(cell) == "done":
                continue
            try:
                results = _run(store, cell)
            except Exception as error:  # noqa: BLE001 - one cell's failure does not cost the others
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
    """`run_suite` in several processes, which share the cells by their locks. With several GPUs each sees one."""
    gpus, spawn = _gpus(), multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_job, args=(store, cells, gpus[job % len(gpus)] if len(gpus) > 1 else None))
        for job in range(jobs)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except BaseException:  # of the one that was asked to stop; the others then stop too, at their last checkpoints
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process sees."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")][:count] if named else [str(gpu) for gpu in range(count)]


def _job(store: Store, cells: Sequence[Cell], gpu: str | None) -> None:
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
        with contextlib.redirect_stdout(console):  # a line for a cell is enough
            results = fit(config).results
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.txt").write_text(console.getvalue())
    content = {
        "suite": store.suite.name,
        "cell": dict(cell.labels),
        "elapsed": round(time.monotonic() - started, 1),  # seconds, with data, baselines and the test
        "results": results,
        "config": to_container(replace(config, resume=None)),
    }
    store.results.mkdir(parents=True, exist_ok=True)
    write_atomically(store.path(cell), json.dumps(content, indent=1) + "\n")
    return results


def _unfinished(folder: Path, config: Config) -> bool:
    """Whether the folder holds a run of this configuration that can go on."""
    try:
        return not differences(load_config([folder / "config.yaml"]), config, CHANGEABLE_KEYS)
    except InputError:
        return False
