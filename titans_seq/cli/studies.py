"""Commands for many runs: sweep, compare, benchmark."""

import argparse
from pathlib import Path

from titans_seq.cli.command import Command, without_overrides
from titans_seq.cli.paths import check_folders
from titans_seq.errors import InputError
from titans_seq.studies.suite import read_suite
from titans_seq.studies.sweep_file import read_sweep
from titans_seq.system.console import quiet


def _add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    without_overrides(parser)
    parser.add_argument("file", type=Path, help="a W&B sweep file, such as sweeps/grid")
    parser.add_argument("--out", type=Path, help="folder of the runs; finished ones are kept (default: runs/NAME)")
    parser.add_argument("--seed", type=int, default=0, help="seed of a random sweep (default: %(default)s)")


def _sweep(options: argparse.Namespace) -> None:
    if options.words:
        raise InputError(f"sweep takes one file; put {' '.join(options.words)} into its command or parameters")
    sweep = read_sweep(options.file)
    quiet()
    from titans_seq.studies.sweep import run_sweep, sweep_text

    table = run_sweep(sweep, options.out, seed=options.seed)
    print(f"\n{sweep_text(table)}\nIn {options.out or Path('runs') / sweep.name}: sweep.csv, sweep.png")


def _add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    without_overrides(parser)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that contain some")
    parser.add_argument("--baseline", help="group that the others are tested against, by its name in the table")
    parser.add_argument("--metric", action="append", default=[], help="such as test/mse; repeatable (default: all)")
    parser.add_argument("--out", type=Path, help="PNG file to draw")


def _compare(options: argparse.Namespace) -> None:
    folders = [*options.runs, *map(Path, options.words)]
    check_folders(folders)
    quiet()
    from titans_seq.studies.compare import compare

    print(compare(folders, baseline=options.baseline, metrics=options.metric, out=options.out))


def _add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", help="a suite file, such as forecasting/suite")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides for every run of the grid")
    help_text = "select the runs with these labels; repeatable"
    parser.add_argument("--only", action="append", default=[], metavar="AXIS=LABEL,...", help=help_text)
    help_text = "parallel processes, spread over the GPUs (default: %(default)s)"
    parser.add_argument("--jobs", type=int, default=1, help=help_text)
    parser.add_argument("--list", action="store_true", help="list which runs are done; run none")
    parser.add_argument("--report", action="store_true", help="write the tables from finished runs; run none")
    help_text = "folder of results and runs, whose finished runs are kept (default: benchmarks/results/NAME, runs/NAME)"
    parser.add_argument("--results", type=Path, help=help_text)


def _benchmark(options: argparse.Namespace) -> None:
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: must be at least 1")
    suite = read_suite(options.suite)
    cells = suite.select(options.only)
    suite.check(cells[:1] if options.list or options.report else cells, options.words)
    quiet()
    from titans_seq.studies.suite.running import Store, run_in_parallel, run_suite
    from titans_seq.studies.suite.table import write_report

    store = Store(suite, options.words, options.results)
    if options.list:
        for cell in cells:
            print(f"{store.status(cell):<10}{cell.name}")
        return
    failed: list[str] = []
    if not options.report and options.jobs > 1:
        run_in_parallel(store, cells, options.jobs)
        failed = [cell.name for cell in cells if store.status(cell) != "done"]
    elif not options.report:
        failed = run_suite(store, cells)
    for path in write_report(store):
        print(f"written to {path}")
    if failed:
        raise InputError(f"{len(failed)} of {len(cells)} runs failed or are not done: {', '.join(failed)}")


SWEEP = Command(
    "sweep",
    "run a W&B sweep file on this machine, without a server, and rank its runs by validation score",
    ("sweep sweeps/grid",),
    _add_sweep_arguments,
    _sweep,
)
COMPARE = Command(
    "compare",
    "compare finished runs: means, spreads over seeds, paired tests",
    ("compare runs/etth1 --baseline model.variant=transformer",),
    _add_compare_arguments,
    _compare,
)
BENCHMARK = Command(
    "benchmark",
    "run a suite (a grid of runs) and write its table beside published results",
    ("benchmark forecasting/suite --only data=ETTh1",),
    _add_benchmark_arguments,
    _benchmark,
)
