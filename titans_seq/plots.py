"""Plots in general: palette, figure frame, date axes, and panels of lines or points."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.dates
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from titans_seq.system.files import replacing

# Okabe and Ito's palette, which colour-blind readers can tell apart.
HISTORY_COLOUR, TRUTH_COLOUR, FORECAST_COLOUR = "#999999", "#0072B2", "#D55E00"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", "-")  # a second way to tell lines apart; repeats after another number than the colours
_MARKERS = "o^sDvP*X"
_DAYS = (3, 95)  # spans, in days, whose ticks are days
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,  # a number at a tick is the number, without a sum to do
    "text.parse_math": False,  # names come from the user's data, so a $ in them must not start a formula
}


@contextmanager
def new_figure(
    path: Path, size: tuple[float, float], grid: tuple[int, int] = (1, 1), title: str = "", **axes: Any
) -> Iterator[NDArray[Any]]:
    """Yield empty axes (rows, columns) to draw in; the figure, `size` in inches, is saved to `path` after the block."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(*grid, squeeze=False, **axes)
        if title:
            figure.suptitle(title)
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format="png")


class DateLabels(matplotlib.ticker.Formatter):
    """Labels of date ticks: each in full, with a second line for the year (or day) at the first tick and at changes."""

    def __call__(self, value: float, position: int | None = None) -> str:
        """Label of one date, without its neighbours."""
        return self.format_ticks([value])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Labels of all ticks."""
        times = [matplotlib.dates.num2date(value) for value in values]
        if any(time.second for time in times):
            labels = [(f"{time:%H:%M:%S}", _day(time)) for time in times]
        elif any(time.hour or time.minute for time in times):
            labels = [(f"{time:%H:%M}", _day(time)) for time in times]
        elif any(time.day != 1 for time in times) or len(times) == 1:
            labels = [(f"{time.day} {time:%b}", f"{time:%Y}") for time in times]
        elif any(time.month != 1 for time in times):
            labels = [(f"{time:%b}", f"{time:%Y}") for time in times]
        else:
            labels = [(f"{time:%Y}", "") for time in times]
        before = ["", *(second for _, second in labels)]
        return [
            f"{first}\n{second}" if second != last else first
            for (first, second), last in zip(labels, before, strict=False)
        ]


def _day(time: datetime) -> str:
    return f"{time.day} {time:%b %Y}"


def format_date_axis(axis: Any) -> None:
    """Set few date labels, at even distances, on a horizontal axis whose data are drawn."""
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(_date_locator(high - low))
    axis.xaxis.set_major_formatter(DateLabels())


def _date_locator(days: float) -> matplotlib.ticker.Locator:
    """Ticks for a span of days: of a day or less by the clock, else every n days, months or years."""
    if days < _DAYS[0]:
        return matplotlib.dates.AutoDateLocator(minticks=3, maxticks=5)
    if days <= _DAYS[1]:
        return matplotlib.dates.DayLocator(interval=ceil(days / 5))
    for months in (1, 2, 3, 6):
        if days / 30.4 <= 6 * months:
            return matplotlib.dates.MonthLocator(bymonth=range(1, 13, months))
    return matplotlib.dates.YearLocator(ceil(days / 365 / 5))


def format_log_axis(axis: Any) -> None:
    """Set plain numbers on a logarithmic `XAxis` or `YAxis` whose data are drawn, also where it spans no decade."""
    low, high = axis.get_view_interval()
    if high < 3 * low:
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    elif high < 100 * low:
        axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


class Panel(NamedTuple):
    """One of several panels that share their horizontal axis, for `plot_panels`."""

    ylabel: str
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]  # x and y by name
    marks: Mapping[str, Any] = {}  # x of labelled vertical lines, by name
    logarithmic: bool = False
    markers: bool = False  # draw a marker at every point, for lines of few points


def plot_panels(path: Path, panels: Sequence[Panel], *, title: str, xlabel: str = "", log_x: bool = False) -> None:
    """Plot panels one below another over a common horizontal axis, of numbers or of times."""
    with new_figure(path, (9.0, 2.1 * len(panels) + 0.8), (len(panels), 1), title, sharex=True) as grid:
        axes = grid[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            styles = zip(cycle(PALETTE), cycle(_DASHES), cycle(_MARKERS), strict=False)
            for (name, (x, y)), (colour, dash, marker) in zip(panel.lines.items(), styles, strict=False):
                style = {"marker": marker if panel.markers or len(x) == 1 else None, "markersize": 4}
                axis.plot(x, y, label=name, color=colour, linestyle=dash, linewidth=1.1, **style)
            for name, x in panel.marks.items():
                axis.axvline(x, color="black", linewidth=0.6, linestyle=":")
                _annotate(axis, name, x)
            axis.set_ylabel(panel.ylabel)
            if panel.logarithmic:
                axis.set_yscale("log")
                format_log_axis(axis.yaxis)
            if log_x:
                axis.set_xscale("log")
                format_log_axis(axis.xaxis)
            if len(panel.lines) > 1:
                axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        first = next(iter(panels[0].lines.values()))[0]
        if np.issubdtype(np.asarray(first).dtype, np.datetime64):
            format_date_axis(axes[-1])
        axes[-1].set_xlabel(xlabel)


def _annotate(axis: Any, name: str, x: Any) -> None:
    """Write the name of a vertical line beside it, on the side where there is more room."""
    low, high = axis.get_xlim()
    is_right = axis.convert_xunits(x) > (low + high) / 2
    style = {"fontsize": 7, "va": "top", "ha": "right" if is_right else "left", "textcoords": "offset points"}
    axis.annotate(name, (x, 1), (-2 if is_right else 2, 0), xycoords=("data", "axes fraction"), **style)


def plot_points(path: Path, points: Mapping[str, NDArray[Any]], *, title: str, xlabel: str, ylabel: str) -> None:
    """Plot groups of points (n, 2) in the plane, by name."""
    with new_figure(path, (6.0, 4.6), title=title) as axes:
        axis = axes[0, 0]
        styles = zip(cycle(PALETTE), cycle(_MARKERS), strict=False)
        for (name, coordinates), (colour, marker) in zip(points.items(), styles, strict=False):
            axis.plot(*coordinates.T, marker, color=colour, markersize=4, alpha=0.6, label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
