"""Compares runs: means and standard deviations over seeds, and differences from a baseline, seed by seed."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titans_seq.config import flatten, load_config
from titans_seq.errors import InputError
from titans_seq.experiment.run.resume import CHANGEABLE_KEYS, read_results
from titans_seq.studies.plots import plot_comparison
from titans_seq.studies.statistics import mean_interval, student_p

_TESTED = 4  # seeds from which on a p-value is printed; with fewer it says more about the test than about the runs


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed."""

    name: str
    scores: dict[int, dict[str, float]]  # test scores by name, for each seed

    def values(self, metric: str) -> list[float]:
        """Return the scores of all seeds."""
        return [scores[metric] for scores in self.scores.values()]


@dataclass(frozen=True)
class Comparison:
    """Comparison of a group with the baseline, over the seeds that both have."""

    seeds: int
    difference: float  # mean over seeds of group minus baseline
    interval: tuple[float, float]  # 95 % confidence interval of the difference; NaN for fewer than two seeds
    p: float  # two-sided p-value of a paired t-test; NaN for too few seeds, or if all differ by the same


def compare(
    folders: Sequence[str | Path], *, baseline: str | None = None, metrics: Sequence[str] = (), out: Path | None = None
) -> str:
    """Return the table of finished runs, and with `out` draw a plot.

    Args:
        folders: run folders, or folders with runs somewhere below (such as those of `seeds` or of a sweep).
        baseline: name of the group that the others are tested against.
        metrics: keys of results.json, such as test/mse; empty: all test scores.
        out: PNG file.

    Raises InputError for folders without a finished run, unknown names, or runs on different data.
    """
    groups = read_run_groups(folders)
    shared = [name for name in next(iter(groups[0].scores.values())) if all(_has(group, name) for group in groups)]
    selected = list(metrics) or shared
    for name in selected:
        if name not in shared:
            raise InputError(f"--metric {name}: not in every run; available: {', '.join(shared)}")
    reference = None
    if baseline is not None:
        named = {group.name: group for group in groups}
        if baseline not in named:
            raise InputError(f"--baseline {baseline}: unknown group; available: {'; '.join(named)}")
        reference = named[baseline]
    if out is not None:
        plot_comparison(out, scores={name: {g.name: g.values(name) for g in groups} for name in selected})
    return "\n\n".join(_table(groups, metric, reference) for metric in selected)


def read_run_groups(folders: Sequence[str | Path]) -> list[RunGroup]:
    """Group runs by configuration, named by the keys in which the groups differ.

    Raises InputError for runs on different data, or two runs of a group with the same seed.
    """
    runs = [run for folder in folders for run in _finished_runs(Path(folder))]
    configs = [flatten(load_config([run / "config.yaml"])) for run in runs]
    results = [read_results(run) or {} for run in runs]
    data = {str(result.get("data")) for result in results}
    if len(data) > 1:
        raise InputError(f"runs on different data cannot be compared: {', '.join(sorted(data))}")
    same = CHANGEABLE_KEYS | {"seed", "seeds"}
    keys = [key for key in dict.fromkeys(key for config in configs for key in config) if key not in same]
    keys = [key for key in keys if not key.startswith("logging.")]
    differing = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    groups: dict[str, dict[int, dict[str, float]]] = {}
    for run, config, result in zip(runs, configs, results, strict=True):
        name = ", ".join(f"{key}={config.get(key)}" for key in differing) or str(config["experiment"])
        if config["seed"] in groups.setdefault(name, {}):
            raise InputError(f"{run}: a second run of {name} with seed {config['seed']}; omit one of them")
        scores = {key: float(value) for key, value in result.items() if key.startswith("test/")}
        groups[name][int(config["seed"])] = scores
    return [RunGroup(name, scores) for name, scores in groups.items()]


def paired_test(group: RunGroup, baseline: RunGroup, metric: str) -> Comparison:
    """Compare over the seeds that both groups have, with a paired t-test if they are enough."""
    seeds = sorted(group.scores.keys() & baseline.scores.keys())
    differences = [group.scores[seed][metric] - baseline.scores[seed][metric] for seed in seeds]
    if not differences:
        return Comparison(0, math.nan, (math.nan, math.nan), math.nan)
    count, mean, interval = len(differences), statistics.fmean(differences), mean_interval(differences)
    spread = statistics.stdev(differences) if count > 1 else 0.0
    if count < _TESTED or spread <= 1e-9 * max(map(abs, differences)):  # up to rounding there is no spread
        return Comparison(count, mean, interval, math.nan)
    return Comparison(count, mean, interval, student_p(mean / (spread / math.sqrt(count)), count - 1))


def _finished_runs(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    runs = sorted(path.parent for path in folder.rglob("results.json") if (path.parent / "config.yaml").exists())
    if not runs:
        raise InputError(f"{folder}: contains no finished run (results.json next to config.yaml)")
    yield from runs


def _has(group: RunGroup, metric: str) -> bool:
    return all(metric in scores for scores in group.scores.values())


def _table(groups: Sequence[RunGroup], metric: str, baseline: RunGroup | None) -> str:
    width = max(len(metric), *(len(group.name) for group in groups))
    head = f"{metric:<{width}}  seeds        mean          sd"
    others = [group for group in groups if group is not baseline] if baseline else []
    cells = {group.name: _comparison_cells(paired_test(group, baseline, metric)) for group in others if baseline}
    titles = (f"minus {baseline.name if baseline else ''}", "95 % interval", "p (paired t)", "")
    columns = list(zip(titles, *cells.values(), strict=True))
    widths = [max(map(len, column)) for column in columns]

    def aligned(row: Sequence[str]) -> str:
        return "".join(f"  {cell:>{size}}" for cell, size in zip(row, widths, strict=True)).rstrip()

    lines = [head + (aligned(titles) if baseline else "")]
    for group in groups:
        values = group.values(metric)
        spread = f"{statistics.stdev(values):>12.4f}" if len(values) > 1 else f"{'-':>12}"
        line = f"{group.name:<{width}}  {len(values):>5}{statistics.fmean(values):>12.4f}{spread}"
        lines.append(line + (aligned(cells[group.name]) if group.name in cells else ""))
    return "\n".join(lines)


def _comparison_cells(comparison: Comparison) -> tuple[str, str, str, str]:
    """Difference, its interval, p-value and number of seeds."""
    if not comparison.seeds:
        return "-", "-", "no common seed", ""
    interval = "-" if comparison.seeds < 2 else f"[{', '.join(map(_signed, comparison.interval))}]"
    p = f"{comparison.p:.4f}" if comparison.p >= 1e-4 else "< 0.0001"
    if math.isnan(comparison.p):
        p = "too few seeds" if comparison.seeds < _TESTED else "-"
    return _signed(comparison.difference), interval, p, f"({comparison.seeds} seed{'s' * (comparison.seeds > 1)})"


def _signed(value: float) -> str:
    """A difference with four decimals, or with two digits where those would be zeros."""
    return f"{value:+.2g}" if 0 < abs(value) < 1e-3 else f"{value:+.4f}"


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Return means and standard deviations of the test scores of runs that differ only in their seed."""
    scores = {int(result["seed"]): {k: v for k, v in result.items() if k.startswith("test/")} for result in results}
    group = RunGroup(str(results[0]["experiment"]), scores)
    return "\n\n".join(_table([group], metric, None) for metric in next(iter(scores.values())))
