"""Naive forecasts of the series that a trained model cannot forecast.

N steps, C channels.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.series import Series

SEASONAL, LAST, NONE = "seasonal naive", "last value", "none"  # what forecasts a channel


def naive_forecast(series: Series, season: int, steps: int) -> tuple[NDArray[np.float64], list[str]]:
    """Return the next steps (N, C) of a series, in its units, and what forecast each channel.

    The last season is repeated where all its values are known, else the last value; a channel without values is NaN.
    """
    forecast, names = np.full((steps, len(series.channels)), np.nan), []
    for c, values in enumerate(series.values.T):
        observed = values[~np.isnan(values)]
        if not len(observed):
            names.append(NONE)
        elif season > 1 and len(values) >= season and not np.isnan(values[-season:]).any():
            forecast[:, c] = values[-season:][np.arange(steps) % season]
            names.append(SEASONAL)
        else:
            forecast[:, c] = observed[-1]
            names.append(LAST)
    return forecast, names
