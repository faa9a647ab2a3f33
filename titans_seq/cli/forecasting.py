"""Commands of forecasters, trained or pre-trained: forecast, backtest and explain."""

import argparse
from pathlib import Path

from titans_seq.cli.command import (
    Command,
    add_checkpoint_arguments,
    add_optional_checkpoint_arguments,
    add_output_argument,
    split_checkpoints,
)
from titans_seq.cli.paths import check_paths, find_checkpoints
from titans_seq.system.console import quiet


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    add_optional_checkpoint_arguments(parser)
    help_text = "table to forecast, with a run: of its training data's columns (default: the training data)"
    parser.add_argument("--data", type=Path, help=help_text)
    help_text = "steps to forecast; with a run, recursively beyond the trained horizon (default: that horizon)"
    parser.add_argument("--horizon", type=int, help=help_text)


def _add_forecast_arguments(parser: argparse.ArgumentParser) -> None:
    _add_data_arguments(parser)
    parser.add_argument("--future", type=Path, help="table of the known covariates of the future steps")
    parser.add_argument("--plot", type=Path, help="PNG file to draw")
    help_text = (
        "time after which all series are forecast, or last: the last time of any of them (default: their own ends)"
    )
    parser.add_argument("--origin", metavar="DATE", help=help_text)
    help_text = "series or channel to draw with --plot; repeat for several (default: the first six)"
    parser.add_argument("--series", metavar="NAME", action="append", default=[], help=help_text)
    add_output_argument(parser, "forecast.parquet")


def _forecast(options: argparse.Namespace) -> None:
    checkpoints = find_checkpoints(split_checkpoints(options), refit=True)
    check_paths(options)
    quiet()
    from titans_seq.experiment import forecast

    table = forecast(
        checkpoints,
        options.out,
        options.words,
        data=options.data,
        future=options.future,
        horizon=options.horizon,
        plot=options.plot,
        series=options.series,
        origin=options.origin,
    )
    plot = f", plot: {options.plot}" if options.plot else ""
    timestamps = table["timestamp"].sort()
    print(f"{len(table):,} rows from {timestamps[0]} to {timestamps[-1]} written to {options.out}{plot}")


def _add_backtest_arguments(parser: argparse.ArgumentParser) -> None:
    _add_data_arguments(parser)
    parser.add_argument("--windows", type=int, default=10, help="forecasts per series (default: %(default)s)")
    parser.add_argument("--step", type=int, help="rows between two forecast origins (default: the horizon)")
    help_text = "statistical methods beside the model: none, auto (AutoETS, AutoTheta, MSTL), or names with commas"
    parser.add_argument("--baselines", default="none", help=f"{help_text} (default: %(default)s)")
    help_text = "widen or narrow the intervals of each series after every window by its coverage so far"
    parser.add_argument("--adaptive", action="store_true", help=help_text)
    help_text = "train anew for every window, on the rows before it: as many trainings as --windows"
    parser.add_argument("--refit", action="store_true", help=help_text)
    add_output_argument(parser, "backtest.csv")


def _backtest(options: argparse.Namespace) -> None:
    checkpoints = find_checkpoints(split_checkpoints(options))
    check_paths(options)
    quiet()
    from titans_seq.experiment import backtest, backtest_text

    table = backtest(
        checkpoints,
        options.out,
        options.words,
        data=options.data,
        windows=options.windows,
        step=options.step,
        horizon=options.horizon,
        baselines=options.baselines,
        adaptive=options.adaptive,
        refit=options.refit,
    )
    print(f"{backtest_text(table)}\n\nAll rows: {options.out}")


def _add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    help_text = "table with the columns of the training data (default: the training data)"
    parser.add_argument("--data", type=Path, help=help_text)
    help_text = "windows that are read, after the training rows (default: %(default)s)"
    parser.add_argument("--windows", type=int, default=200, help=help_text)
    parser.add_argument("--plot", type=Path, help="PNG file to draw: importance and effect by step of the horizon")
    add_output_argument(parser, "explain.csv")


def _explain(options: argparse.Namespace) -> None:
    check_paths(options)
    quiet()
    from titans_seq.experiment import explain, explanation_text

    table = explain(
        options.checkpoint,
        options.out,
        options.words,
        data=options.data,
        windows=options.windows,
        plot=options.plot,
    )
    plot = f", plot: {options.plot}" if options.plot else ""
    print(f"{explanation_text(table)}\n\nBy channel and step: {options.out}{plot}")


FORECAST = Command(
    "forecast",
    "forecast beyond the last row of a table, to Parquet or CSV",
    (
        "forecast --data sales.csv --horizon 28 --out forecast.csv --plot forecast.png",
        "forecast runs/table/last --data sales.csv --out forecast.csv --plot forecast.png",
        "forecast runs/table/2026-01-31_12-00-00/seed-0 runs/table/2026-01-31_12-00-00/seed-1 --data sales.csv",
    ),
    _add_forecast_arguments,
    _forecast,
)
BACKTEST = Command(
    "backtest",
    "evaluate on past data: rolling-origin backtest over a table's last rows",
    (
        "backtest --data sales.csv --horizon 28 --windows 8",
        "backtest runs/table/last --data sales.csv --windows 8 --step 7 --out backtest.csv",
    ),
    _add_backtest_arguments,
    _backtest,
)
EXPLAIN = Command(
    "explain",
    "measure how much each covariate of a forecaster matters, and the effect of the known ones",
    ("explain runs/table/last --data sales.csv --plot explain.png",),
    _add_explain_arguments,
    _explain,
)
