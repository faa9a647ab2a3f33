"""The pictures of a run, for files and for W&B alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.dates
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_HISTORY, _TRUTH, _FORECAST = "#999999", "#0072B2", "#D55E00"


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
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2 * windows, 1.9 * len(channels) + 0.8), layout="constrained")
        axes = figure.subplots(len(channels), windows, squeeze=False, sharex="col")
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
        figure.suptitle(title)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        partial = path.with_name(f"{path.name}.part")
        figure.savefig(partial, dpi=110, format="png")
        partial.replace(path)


def _date_axis(axis: Any) -> None:
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
