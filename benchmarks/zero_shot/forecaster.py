"""Interface of the judged forecasters, and the seasonal naive forecast, the reference of every score."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MEDIAN = LEVELS.index(0.5)
# Standard normal quantiles at LEVELS.
_NORMAL = np.array(
    [
        -1.2815515655,
        -0.8416212336,
        -0.5244005127,
        -0.2533471031,
        0,
        0.2533471031,
        0.5244005127,
        0.8416212336,
        1.2815515655,
    ]
)


class Forecaster(Protocol):
    """Probabilistic forecaster of single series."""

    def predict_arrays(
        self, contexts: Sequence[NDArray[np.float32]], horizon: int, periods: Sequence[int]
    ) -> NDArray[np.float32]:
        """Forecast the `horizon` steps after each context.

        Args:
            contexts: 1-D arrays of any length, oldest value first; NaN marks missing values.
            horizon: steps to forecast.
            periods: nominal seasonal period of each context, 0 if unknown.

        Returns:
            quantiles (series, horizon, 9) at LEVELS, in the units of the contexts.
        """


class SeasonalNaive:
    """Repetition of the last season, with normal intervals.

    The variance is the mean squared seasonal difference of the context, times the number of seasons ahead, as in
    Hyndman and Athanasopoulos, Forecasting: Principles and Practice, section 5.5. Missing values are first filled with
    the value one period before; contexts shorter than one period repeat their last value.
    """

    def predict_arrays(
        self, contexts: Sequence[NDArray[np.float32]], horizon: int, periods: Sequence[int]
    ) -> NDArray[np.float32]:
        """Forecast, see `Forecaster`."""
        forecasts = np.empty((len(contexts), horizon, len(LEVELS)), np.float32)
        for row, (context, period) in enumerate(zip(contexts, periods, strict=True)):
            season = period if 1 <= period < len(context) else 1
            filled = _fill(np.asarray(context, np.float64), season)
            ahead = np.arange(horizon)
            median = filled[len(filled) - season + ahead % season]
            difference = filled[season:] - filled[:-season]
            deviation = np.sqrt(np.mean(difference**2) * (ahead // season + 1)) if len(difference) else 0.0 * ahead
            forecasts[row] = median[:, None] + deviation[:, None] * _NORMAL
        return forecasts


def _fill(values: NDArray[np.float64], season: int) -> NDArray[np.float64]:
    """Return `values` with NaN replaced by the value one season before, else by the nearest earlier or first value."""
    if np.isfinite(values).all():
        return values
    values = values.copy()
    for lag in (season, 1):
        for at in np.flatnonzero(np.isnan(values)):
            if at >= lag:
                values[at] = values[at - lag]
    known = values[np.isfinite(values)]
    return np.where(np.isnan(values), known[0] if len(known) else 0.0, values)
