"""Compares runs: means and standard deviations over seeds, and paired t-tests against a baseline."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from titans_seq.config import flatten, load_config
from titans_seq.errors import InputError
from titans_seq.experiment.run.resume import CHANGEABLE_KEYS, read_results
from titans_seq.studies.plots import plot_comparison


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
    p: float  # two-sided p-value of a paired t-test; NaN for fewer than two seeds


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
    """Run a paired t-test over the seeds that both groups have."""
    seeds = sorted(group.scores.keys() & baseline.scores.keys())
    differences = [group.scores[seed][metric] - baseline.scores[seed][metric] for seed in seeds]
    if not differences:
        return Comparison(0, math.nan, math.nan)
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Comparison(len(differences), mean, math.nan)
    spread = statistics.stdev(differences)
    if spread == 0:
        return Comparison(len(differences), mean, 1.0 if mean == 0 else 0.0)
    t = mean / (spread / math.sqrt(len(differences)))
    return Comparison(len(differences), mean, student_p(t, len(differences) - 1))


def student_p(t: float, degrees: int) -> float:
    """Two-sided tail probability of Student's t-distribution, P(|T| > |t|).

    With x = sqrt(degrees) tan(a) its density is proportional to cos(a)^(degrees - 1), which Gauss-Legendre quadrature
    integrates to rounding.
    """
    nodes, weights = np.polynomial.legendre.leggauss(100)

    def integral(low: float) -> float:
        half = (math.pi / 2 - low) / 2
        angles = low + half * (nodes + 1)
        return float(half * (weights * np.cos(angles) ** (degrees - 1)).sum())

    return integral(math.atan(abs(t) / math.sqrt(degrees))) / integral(0.0)


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
    lines = [head + (f"  minus {baseline.name}   p (paired t)" if baseline else "")]
    for group in groups:
        values = group.values(metric)
        spread = f"{statistics.stdev(values):>12.4f}" if len(values) > 1 else f"{'-':>12}"
        line = f"{group.name:<{width}}  {len(values):>5}{statistics.fmean(values):>12.4f}{spread}"
        if baseline and group is not baseline:
            line += _comparison_cells(paired_test(group, baseline, metric), len(baseline.name))
        lines.append(line)
    return "\n".join(lines)


def _comparison_cells(comparison: Comparison, width: int) -> str:
    p = "-" if math.isnan(comparison.p) else f"{comparison.p:.4f}"
    difference = "-" if math.isnan(comparison.difference) else f"{comparison.difference:+.4f}"
    return f"  {difference:>{width + 6}}   {p:>12} ({comparison.seeds} seeds)"


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Return means and standard deviations of the test scores of runs that differ only in their seed."""
    scores = {int(result["seed"]): {k: v for k, v in result.items() if k.startswith("test/")} for result in results}
    group = RunGroup(str(results[0]["experiment"]), scores)
    return "\n\n".join(_table([group], metric, None) for metric in next(iter(scores.values())))
