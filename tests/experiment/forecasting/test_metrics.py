"""MASE, sMAPE and the weighted quantile loss, against loops in plain Python."""

import math

import numpy as np
import pytest

from titans_seq.experiment.forecasting.metrics import mase, naive_error, smape, weighted_quantile_loss

RNG = np.random.default_rng(0)
TRUTH, FORECAST, HISTORY = RNG.normal(3, 2, (4, 6)), RNG.normal(3, 2, (4, 6)), RNG.normal(3, 2, 50)


@pytest.mark.parametrize("season", [1, 7])
def test_mase_by_hand(season: int) -> None:
    naive = [abs(HISTORY[t] - HISTORY[t - season]) for t in range(season, 50)]
    scale = sum(naive) / len(naive)
    errors = [abs(y - f) for y, f in zip(TRUTH.ravel(), FORECAST.ravel(), strict=True)]
    assert naive_error(HISTORY, season) == pytest.approx(scale)
    assert mase(TRUTH, FORECAST, HISTORY, season) == pytest.approx(sum(errors) / len(errors) / scale)


def test_mase_of_the_seasonal_naive_forecast_is_one() -> None:
    assert mase(HISTORY[7:], HISTORY[:-7], HISTORY, 7) == pytest.approx(1.0)


def test_mase_is_nan_if_the_naive_error_is_zero_or_undefined() -> None:
    assert math.isnan(mase(TRUTH, FORECAST, np.ones(50), 7))
    assert math.isnan(mase(TRUTH, FORECAST, HISTORY[:7], 7))


def test_smape_by_hand() -> None:
    terms = [200 * abs(y - f) / (abs(y) + abs(f)) for y, f in zip(TRUTH.ravel(), FORECAST.ravel(), strict=True)]
    assert smape(TRUTH, FORECAST) == pytest.approx(sum(terms) / len(terms))
    assert smape(np.array([0.0, 1.0]), np.array([0.0, 0.0])) == 100.0


def test_weighted_quantile_loss_by_hand() -> None:
    levels = [0.1, 0.5, 0.9]
    quantiles = np.sort(RNG.normal(3, 2, (4, 6, 3)), axis=-1)
    losses = []
    for i, level in enumerate(levels):
        total = 0.0
        for y, q in zip(TRUTH.ravel(), quantiles[..., i].ravel(), strict=True):
            total += level * (y - q) if y >= q else (1 - level) * (q - y)
        losses.append(2 * total / sum(abs(y) for y in TRUTH.ravel()))
    assert weighted_quantile_loss(TRUTH, quantiles, levels) == pytest.approx(sum(losses) / 3)
    assert math.isnan(weighted_quantile_loss(np.zeros(2), np.zeros((2, 3)), levels))
