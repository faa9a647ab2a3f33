"""AutoETS and AutoTheta of statsforecast as forecasters.

They fit every context anew. Missing values are interpolated linearly first, as the methods accept none. Their central
intervals give the quantiles, their point forecast the median. AutoETS has no seasonal component at periods above 24.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forecaster import LEVELS

METHODS = ("AutoETS", "AutoTheta")
_INTERVALS = [20, 40, 60, 80]  # %


class Statistical:
    """Automatic exponential smoothing or theta method.

    Args:
        method: one of METHODS.
    """

    def __init__(self, method: str) -> None:
        from statsforecast import models

        self.model: Any = getattr(models, method)

    def predict_arrays(
        self, contexts: Sequence[NDArray[np.float32]], horizon: int, periods: Sequence[int]
    ) -> NDArray[np.float32]:
        """Forecast, see `Forecaster`."""
        forecasts = np.empty((len(contexts), horizon, len(LEVELS)), np.float32)
        for row, (context, period) in enumerate(zip(contexts, periods, strict=True)):
            values = interpolate(np.asarray(context, np.float64))
            found = self.model(season_length=max(1, period)).forecast(y=values, h=horizon, level=_INTERVALS)
            low = [found[f"lo-{interval}"] for interval in reversed(_INTERVALS)]
            high = [found[f"hi-{interval}"] for interval in _INTERVALS]
            forecasts[row] = np.stack([*low, found["mean"], *high], axis=-1)
        return forecasts


def interpolate(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `values` (T,) with NaN interpolated linearly; ends repeat the nearest value."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known])
