"""What a plot of forecasts shows: the choice of its series, and the means of several forecasters."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from datamodules.time_series.series import Series
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.plots import ForecastPanel
from titans_seq.experiment.run.output import check_writable

_MAX_PANELS = 6  # panels (series and channels) in a plot without --series
_MOST_PANELS = 50  # panels in a plot of chosen series
HISTORY_HORIZONS = 3  # horizons of history in a panel


def check_plot(plot: Path | None, series: Sequence[str]) -> None:
    """Raise InputError unless `plot` can be written, or for series without a plot."""
    if plot is not None:
        check_writable(plot, "--plot")
        if plot.suffix != ".png":
            raise InputError(f"--plot {plot}: expected a .png file")
    elif series:
        raise InputError(f"--series {series[0]}: selects what --plot draws; add --plot FILE.png")


def select_panels(panel: Sequence[Series], names: Sequence[str], *, has_ids: bool) -> list[tuple[int, int]]:
    """Select the panels to plot, as indices of a series and a channel; prints a note when some are left out.

    A name is that of a series, or of a channel in every series; raises InputError for another one.
    """
    available = [
        (i, c, {channel, *([series.name] if has_ids else [])})
        for i, series in enumerate(panel)
        for c, channel in enumerate(series.channels)
    ]
    known = {name for _, _, own in available for name in own}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1) or sorted(known)[:_MAX_PANELS]
            more = ", ..." if len(near) < len(known) else ""
            raise InputError(f"--series {name}: no such series or channel; available: {', '.join(near)}{more}")
    chosen = [(i, c) for i, c, own in available if not names or own & set(names)]
    most = _MOST_PANELS if names else _MAX_PANELS
    if len(chosen) > most:
        how = "fewer" if names else "others"
        print(f"Note: the plot shows the first {most} of {len(chosen):,} series; select {how} with --series NAME")
    return chosen[:most]


def average_panels(panels: Sequence[ForecastPanel]) -> ForecastPanel:
    """Return the panel of a series with the mean forecast and the mean bounds of its bands."""
    bands = {
        nominal: (
            np.mean([p.bands[nominal][0] for p in panels], axis=0),
            np.mean([p.bands[nominal][1] for p in panels], axis=0),
        )
        for nominal in panels[0].bands
    }
    return panels[0]._replace(forecast=np.mean([p.forecast for p in panels], axis=0), bands=bands)
