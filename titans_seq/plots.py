"""The pictures of a run, for files and for W&B alike."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.dates
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from titans_seq.files import replacing

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_HISTORY, _TRUTH, _FORECAST = "#999999", "#0072B2", "#D55E00"
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.")  # a second way to tell lines apart


@contextmanager
def _drawn(
    path: Path, size: tuple[float, float], grid: tuple[int, int] = (1, 1), title: str = "", **axes: Any
) -> Iterator[NDArray[Any]]:
    """Empty axes, rows by columns, for the block to fill; the picture, `size` inches large, is then at `path`."""
    # Names are the user's: a $ in them begins no formula.
    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    ):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(*grid, squeeze=False, **axes)
        if title:
            figure.suptitle(title)
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format="png")


def plot_forecasts(
    path: Path,
    *,
    timestamps: Sequence[NDArray[np.datetime64]],
    history: NDArray[Any],
    truth: NDArray[Any],
    forecast: NDArray[Any],
    channels: Sequence[str],
    title: str,
) -> None:
    """A grid of windows (columns) by channels (rows): what the model saw, what came, and what it said would come.

    timestamps: one (L + H,) array per window; history (W, L, C); truth and forecast (W, H, C), in the source's units.
    """
    windows, length, _ = history.shape
    with _drawn(
        path, (4.2 * windows, 1.9 * len(channels) + 0.8), (len(channels), windows), title, sharex="col"
    ) as axes:
        for w in range(windows):
            past, future = timestamps[w][:length], timestamps[w][length:]
            for c, name in enumerate(channels):
                axis = axes[c, w]
                axis.plot(past, history[w, :, c], color=_HISTORY, linewidth=0.9, label="history")
                axis.plot(future, truth[w, :, c], color=_TRUTH, linewidth=1.2, label="truth")
                axis.plot(future, forecast[w, :, c], color=_FORECAST, linewidth=1.2, label="forecast")
                axis.axvline(past[-1], color="black", linewidth=0.5)
                if w == 0:
                    axis.set_ylabel(name)
            _date_axis(axes[-1, w])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)


class Outlook(NamedTuple):
    """One series' past and forecast, for `plot_outlook`."""

    name: str
    past: NDArray[np.datetime64]  # (T,)
    history: NDArray[Any]  # (T,)
    future: NDArray[np.datetime64]  # (N,)
    forecast: NDArray[Any]  # (N,)
    bands: Mapping[float, tuple[NDArray[Any], NDArray[Any]]]  # lower and upper ends (N,) by nominal coverage


def plot_outlook(path: Path, outlooks: Sequence[Outlook], *, title: str) -> None:
    """Past and forecast of several series, one below another, each within its intervals, in the source's units."""
    with _drawn(path, (9.0, 2.2 * len(outlooks) + 0.8), (len(outlooks), 1), title) as grid:
        axes = grid[:, 0]
        for axis, outlook in zip(axes, outlooks, strict=True):
            axis.plot(outlook.past, outlook.history, color=_HISTORY, linewidth=0.9, label="history")
            axis.plot(outlook.future, outlook.forecast, color=_FORECAST, linewidth=1.2, label="forecast")
            for rank, (nominal, (lower, upper)) in enumerate(sorted(outlook.bands.items(), reverse=True)):
                style = {"alpha": 0.15 * (rank + 1), "linewidth": 0, "label": f"{100 * nominal:g} %"}
                axis.fill_between(outlook.future, lower, upper, color=_FORECAST, **style)
            axis.axvline(outlook.past[-1], color="black", linewidth=0.5)
            axis.set_ylabel(outlook.name)
            _date_axis(axis)
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def plot_answers(
    path: Path,
    *,
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    counts: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
) -> None:
    """ROC curves, false and true positive rates by name, beside the confusion matrix (K, K): rows are the truth."""
    with _drawn(path, (8.4 + 0.3 * len(classes), 4.2), (1, 2), title) as axes:
        rates, matrix = axes[0]
        for name, (false, true) in curves.items():
            rates.plot(false, true, linewidth=1.2, label=name)
        rates.plot([0, 1], [0, 1], color=_HISTORY, linewidth=0.8)
        rates.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        rates.legend(frameon=False, loc="lower right")
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        matrix.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            matrix.text(column, row, f"{count:,}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
        matrix.set_xticks(range(len(classes)), classes)
        matrix.set_yticks(range(len(classes)), classes)
        matrix.set(xlabel="predicted", ylabel="true")
        matrix.spines[:].set_visible(False)


def plot_mutations(path: Path, *, effects: NDArray[Any], sequence: str, letters: str, title: str) -> None:
    """A heat map of effects (4, T): the row is what a base is changed to, the column is where; NaN is no change."""
    length = len(sequence)
    with _drawn(path, (min(40.0, 3.0 + 0.12 * length), 2.4), title=title) as axes:
        axis = axes[0, 0]
        limit = float(np.nanmax(np.abs(effects))) or 1.0
        colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
        image = axis.imshow(effects, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axis.set(xlabel="position (grey: the base that is there)", ylabel="changed to")
        axis.set_yticks(range(len(letters)), letters)
        step = max(1, length // 12)
        axis.set_xticks(range(0, length, step), [str(place + 1) for place in range(0, length, step)])
        if length <= 200:
            for place, base in enumerate(sequence):
                axis.text(place, -0.6, base, ha="center", va="bottom", fontsize=7)
        axis.figure.colorbar(image, ax=axis, fraction=0.02, pad=0.01)


def plot_scores(
    path: Path,
    *,
    panels: Mapping[str, Sequence[tuple[str, str, float, float]]],
    errors: Collection[str] = (),
    title: str,
    wide: int = 4,
) -> None:
    """A panel of horizontal points for each score: (name, kind, value, spread), kind ours, baseline or published.

    Sorted by value. In the panels named in `errors`, whose values are the better the nearer they are to 0, what lies
    far beyond the others stands at the edge with its number, so that these stay apart.
    """
    colours = {"ours": _FORECAST, "baseline": _HISTORY, "published": _TRUTH}
    columns = min(wide, max(1, len(panels)))
    rows = max(1, -(-len(panels) // wide))
    tallest = max((len(points) for points in panels.values()), default=1)
    with _drawn(path, (3.8 * columns, rows * (0.24 * tallest + 0.9)), (rows, columns), title) as grid:
        axes = grid.ravel()
        for axis, (name, unsorted) in zip(axes, panels.items(), strict=False):
            points = sorted(unsorted, key=lambda point: point[2])
            edge = 1.3 * float(np.median([value for _, _, value, _ in points])) if name in errors else np.inf
            for place, (_, kind, value, spread) in enumerate(points):
                if value <= edge:
                    axis.errorbar(value, place, xerr=spread or None, fmt="o", markersize=4, color=colours[kind])
                else:
                    text = f"{value:.3g} $\\rightarrow$"
                    axis.text(0.99, place, text, transform=axis.get_yaxis_transform(), ha="right", va="center")
            axis.set_yticks(range(len(points)), [label for label, *_ in points])
            axis.set_ylim(len(points) - 0.5, -0.5)
            axis.grid(axis="x", linewidth=0.3)
            axis.set_title(name)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()


def plot_bits(
    path: Path, *, read: Sequence[int], bits: Sequence[float], levels: Mapping[str, float], title: str
) -> None:
    """Bits per base by the bases of a stretch that had been read before, and `levels` that know none of them."""
    with _drawn(path, (6.4, 3.6), title=title) as axes:
        axis = axes[0, 0]
        if len(read) > 1:
            axis.plot(read, bits, color=_FORECAST, marker="o", markersize=4, linewidth=1.4, label="model")
            axis.set_xlabel("bases of the stretch read before the segment")
        else:  # segments that nothing is carried to
            axis.axhline(bits[0], color=_FORECAST, linewidth=1.4, label="model")
            axis.set_xticks([])
        styles = ("-", "--", "-.", ":")
        for (name, level), style in zip(levels.items(), styles, strict=False):
            axis.axhline(level, color=_HISTORY, linestyle=style, linewidth=1, label=name)
        axis.set_ylabel("bits per base")
        axis.legend(frameon=False, fontsize=8)


def plot_parallel(path: Path, *, columns: Mapping[str, Sequence[Any]], maximize: bool, title: str) -> None:
    """Parallel coordinates: an axis for each column, a line for each row, coloured by the last column."""
    names, last = list(columns), list(columns)[-1]
    scores = np.array(columns[last], dtype=np.float64)
    ranks = np.argsort(np.argsort(scores if maximize else -scores)) / max(1, len(scores) - 1)
    with _drawn(path, (2.2 * len(names) + 1, 4.2), title=title) as axes:
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
    """Heights in [0, 1] of a column's values, and ticks; words in the order in which they come."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=np.float64)
        wide = numbers.min() > 0 and numbers.max() / numbers.min() > 30
        place = np.log(numbers) if wide else numbers
        span = place.max() - place.min() or 1.0
        heights = (place - place.min()) / span
        return heights, [(float(heights[row]), f"{numbers[row]:.3g}") for row in (place.argmin(), place.argmax())]
    words = list(dict.fromkeys(str(value) for value in values))
    heights = np.array([words.index(str(value)) / max(1, len(words) - 1) for value in values])
    return heights, [(place / max(1, len(words) - 1), word) for place, word in enumerate(words)]


def plot_comparison(path: Path, *, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A panel for each score: a row for each group, its seeds as points, mean and standard deviation as a bar."""
    groups = list(next(iter(scores.values())))
    with _drawn(path, (4.2 * len(scores) + 1, 0.5 * len(groups) + 1.2), (1, len(scores)), sharey=True) as grid:
        axes = grid[0]
        for axis, (name, values) in zip(axes, scores.items(), strict=True):
            for place, group in enumerate(groups):
                found = np.array(values[group])
                spread = found.std(ddof=1) if len(found) > 1 else 0.0
                axis.plot(found, np.full(len(found), place), "o", color=_HISTORY, markersize=4)
                axis.errorbar(found.mean(), place, xerr=spread, fmt="|", color=_FORECAST, capsize=4, markersize=12)
            axis.set_xlabel(name)
        axes[0].set_yticks(range(len(groups)), groups)
        axes[0].invert_yaxis()


def _date_axis(axis: Any) -> None:
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))


class Panel(NamedTuple):
    """One of several diagrams that share their horizontal axis, for `plot_panels`."""

    ylabel: str
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]  # x and y by name
    marks: Mapping[str, Any] = {}  # x of what is worth a vertical line, by name
    logarithmic: bool = False


def plot_panels(path: Path, panels: Sequence[Panel], *, title: str, xlabel: str = "", log_x: bool = False) -> None:
    """Diagrams one below another over one horizontal axis, of numbers or of times."""
    with _drawn(path, (9.0, 2.1 * len(panels) + 0.8), (len(panels), 1), title, sharex=True) as grid:
        axes = grid[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            for (name, (x, y)), colour, dash in zip(panel.lines.items(), _PALETTE, _DASHES, strict=False):
                axis.plot(x, y, label=name, color=colour, linestyle=dash, linewidth=1.1)
            for name, x in panel.marks.items():
                axis.axvline(x, color="black", linewidth=0.6, linestyle=":")
                axis.annotate(name, (x, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top", ha="left")
            axis.set_ylabel(panel.ylabel)
            if panel.logarithmic:
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter("{x:g}")
            if log_x:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
            if len(panel.lines) > 1:
                axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        first = next(iter(panels[0].lines.values()))[0]
        if np.issubdtype(np.asarray(first).dtype, np.datetime64):
            _date_axis(axes[-1])
        axes[-1].set_xlabel(xlabel)


def plot_points(path: Path, points: Mapping[str, NDArray[Any]], *, title: str, xlabel: str, ylabel: str) -> None:
    """Groups of points (n, 2) in the plane, by name."""
    with _drawn(path, (6.0, 4.6), title=title) as axes:
        axis = axes[0, 0]
        for (name, places), colour, marker in zip(points.items(), _PALETTE, "o^sDvP*", strict=False):
            axis.plot(*places.T, marker, color=colour, markersize=4, alpha=0.6, label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.legend(frameon=False)
