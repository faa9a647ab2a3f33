"""Plots in general: palette, figure frame, and panels of lines or points."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.dates
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from titans_seq.system.files import replacing

# Okabe and Ito's palette, which colour-blind readers can tell apart.
HISTORY_COLOUR, TRUTH_COLOUR, FORECAST_COLOUR = "#999999", "#0072B2", "#D55E00"
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.")  # a second way to tell lines apart


@contextmanager
def new_figure(
    path: Path, size: tuple[float, float], grid: tuple[int, int] = (1, 1), title: str = "", **axes: Any
) -> Iterator[NDArray[Any]]:
    """Yield empty axes (rows, columns) to draw in; the figure, `size` in inches, is saved to `path` after the block."""
    # Names come from the user's data, so a $ in them must not start a formula.
    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    ):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(*grid, squeeze=False, **axes)
        if title:
            figure.suptitle(title)
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format="png")


def format_date_axis(axis: Any) -> None:
    """Set few, short date labels on a horizontal axis."""
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))


class Panel(NamedTuple):
    """One of several panels that share their horizontal axis, for `plot_panels`."""

    ylabel: str
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]  # x and y by name
    marks: Mapping[str, Any] = {}  # x of labelled vertical lines, by name
    logarithmic: bool = False


def plot_panels(path: Path, panels: Sequence[Panel], *, title: str, xlabel: str = "", log_x: bool = False) -> None:
    """Plot panels one below another over a common horizontal axis, of numbers or of times."""
    with new_figure(path, (9.0, 2.1 * len(panels) + 0.8), (len(panels), 1), title, sharex=True) as grid:
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
            format_date_axis(axes[-1])
        axes[-1].set_xlabel(xlabel)


def plot_points(path: Path, points: Mapping[str, NDArray[Any]], *, title: str, xlabel: str, ylabel: str) -> None:
    """Plot groups of points (n, 2) in the plane, by name."""
    with new_figure(path, (6.0, 4.6), title=title) as axes:
        axis = axes[0, 0]
        for (name, coordinates), colour, marker in zip(points.items(), _PALETTE, "o^sDvP*", strict=False):
            axis.plot(*coordinates.T, marker, color=colour, markersize=4, alpha=0.6, label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.legend(frameon=False)
