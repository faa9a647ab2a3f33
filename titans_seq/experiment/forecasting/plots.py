"""Plots of forecasts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import FORECAST_COLOUR, HISTORY_COLOUR, TRUTH_COLOUR, format_date_axis, new_figure


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
    """Plot a grid of windows (columns) by channels (rows): history, truth and forecast.

    timestamps: one (L + H,) array per window; history (W, L, C); truth and forecast (W, H, C), in the source's units.
    """
    windows, length, _ = history.shape
    with new_figure(
        path, (4.2 * windows, 1.9 * len(channels) + 0.8), (len(channels), windows), title, sharex="col"
    ) as axes:
        for w in range(windows):
            past, future = timestamps[w][:length], timestamps[w][length:]
            for c, name in enumerate(channels):
                axis = axes[c, w]
                axis.plot(past, history[w, :, c], color=HISTORY_COLOUR, linewidth=0.9, label="history")
                axis.plot(future, truth[w, :, c], color=TRUTH_COLOUR, linewidth=1.2, label="truth")
                axis.plot(future, forecast[w, :, c], color=FORECAST_COLOUR, linewidth=1.2, label="forecast")
                axis.axvline(past[-1], color="black", linewidth=0.5)
                if w == 0:
                    axis.set_ylabel(name)
            format_date_axis(axes[-1, w])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)


class ForecastPanel(NamedTuple):
    """One series' past and forecast, for `plot_forecast_panels`."""

    name: str
    past: NDArray[np.datetime64]  # (T,)
    history: NDArray[Any]  # (T,)
    future: NDArray[np.datetime64]  # (N,)
    forecast: NDArray[Any]  # (N,)
    bands: Mapping[float, tuple[NDArray[Any], NDArray[Any]]]  # lower and upper bounds (N,) by nominal coverage


def plot_forecast_panels(path: Path, panels: Sequence[ForecastPanel], *, title: str) -> None:
    """Plot history, forecast and intervals of several series, one below another, in the source's units."""
    with new_figure(path, (9.0, 2.2 * len(panels) + 0.8), (len(panels), 1), title) as grid:
        axes = grid[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.plot(panel.past, panel.history, color=HISTORY_COLOUR, linewidth=0.9, label="history")
            axis.plot(panel.future, panel.forecast, color=FORECAST_COLOUR, linewidth=1.2, label="forecast")
            for rank, (nominal, (lower, upper)) in enumerate(sorted(panel.bands.items(), reverse=True)):
                style = {"alpha": 0.15 * (rank + 1), "linewidth": 0, "label": f"{100 * nominal:g} %"}
                axis.fill_between(panel.future, lower, upper, color=FORECAST_COLOUR, **style)
            axis.axvline(panel.past[-1], color="black", linewidth=0.5)
            axis.set_ylabel(panel.name)
            format_date_axis(axis)
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
