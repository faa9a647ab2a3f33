"""Tables of docs/zero_shot.md, written from the stored results."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from bold import bold_best

from . import long_term, short_series

MARKER = "<!-- below: written by benchmarks/zeroshot.py report -->"
NAIVE = "seasonal-naive"
_ROOT = Path(__file__).parents[2]
_SUPERVISED = _ROOT / "benchmarks" / "results" / "forecasting"
_SUITE = _ROOT / "configs" / "forecasting" / "suite.yaml"
_OURS = {  # models of the suite to the ends of the names of their files
    "LMM": "LMM",
    "linear (least absolute error)": "linear-least-absolute-error-",
    "Transformer (attention only)": "Transformer-attention-only-",
}
_PUBLISHED = ("PatchTST (tuned lookback)",)
# Granite TTM-R2, zero-shot, context 1,536: mean squared error at horizons 96, 192, 336 and 720, from its result files.
_TTM = {
    "ETTh1": (0.357, 0.386, 0.405, 0.435),
    "ETTh2": (0.274, 0.331, 0.356, 0.392),
    "ETTm1": (0.327, 0.353, 0.387, 0.399),
    "ETTm2": (0.168, 0.231, 0.276, 0.350),
    "Weather": (0.150, 0.192, 0.248, 0.316),
}
_TTM_512 = {"ETTh1": 0.407, "ETTh2": 0.356, "ETTm1": 0.392, "ETTm2": 0.288, "Weather": 0.230}  # means of the horizons


class Row(NamedTuple):
    """Errors of one forecaster; a missing number is None."""

    label: str
    training: str  # on the dataset or not
    context: str
    errors: dict[str, tuple[float | None, float | None]]  # dataset to mean squared and absolute error
    coverage: float | None = None  # mean over datasets and horizons


def write_page(page: Path, folder: Path) -> None:
    """Replace the tables below the marker of `page` by those of the results in `folder`."""
    head, found, _ = page.read_text().partition(MARKER)
    if not found:
        raise ValueError(f"{page} has no line {MARKER}")
    page.write_text(head + MARKER + "\n\n" + tables(folder))


def tables(folder: Path) -> str:
    """Return all tables as Markdown."""
    long, short, speed = (_read(folder, kind) for kind in ("long", "short", "speed"))
    sampled = [figures for figures in long if figures["every"] > 1]
    long = [figures for figures in long if figures["every"] == 1]
    parts = [
        "## Long-term datasets, mean of four horizons",
        _error_table([*_zero_shot_rows(long), *_supervised_rows()]),
        "Test MSE / MAE on z-scores, all windows; bold: best of its column; italics: as published. Coverage is that of "
        "the 80 % interval, mean over datasets and horizons.",
        "## Long-term datasets by horizon, zero-shot",
        _horizon_table(long),
        "MSE / MAE of the median; relative: ratio to seasonal naive. Coverage is that of the 80 % interval; WQL is "
        "the weighted quantile loss of nine quantiles on z-scores; MASE is scaled by seasonal naive on the training "
        "rows. `of the mean`: MSE / MAE of the mean of the quantiles.",
        *_context_tables(sampled),
        "## Real series of public packages",
        *_short_tables(short),
    ]
    if speed:
        parts += ["## Speed on one CPU core", _speed_table(speed)]
    return "\n\n".join(parts) + "\n"


def _read(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the figures of all results of a kind, seasonal naive first."""
    found = [json.loads(path.read_text())["figures"] for path in sorted(folder.glob(f"{kind}_*.json"))]
    return sorted(found, key=lambda figures: figures["name"] != NAIVE)


def _zero_shot_rows(long: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the zero-shot rows of forecasters with results on all datasets, and those of TTM-R2."""
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for figures in long:
        found.setdefault((figures["name"], figures["context"]), {})[figures["dataset"]] = figures
    rows = [
        Row(
            _label(name),
            "none" if name == NAIVE else "zero-shot",
            str(context),
            {
                dataset: (
                    long_term.mean_over_horizons(figures, "mse"),
                    long_term.mean_over_horizons(figures, "mae"),
                )
                for dataset, figures in by_dataset.items()
            },
            statistics.fmean(long_term.mean_over_horizons(figures, "coverage") for figures in by_dataset.values()),
        )
        for (name, context), by_dataset in found.items()
    ]
    ttm: list[tuple[str, dict[str, float]]] = [
        ("1536", {dataset: statistics.fmean(values) for dataset, values in _TTM.items()}),
        ("512", _TTM_512),
    ]
    return rows + [
        Row("*TTM-R2*", "zero-shot", context, {dataset: (value, None) for dataset, value in values.items()})
        for context, values in ttm
    ]


def _supervised_rows() -> list[Row]:
    """Return our supervised models' rows, means over seeds and horizons, and published ones."""
    rows = []
    for label, ending in _OURS.items():
        errors, lookbacks = {}, set()
        for dataset in long_term.DATASETS:
            runs = [
                json.loads(path.read_text())["results"] for path in _SUPERVISED.glob(f"seed*_{dataset}_*_{ending}.json")
            ]
            errors[dataset] = tuple(_mean_of_horizons(runs, metric) for metric in ("test/mse", "test/mae"))
            lookbacks |= {run["context_length"] for run in runs}
        rows.append(Row(label, "supervised", f"{min(lookbacks)} to {max(lookbacks)}", errors))  # type: ignore[arg-type]
    for published in yaml.safe_load(_SUITE.read_text())["published"]:
        if published["name"] in _PUBLISHED:
            errors = {
                dataset: tuple(statistics.fmean(pair[at] for pair in values.values()) for at in (0, 1))
                for dataset, values in published["values"].items()
            }
            name = published["name"].partition(" (")[0]
            rows.append(Row(f"*{name}*", "supervised", published["facts"]["context_length"], errors))  # type: ignore[arg-type]
    return rows


def _mean_of_horizons(runs: Sequence[dict[str, Any]], metric: str) -> float:
    by_horizon: dict[int, list[float]] = {}
    for run in runs:
        by_horizon.setdefault(run["horizon"], []).append(run[metric])
    return statistics.fmean(statistics.fmean(values) for values in by_horizon.values())


def _error_table(rows: Sequence[Row]) -> str:
    columns: list[list[str]] = []
    for dataset in (*long_term.DATASETS, "mean"):
        pairs = []
        for row in rows:
            if dataset == "mean":
                known = [row.errors.get(name, (None, None)) for name in long_term.DATASETS]
                pairs.append(tuple(_mean([pair[at] for pair in known]) for at in (0, 1)))
            else:
                pairs.append(row.errors.get(dataset, (None, None)))
        halves = [bold_best([_text(pair[at]) for pair in pairs], min) for at in (0, 1)]
        columns.append(
            [" / ".join(texts) if any(t != "-" for t in texts) else "" for texts in zip(*halves, strict=True)]
        )
    header = ["forecaster", "training on the dataset", "context", *long_term.DATASETS, "mean", "coverage"]
    body = [
        [row.label, row.training, row.context, *cells, "" if row.coverage is None else f"{100 * row.coverage:.0f} %"]
        for row, cells in zip(rows, zip(*columns, strict=True), strict=True)
    ]
    return _markdown(header, body)


def _horizon_table(long: Sequence[dict[str, Any]]) -> str:
    naive = {figures["dataset"]: figures["horizons"] for figures in long if figures["name"] == NAIVE}
    body = []
    for dataset in long_term.DATASETS:
        for figures in long:
            if figures["dataset"] != dataset:
                continue
            for horizon, found in figures["horizons"].items():
                reference = naive.get(dataset, {}).get(horizon)
                relative = (
                    f"{found['mse'] / reference['mse']:.3f} / {found['mae'] / reference['mae']:.3f}"
                    if reference
                    else ""
                )
                body.append(
                    [
                        dataset,
                        _label(figures["name"]),
                        str(figures["context"]),
                        horizon,
                        str(found["windows"]),
                        f"{found['mse']:.3f} / {found['mae']:.3f}",
                        relative,
                        f"{found['mse_of_mean']:.3f} / {found['mae_of_mean']:.3f}",
                        f"{found['wql']:.3f}",
                        f"{found['mase']:.3f}",
                        f"{100 * found['coverage']:.0f} %",
                    ]
                )
    header = [
        "data",
        "forecaster",
        "context",
        "horizon",
        "windows",
        "MSE / MAE",
        "relative",
        "of the mean",
        "WQL",
        "MASE",
    ]
    return _markdown([*header, "coverage"], body)


def _context_tables(sampled: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of errors by the length of the context, on a sample of the windows; none without results."""
    by_context: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for figures in sampled:
        by_context.setdefault((figures["name"], figures["every"], figures["context"]), []).append(figures)
    complete = {key: found for key, found in by_context.items() if len(found) == len(long_term.DATASETS)}
    if not complete:
        return []
    body = []
    for (name, every, context), found in sorted(complete.items()):
        cells = []
        for horizon in ("96", "720"):
            scores = [figures["horizons"][horizon] for figures in found]
            means = {key: statistics.fmean(score[key] for score in scores) for key in ("mse", "mae", "coverage")}
            cells += [f"{means['mse']:.3f} / {means['mae']:.3f}", f"{100 * means['coverage']:.0f} %"]
        speed = statistics.fmean(figures["forecasts_a_second"] for figures in found)
        body.append([_label(name), str(context), str(every), *cells, f"{speed:.0f}"])
    header = ["forecaster", "context", "every n-th window", "MSE / MAE at 96", "coverage", "at 720", "coverage"]
    return [
        "## Length of the context",
        _markdown([*header, "forecasts per second"], body),
        "Means over the five datasets, on a sample of the test windows. The memory reads the whole context; "
        "statistics, periods and candidates look back 2,048 rows at most.",
    ]


def _short_tables(short: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table per half and metric, and the list of the series of the evaluated halves."""
    parts = []
    for half in short_series.HALVES:
        found = [figures for figures in short if figures["half"] == half]
        if not found:
            continue
        groups = list(found[0]["summary"])
        counts = [f"{group} ({found[0]['summary'][group]['series']})" for group in groups]
        for metric, title in (("mase_ratio", "MASE"), ("wql_ratio", "weighted quantile loss")):
            columns = [bold_best([f"{one['summary'][group][metric]:.3f}" for one in found], min) for group in groups]
            rows = [[_label(one["name"]), *cells] for one, cells in zip(found, zip(*columns, strict=True), strict=True)]
            parts.append(f"### {half.capitalize()} half: {title} relative to seasonal naive")
            parts.append(_markdown(["forecaster", *counts], rows))
        rows = [
            [
                _label(one["name"]),
                *(f"{100 * one['summary'][group]['coverage']:.0f} %" for group in groups),
                _milliseconds(one["summary"]["all"]["milliseconds_a_forecast"]),
            ]
            for one in found
        ]
        parts.append(f"### {half.capitalize()} half: coverage of the 80 % interval")
        parts.append(_markdown(["forecaster", *counts, "ms per forecast"], rows))
    parts.append("Geometric means over series; the number of series is in brackets. Times are CPU time.")
    return [*parts, _series_list(short)]


def _series_list(short: Sequence[dict[str, Any]]) -> str:
    lines = {}
    for figures in short:
        for name, facts in figures["series"].items():
            cells = [
                name,
                figures["half"],
                facts["frequency"],
                str(facts["period"]),
                str(facts["rows"]),
                facts["source"],
            ]
            lines[name] = [cell.replace("|", "/") for cell in cells]
    table = _markdown(["series", "half", "frequency", "period", "rows", "source"], list(lines.values()))
    return f"<details markdown>\n<summary>The {len(lines)} series</summary>\n\n{table}\n\n</details>"


def _speed_table(speed: Sequence[dict[str, Any]]) -> str:
    body = []
    for figures in speed:
        for context, found in figures.items():
            if context.isdigit():
                ours, peer = found["ours"], found["Chronos-Bolt-tiny"]
                body.append(
                    [
                        _label(figures["name"]),
                        context,
                        f"{ours['series_a_second']:.0f}",
                        f"{peer['series_a_second']:.0f}",
                        f"{found['times_as_fast']:.1f}",
                    ]
                )
    header = ["forecaster", "context", "series per second", "Chronos-Bolt-tiny", "ratio"]
    return (
        _markdown(header, body) + "\n\nHorizon 64, one thread, best batch size of each, medians of alternating rounds."
    )


def _label(name: str) -> str:
    return "seasonal naive" if name == NAIVE else name


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
