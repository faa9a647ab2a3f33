"""Plots of many runs: score tables, sweeps, comparisons."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.dates
import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import FORECAST_COLOUR, HISTORY_COLOUR, TRUTH_COLOUR, new_figure


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
    with new_figure(path, (3.8 * columns, rows * (0.24 * tallest + 0.9)), (rows, columns), title) as grid:
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
        for axis in axes[len(panels) :]:
            axis.set_axis_off()


def plot_parallel(path: Path, *, columns: Mapping[str, Sequence[Any]], maximize: bool, title: str) -> None:
    """Draw parallel coordinates: an axis for each column, a line for each row, coloured by the last column."""
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
                axis.text(place - 0.03, tick, label, ha="right", va="center", fontsize=8)
        for row in np.argsort(ranks):  # the best on top
            colour = matplotlib.colormaps["viridis"](ranks[row])
            axis.plot(range(len(names)), [height[row] for height in heights], color=colour, linewidth=1.4)
        axis.set_xticks(range(len(names)), names)
        axis.set_yticks([])
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
        return heights, [(float(heights[row]), f"{numbers[row]:.3g}") for row in (place.argmin(), place.argmax())]
    labels = list(dict.fromkeys(str(value) for value in values))
    heights = np.array([labels.index(str(value)) / max(1, len(labels) - 1) for value in values])
    return heights, [(place / max(1, len(labels) - 1), label) for place, label in enumerate(labels)]


def plot_comparison(path: Path, *, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw one panel per score, with a row for each group: seeds as points, mean and standard deviation as a bar."""
    groups = list(next(iter(scores.values())))
    with new_figure(path, (4.2 * len(scores) + 1, 0.5 * len(groups) + 1.2), (1, len(scores)), sharey=True) as grid:
        axes = grid[0]
        for axis, (name, values) in zip(axes, scores.items(), strict=True):
            for place, group in enumerate(groups):
                found = np.array(values[group])
                spread = found.std(ddof=1) if len(found) > 1 else 0.0
                axis.plot(found, np.full(len(found), place), "o", color=HISTORY_COLOUR, markersize=4)
                axis.errorbar(
                    found.mean(), place, xerr=spread, fmt="|", color=FORECAST_COLOUR, capsize=4, markersize=12
                )
            axis.set_xlabel(name)
        axes[0].set_yticks(range(len(groups)), groups)
        axes[0].invert_yaxis()
