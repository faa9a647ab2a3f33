"""Plots of forecasts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import FORECAST_COLOUR, HISTORY_COLOUR, TRUTH_COLOUR, format_date_axis, new_figure

Bands = Mapping[float, tuple[NDArray[Any], NDArray[Any]]]  # lower and upper bounds by nominal coverage
_LINEAR_COLOUR = "#000000"
_LONGEST = 28  # characters of a name at an axis


def plot_forecasts(
    path: Path,
    *,
    timestamps: Sequence[NDArray[Any]],
    history: NDArray[Any],
    truth: NDArray[Any],
    forecast: NDArray[Any],
    channels: Sequence[str],
    title: str,
    windows: Sequence[str] = (),
    linear: NDArray[Any] | None = None,
    bands: Bands = {},  # noqa: B006 - not changed
) -> None:
    """Plot a grid of windows (columns) by channels (rows): history, truth, forecast and its error.

    timestamps: one (L + H,) array per window; history (W, L, C); truth, forecast, the bounds of the intervals `bands`
    and `linear`, the forecast of the model's linear path, (W, H, C); all in the source's units. `windows` are headings
    of the columns.
    """
    columns, length, _ = history.shape
    size = (4.2 * columns, 2.1 * len(channels) + 1.2)
    with new_figure(path, size, (len(channels), columns), title, sharex="col") as axes:
        for w in range(columns):
            for c, name in enumerate(channels):
                axis = axes[c, w]
                past, future = timestamps[w][:length], timestamps[w][length:]
                origin = (past[-1], history[w, -1, c])
                axis.plot(past, history[w, :, c], color=HISTORY_COLOUR, linewidth=0.9, label="history")
                axis.plot(*_joined(origin, future, truth[w, :, c]), color=TRUTH_COLOUR, linewidth=1.2, label="truth")
                part = {nominal: (low[w, :, c], high[w, :, c]) for nominal, (low, high) in bands.items()}
                _draw_forecast(axis, origin, future, forecast[w, :, c], part)
                errors = f"MAE {np.abs(forecast - truth)[w, :, c].mean():.3g}"
                if linear is not None:
                    style = {"color": _LINEAR_COLOUR, "linewidth": 0.7, "linestyle": "--", "label": "linear path alone"}
                    axis.plot(*_joined(origin, future, linear[w, :, c]), **style)
                    errors += f", linear path alone {np.abs(linear - truth)[w, :, c].mean():.3g}"
                heading = f"{windows[w]}\n" if windows and c == 0 else ""
                axis.set_title(heading + errors, fontsize=8, loc="left")
                axis.axvline(past[-1], color="black", linewidth=0.5)
                if w == 0:
                    axis.set_ylabel(_short(name))
            _format_time_axis(axes[-1, w], timestamps[w])
            axes[-1, w].set_xlabel("time")
        _add_legend(axes[0, 0])


class ForecastPanel(NamedTuple):
    """One series' past and forecast, for `plot_forecast_panels`."""

    name: str  # with a line for the series and one for the channel, if there are several series
    past: NDArray[Any]  # (T,)
    history: NDArray[Any]  # (T,)
    future: NDArray[Any]  # (N,)
    forecast: NDArray[Any]  # (N,)
    bands: Bands  # bounds (N,)


def plot_forecast_panels(path: Path, panels: Sequence[ForecastPanel], *, title: str) -> None:
    """Plot history, forecast and intervals of several series, one below another, in the source's units."""
    with new_figure(path, (9.0, 2.2 * len(panels) + 0.8), (len(panels), 1), title) as grid:
        axes = grid[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.plot(panel.past, panel.history, color=HISTORY_COLOUR, linewidth=0.9, label="history")
            origin = (panel.past[-1], panel.history[-1])
            _draw_forecast(axis, origin, panel.future, panel.forecast, panel.bands)
            axis.axvline(panel.past[-1], color="black", linewidth=0.5)
            axis.set_ylabel(_short(panel.name))
            _format_time_axis(axis, panel.past)
        axes[-1].set_xlabel("time")
        _add_legend(axes[0])


def _draw_forecast(
    axis: Any, origin: tuple[Any, Any], future: NDArray[Any], forecast: NDArray[Any], bands: Bands
) -> None:
    """Draw a forecast (N,) and its intervals from the last observed point on."""
    axis.plot(*_joined(origin, future, forecast), color=FORECAST_COLOUR, linewidth=1.2, label="forecast")
    for rank, (nominal, (lower, upper)) in enumerate(sorted(bands.items(), reverse=True)):
        times, low = _joined(origin, future, lower)
        _, high = _joined(origin, future, upper)
        style = {"alpha": 0.15 * (rank + 1), "linewidth": 0, "label": f"{100 * nominal:g} % interval"}
        axis.fill_between(times, low, high, color=FORECAST_COLOUR, **style)


def _joined(origin: tuple[Any, Any], times: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Put the last observed time and value before a forecast, so that its line starts there without a gap."""
    return np.concatenate([[origin[0]], times]), np.concatenate([[origin[1]], values])


def _format_time_axis(axis: Any, times: NDArray[Any]) -> None:
    if times.dtype.kind == "M":  # integers have the usual labels of numbers
        format_date_axis(axis)


def _add_legend(axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    axis.figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _short(name: str) -> str:
    lines = name.splitlines()
    return "\n".join(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines)
