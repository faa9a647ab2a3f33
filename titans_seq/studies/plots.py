"""Plots of many runs: score tables, sweeps, comparisons."""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from titans_seq.plots import FORECAST_COLOUR, HISTORY_COLOUR, TRUTH_COLOUR, new_figure
from titans_seq.studies.statistics import mean_interval

_KINDS = {"ours": "trained here", "baseline": "baseline", "published": "published"}
_COLUMNS = 3  # panels beside each other in a comparison
_LABEL_WIDTH, _LABEL_LINES = 44, 4  # of a group's name in a comparison
_KEY = re.compile(r"[\w.]+(?==)")
_INTERVAL = "95 % confidence interval of the mean (3 seeds or more)"


def plot_scores(
    path: Path,
    *,
    panels: Mapping[str, Sequence[tuple[str, str, float, float]]],
    errors: Collection[str] = (),
    title: str,
    max_columns: int = 4,
) -> None:
    """Draw one panel per score, with a row for each (name, kind, value, spread); kind: ours, baseline or published.

    Rows are sorted by value. In the panels named in `errors` (0 is best), values far above the median are written as
    numbers at the edge, so that the other values remain distinguishable.
    """
    colours = {"ours": FORECAST_COLOUR, "baseline": HISTORY_COLOUR, "published": TRUTH_COLOUR}
    columns = min(max_columns, max(1, len(panels)))
    rows = max(1, -(-len(panels) // max_columns))
    tallest = max((len(points) for points in panels.values()), default=1)
    with new_figure(path, (3.8 * columns, rows * (0.24 * tallest + 0.9) + 0.5), (rows, columns), title) as grid:
        axes = grid.ravel()
        for axis, (name, unsorted) in zip(axes, panels.items(), strict=False):
            points = sorted(unsorted, key=lambda point: point[2])
            edge = 1.3 * float(np.median([value for _, _, value, _ in points])) if name in errors else np.inf
            for place, (_, kind, value, spread) in enumerate(points):
                if value <= edge:
                    axis.errorbar(value, place, xerr=spread or None, fmt="o", markersize=4, color=colours[kind])
                else:
                    text = f"{value:.3g} →"
                    axis.text(0.99, place, text, transform=axis.get_yaxis_transform(), ha="right", va="center")
            axis.set_yticks(range(len(points)), [label for label, *_ in points])
            axis.set_ylim(len(points) - 0.5, -0.5)
            axis.grid(axis="x", linewidth=0.3)
            axis.set_title(name)
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        kinds = {kind: None for points in panels.values() for _, kind, *_ in points}
        dots = [Line2D([], [], marker="o", linestyle="", color=colours[kind], label=_KINDS[kind]) for kind in kinds]
        if any(spread for points in panels.values() for *_, spread in points):
            dots.append(Line2D([], [], color="black", label="bar: standard deviation over seeds"))
        axes[0].figure.legend(handles=dots, loc="outside lower center", ncols=2, frameon=False)


def plot_parallel(path: Path, *, columns: Mapping[str, Sequence[Any]], maximize: bool, title: str) -> None:
    """Draw parallel coordinates: an axis for each column, a line for each row, coloured by its rank in the last one."""
    names, last = list(columns), list(columns)[-1]
    scores = np.array(columns[last], dtype=np.float64)
    ranks = np.argsort(np.argsort(scores if maximize else -scores)) / max(1, len(scores) - 1)
    with new_figure(path, (2.2 * len(names) + 1, 4.2), title=title) as axes:
        axis = axes[0, 0]
        heights = []
        for place, name in enumerate(names):
            height, ticks = _scale(columns[name])
            heights.append(height)
            axis.axvline(place, color="black", linewidth=0.8)
            for tick, label in ticks:
                box = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.5}  # legible where lines cross it
                axis.text(place - 0.03, tick, label, ha="right", va="center", fontsize=8, bbox=box, zorder=3)
        for row in np.argsort(ranks):  # the best on top
            colour = matplotlib.colormaps["viridis"](ranks[row])
            axis.plot(range(len(names)), [height[row] for height in heights], color=colour, linewidth=1.4)
        axis.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names])
        axis.set_yticks([])
        ends = {"best": 1.0, "worst": 0.0} if len(scores) > 1 else {}
        lines = [Line2D([], [], color=matplotlib.colormaps["viridis"](rank), label=name) for name, rank in ends.items()]
        if lines:
            axis.figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
        axis.set_xlim(-0.4, len(names) - 0.7)
        axis.spines[:].set_visible(False)


def _scale(values: Sequence[Any]) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Return heights in [0, 1] of a column's values, and ticks; text values are placed in order of appearance."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=np.float64)
        is_log = numbers.min() > 0 and numbers.max() / numbers.min() > 30
        place = np.log(numbers) if is_log else numbers
        span = place.max() - place.min() or 1.0
        heights = (place - place.min()) / span
        low, high = int(place.argmin()), int(place.argmax())
        digits = next((n for n in range(3, 17) if f"{numbers[low]:.{n}g}" != f"{numbers[high]:.{n}g}"), 3)
        return heights, [(float(heights[row]), f"{numbers[row]:.{digits}g}") for row in (low, high)]
    labels = list(dict.fromkeys(str(value) for value in values))
    heights = np.array([labels.index(str(value)) / max(1, len(labels) - 1) for value in values])
    return heights, [(place / max(1, len(labels) - 1), label) for place, label in enumerate(labels)]


def plot_comparison(path: Path, *, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw one panel per score, with a row for each group: seeds as points, the mean and its confidence interval."""
    groups = list(next(iter(scores.values())))
    labels = short_labels(groups)
    heights = np.array([0.18 * (label.count("\n") + 1) + 0.3 for label in labels])
    places = np.cumsum(heights) - heights / 2
    columns = min(_COLUMNS, len(scores))
    rows = -(-len(scores) // columns)
    margin = 0.075 * max(len(line) for label in labels for line in label.split("\n"))
    size = (3.3 * columns + margin + 0.4, rows * (float(heights.sum()) + 0.7) + 1.0)
    runs = sum(map(len, next(iter(scores.values())).values()))
    title = f"Test scores of {runs} runs in {len(groups)} groups"
    with new_figure(path, size, (rows, columns), title, sharey=True) as grid:
        for axis, (name, values) in zip(grid.flat, scores.items(), strict=False):
            for place, group in zip(places, groups, strict=True):
                found = np.array(values[group])
                axis.plot(found, np.full(len(found), place), "o", color=HISTORY_COLOUR, markersize=4, label="seed")
                axis.plot(found.mean(), place, "|", color=FORECAST_COLOUR, markersize=12, label="mean")
                if len(found) > 2:  # with two seeds the interval is 13 standard deviations wide and hides all else
                    low, high = mean_interval(found.tolist())
                    style = {"color": FORECAST_COLOUR, "linewidth": 1.4, "label": _INTERVAL}
                    axis.plot([low, high], [place, place], **style)
            axis.set_xlabel(name)
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3))
            axis.grid(axis="x", linewidth=0.3)
        for axis in grid.flat[len(scores) :]:
            axis.set_axis_off()
        grid[0, 0].set_yticks(places, labels)
        grid[0, 0].set_ylim(float(heights.sum()), 0)
        parts = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
        grid[0, 0].figure.legend(parts.values(), parts, loc="outside lower center", ncols=3, frameon=False)


def short_labels(groups: Sequence[str]) -> list[str]:
    """Names of groups as they fit beside a plot: keys by their last part where that is clear, wrapped to a few lines.

    Names that are equal after that get a number.
    """
    keys = {key for group in groups for key in _KEY.findall(group)}
    parts = [key.rpartition(".")[2] for key in keys]
    clear = {key: key.rpartition(".")[2] for key in keys if parts.count(key.rpartition(".")[2]) == 1}
    labels = []
    for group in groups:
        text = _KEY.sub(lambda match: clear.get(match[0], match[0]), group)
        labels.append("\n".join(textwrap.wrap(text, _LABEL_WIDTH, max_lines=_LABEL_LINES, placeholder=" …")))
    if len(set(labels)) < len(labels):
        labels = [f"{number}: {label}" for number, label in enumerate(labels, 1)]
    return labels
