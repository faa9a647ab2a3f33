"""Mixture of all families of simulated series, with augmentations: the training data of a pre-trained forecaster."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.augmentations import disturb, drop, mix, rescale, reshape, round_off
from datamodules.time_series.simulated.causal_graph import simulate_causal_graph
from datamodules.time_series.simulated.gaussian_process import simulate_gaussian_process
from datamodules.time_series.simulated.intermittent import simulate_intermittent
from datamodules.time_series.simulated.multi_seasonal import simulate_multi_seasonal
from datamodules.time_series.simulated.physical import simulate_physical
from datamodules.time_series.simulated.random_walk import simulate_random_walk
from datamodules.time_series.simulated.recursions import Array, standardise
from datamodules.time_series.simulated.regime_switching import simulate_regime_switching
from datamodules.time_series.simulated.sarima import simulate_sarima
from datamodules.time_series.simulated.trend import simulate_trend
from datamodules.time_series.simulated.weather import simulate_weather

Family = Callable[[np.random.Generator, int, int], tuple[Array, NDArray[np.int64]]]

# Families, how often each is drawn, and how it is simulated.
MIXTURE: dict[str, tuple[float, Family]] = {
    "sarima": (1.0, simulate_sarima),
    "gaussian_process": (1.0, simulate_gaussian_process),
    "multi_seasonal": (2.0, simulate_multi_seasonal),
    "trend": (1.0, simulate_trend),
    "regime_switching": (0.8, simulate_regime_switching),
    "intermittent": (0.6, simulate_intermittent),
    "random_walk": (0.9, simulate_random_walk),
    "physical": (0.7, simulate_physical),
    "causal_graph": (1.2, simulate_causal_graph),
    "weather": (0.8, simulate_weather),
}
FAMILIES: tuple[str, ...] = tuple(MIXTURE)
_COUNTS = FAMILIES.index("intermittent")
SHORTEST = 16  # steps


@dataclass(frozen=True)
class SimulatedBatch:
    """Batch of simulated series."""

    values: NDArray[np.float32]  # (series, length); NaN: missing, at most a fifth of a series
    period: NDArray[np.int64]  # (series,): period in steps that timestamps would suggest, in the data or not; 0: none
    family: NDArray[np.int64]  # (series,): index into FAMILIES


def simulate(rng: np.random.Generator, series: int, length: int) -> SimulatedBatch:
    """Draw a batch of `series` series of `length` steps (16 or more) from the mixture, augmented.

    The same state of `rng` gives the same batch, in any process.

    Raises:
        ValueError: if `series` is below 1 or `length` below 16.
    """
    if series < 1 or length < SHORTEST:
        raise ValueError(f"series must be at least 1 and length at least {SHORTEST}, not {series} and {length}")
    weights = np.array([weight for weight, _ in MIXTURE.values()])
    family = rng.choice(len(FAMILIES), size=series, p=weights / weights.sum())
    values = np.empty((series, length))
    period = np.empty(series, dtype=np.int64)
    for number, (_, simulate_family) in enumerate(MIXTURE.values()):
        rows = np.flatnonzero(family == number)
        if len(rows):
            values[rows], period[rows] = simulate_family(rng, len(rows), length)
    return SimulatedBatch(_augmented(rng, values, family == _COUNTS), period, family)


def _augmented(rng: np.random.Generator, values: Array, is_count: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Apply the augmentations; most counts stay counts."""
    kept = is_count & (rng.random(len(values)) < 0.7)
    counts = values[kept]
    changed = standardise(mix(rng, standardise(values), probability=0.1))
    changed = standardise(reshape(rng, changed))
    changed = rescale(rng, disturb(rng, changed))
    changed = round_off(rng, changed, probability=0.15)
    changed[kept] = counts
    return drop(rng, changed.astype(np.float32), probability=0.1)
