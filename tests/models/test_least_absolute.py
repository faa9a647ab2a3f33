"""The linear forecaster of least absolute error, against its optimality conditions computed window by window."""

from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.models.least_absolute import CORNER, absolute_error, descend
from titans_seq.models.linear import share_map, solve_linear, sum_moments, window_moments

LENGTH, HORIZON, CHANNELS = 6, 3, 2


def make_series(rows: int, seed: int) -> Tensor:
    """Autoregressive channels whose noise has heavy tails on one side, so that mean and median differ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, CHANNELS, generator=generator).exp() - 1
    series = torch.zeros(rows, CHANNELS)
    for t in range(2, rows):
        series[t] = 0.6 * series[t - 1] + 0.2 * series[t - 2] + 0.3 * noise[t]
    return series


SERIES = [make_series(300, 0), make_series(200, 1)]
MOMENTS = sum_moments([window_moments(x, LENGTH, HORIZON) for x in SERIES])


def loss_of(maps: Tensor, shrinkage: float | None, penalty: float, strength: float) -> Tensor:
    """Huber loss of maps (M, L + 1, H) over all windows, with the quadratic penalties."""
    total = torch.zeros((), dtype=torch.float64)
    for channel in range(CHANNELS):
        own = maps[channel if len(maps) > 1 else 0]
        for series in SERIES:
            inputs, targets = windows_of(series.double(), channel)
            errors = targets - inputs @ own
            total = total + F.huber_loss(errors, torch.zeros_like(errors), reduction="sum", delta=CORNER)
            for other in range(CHANNELS if shrinkage is not None else 0):
                inputs, targets = windows_of(series.double(), other)
                total = total + strength * (shrinkage or 0) / CHANNELS * (targets - inputs @ own).square().sum() / 2
    xx = MOMENTS.xx.sum(0) if shrinkage is None else (1 + shrinkage) * MOMENTS.xx.mean(0)
    ridge = penalty * float(xx.diagonal()[:-1].mean())
    return total + strength * ridge * maps[:, :-1].square().sum() / 2


def windows_of(series: Tensor, channel: int) -> tuple[Tensor, Tensor]:
    """Inputs (n, L + 1) and targets (n, H) of all windows, minus the last context value; the last input is 1."""
    firsts = range(len(series) - LENGTH - HORIZON + 1)
    windows = torch.stack([series[first : first + LENGTH + HORIZON, channel] for first in firsts])
    windows = windows - windows[:, LENGTH - 1 : LENGTH]
    return F.pad(windows[:, :LENGTH], (0, 1), value=1.0), windows[:, LENGTH:]


@pytest.mark.parametrize("shrinkage", [None, 0.5])
def test_descent_converges_to_the_minimum(shrinkage: float | None) -> None:
    penalty = 1e-2
    start = solve_linear(MOMENTS, penalty, shrinkage)
    found = list(islice(descend(start, MOMENTS, SERIES, penalty=penalty, shrinkage=shrinkage), 400))[-1]
    clipped = squares = 0.0
    first, last = (torch.cat([m.weight, m.bias.unsqueeze(-2)], dim=-2).detach().double() for m in (start, found))
    first, last = (maps.reshape(-1, LENGTH + 1, HORIZON) for maps in (first, last))
    for channel in range(CHANNELS):
        for series in SERIES:
            inputs, targets = windows_of(series.double(), channel)
            errors = targets - inputs @ first[channel if len(first) > 1 else 0]
            clipped += float((errors.clamp(-CORNER, CORNER) * errors).sum())
            squares += float(errors.square().sum())
    gradients = [
        torch.autograd.grad(loss_of(maps.requires_grad_(), shrinkage, penalty, clipped / squares), maps)[0]
        for maps in (first, last)
    ]
    assert gradients[1].abs().max() < 1e-3 * gradients[0].abs().max()


def test_descent_reduces_the_absolute_error_for_skewed_noise() -> None:
    start = solve_linear(MOMENTS, 1e-2)
    path = list(islice(descend(start, MOMENTS, SERIES, penalty=1e-2, shrinkage=None), 16))
    errors = [absolute_error(model, SERIES) for model in [start, *path]]
    assert errors[1] < errors[0]
    assert min(errors) < 0.99 * errors[0]


def test_absolute_error_equals_a_loop_over_windows() -> None:
    model = solve_linear(MOMENTS, 1e-2, 1.0)
    errors = []
    for x in SERIES:
        for first in range(len(x) - LENGTH - HORIZON + 1):
            window = x[None, first : first + LENGTH + HORIZON]
            errors.append((model(window[:, :LENGTH]) - window[:, LENGTH:]).abs().mean().detach())
    assert absolute_error(model, SERIES) == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
    assert absolute_error(share_map(solve_linear(MOMENTS, 1.0), CHANNELS), SERIES) > 0


@pytest.mark.parametrize("every", [1, 2, 12, 24, 48])
def test_subsampled_windows_cover_all_seasonal_phases(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    day, hours, generator = 24, torch.arange(3000), torch.Generator().manual_seed(3)
    noise = torch.randn(len(hours), generator=generator).exp() - 1
    series = [(3 * torch.rand(day, generator=generator)[hours % day] + noise * (0.1 + (hours % day > 18))).unsqueeze(1)]
    moments = window_moments(series[0], 30, 12)
    monkeypatch.setattr("titans_seq.models.least_absolute._OPERATIONS", 4 * moments.windows * 30 * 12 / every)
    start = solve_linear(moments, 1e-3)
    path = islice(descend(start, moments, series, penalty=1e-3, shrinkage=None, seasonal_period=day), 12)
    assert min(absolute_error(model, series) for model in path) < 0.97 * absolute_error(start, series)


@pytest.mark.parametrize("length", [1, LENGTH])
@pytest.mark.parametrize("shrinkage", [None, 0.5])
def test_constant_series_is_forecast_exactly(length: int, shrinkage: float | None) -> None:
    series = torch.full((50, CHANNELS), 3.0)
    moments = window_moments(series, length, HORIZON)
    start = solve_linear(moments, 1e-2, shrinkage)
    last = list(islice(descend(start, moments, [series], penalty=1e-2, shrinkage=shrinkage), 3))[-1]
    for model in (start, last):
        assert absolute_error(model, [series]) == 0
