"""Plot of the universal forecaster on simulated series."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import FORECAST_COLOUR, HISTORY_COLOUR, TRUTH_COLOUR, new_figure

_COLUMNS = 3


def plot_universal_forecasts(
    path: Path,
    *,
    pasts: Sequence[NDArray[np.float64]],
    futures: Sequence[NDArray[np.float64]],
    forecasts: Sequence[NDArray[np.float64]],
    names: Sequence[str],
    title: str,
) -> None:
    """Plot the end of each past, its future, the median and the central 80 % interval of the forecasts (steps, 3)."""
    rows = -(-len(pasts) // _COLUMNS)
    with new_figure(path, (10.5, 2.3 * rows), (rows, _COLUMNS), title) as axes:
        panels = zip(axes.flat, pasts, futures, forecasts, names, strict=False)
        for axis, past, future, forecast, name in panels:
            ahead = range(len(future))
            axis.plot(range(-len(past), 0), past, color=HISTORY_COLOUR, linewidth=0.9, label="past")
            axis.plot(ahead, future, color=TRUTH_COLOUR, linewidth=0.9, label="future")
            axis.fill_between(
                ahead, forecast[:, 0], forecast[:, 2], color=FORECAST_COLOUR, alpha=0.25, lw=0, label="80 % interval"
            )
            axis.plot(ahead, forecast[:, 1], color=FORECAST_COLOUR, linewidth=1.1, label="median")
            axis.set_title(name, fontsize=8)
            axis.set_xlabel("steps from the forecast's start")
        for axis in axes.flat[len(pasts) :]:
            axis.set_visible(False)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
