"""Series from small causal graphs: causes of other families, mixed through lagged nonlinear functions.

A load follows the temperature below and above two thresholds, an oil temperature follows the load of the last hours.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from datamodules.time_series.simulated.gaussian_process import simulate_gaussian_process
from datamodules.time_series.simulated.multi_seasonal import simulate_multi_seasonal
from datamodules.time_series.simulated.physical import simulate_physical
from datamodules.time_series.simulated.recursions import Array, first_order, standardise
from datamodules.time_series.simulated.regime_switching import simulate_regime_switching
from datamodules.time_series.simulated.sarima import simulate_sarima
from datamodules.time_series.simulated.shapes import chance, heavy_tailed, log_uniform, uniform
from datamodules.time_series.simulated.weather import simulate_weather

_ROOTS = (
    simulate_multi_seasonal,
    simulate_gaussian_process,
    simulate_multi_seasonal,
    simulate_sarima,
    simulate_regime_switching,
    simulate_physical,
    simulate_weather,
)
_LINKS: tuple[Callable[[Array], Array], ...] = (
    lambda cause: cause,
    lambda cause: np.maximum(cause, 0.0),
    lambda cause: np.maximum(np.abs(cause) - 0.5, 0.0),  # heating and cooling outside a range of comfort
    np.tanh,
    np.square,
    np.abs,
    lambda cause: np.exp(np.clip(0.5 * cause, -4.0, 4.0)),
    lambda cause: np.where(cause > 0.5, 1.0, 0.0),
)
_LAYERS = 2
_CAUSES = 3  # of each effect, at most


def simulate_causal_graph(rng: np.random.Generator, series: int, length: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw `series` series (series, length), effects in random graphs, and their nominal periods (series,)."""
    lag = max(1, length // 16)
    family = _ROOTS[rng.integers(len(_ROOTS))]
    other = _ROOTS[rng.integers(len(_ROOTS))]
    half = -(-series // 2)
    first, first_period = family(rng, half, length + lag)
    second, second_period = other(rng, half, length + lag)
    nodes = standardise(np.concatenate([first, second]))
    nominal = np.concatenate([first_period, second_period])
    for _ in range(_LAYERS):
        nodes = _effects(rng, nodes, lag)
    return nodes[:series, lag:], nominal[:series]


def _effects(rng: np.random.Generator, nodes: Array, lag: int) -> Array:
    """Return effects of the nodes (nodes, length): each keeps its own node as first cause and gains up to two more."""
    count, length = nodes.shape
    total = np.zeros_like(nodes)
    for order in range(_CAUSES):
        causes = nodes if order == 0 else nodes[rng.integers(0, count, count)]
        weight = np.where(order < rng.integers(1, _CAUSES + 1, (count, 1)), rng.standard_normal((count, 1)), 0.0)
        weight = np.where(order == 0, 1.0, weight)
        total += weight * _linked(rng, _lagged(rng, causes, lag), probability=0.35 if order == 0 else 0.8)
    memory = np.where(chance(rng, 0.4, count), 1 - log_uniform(rng, 1 / (lag + 2), 0.7, count), 0.0)
    total = standardise(first_order(memory, total))  # an effect follows its causes with inertia
    noise = heavy_tailed(rng, np.full((count, 1), 0.05), length)
    return standardise(total + log_uniform(rng, 0.005, 0.25, count) * noise)


def _lagged(rng: np.random.Generator, causes: Array, lag: int) -> Array:
    """Return the causes some steps late; the first steps repeat the first value."""
    count, length = causes.shape
    late = np.where(rng.random((count, 1)) < 0.5, 0, np.floor(uniform(rng, 0, lag + 1, count)).astype(np.int64))
    return np.take_along_axis(causes, np.maximum(np.arange(length) - late, 0), axis=1)


def _linked(rng: np.random.Generator, causes: Array, probability: float) -> Array:
    """Return nonlinear functions of the causes for a share of them."""
    linked = causes.copy()
    kinds = np.where(rng.random(len(causes)) < probability, rng.integers(0, len(_LINKS), len(causes)), 0)
    offset = 0.5 * rng.standard_normal((len(causes), 1))
    for kind, link in enumerate(_LINKS):
        rows = kinds == kind
        if kind and rows.any():
            linked[rows] = standardise(link(causes[rows] + offset[rows]))
    return linked
