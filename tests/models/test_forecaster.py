"""The forecaster, the linear forecasters and the baselines."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from titans_seq.batch import ForecastBatch
from titans_seq.config import load_config
from titans_seq.models.baselines import DLinear, LastValue, SeasonalNaive
from titans_seq.models.forecaster import Forecaster
from titans_seq.models.linear import LinearForecaster, share_map, solve_linear, squared_error, window_moments
from titans_seq.tasks.forecasting import build_forecaster


def batch(windows: int, length: int, horizon: int, channels: int = 2) -> ForecastBatch:
    generator = torch.Generator().manual_seed(0)
    series = torch.randn(windows, length + horizon, channels, generator=generator).cumsum(dim=1)
    return ForecastBatch(series[:, :length], series[:, length:], torch.arange(windows))


def test_naive_forecasts() -> None:
    context = torch.arange(10.0).view(1, 10, 1)
    assert LastValue(3)(context).flatten().tolist() == [9, 9, 9]
    assert SeasonalNaive(6, 4)(context).flatten().tolist() == [6, 7, 8, 9, 6, 7]
    assert SeasonalNaive(3, 24)(context[:, :2]).flatten().tolist() == [0, 1, 0]  # a season longer than the context


SERIES = torch.randn(90, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).cumsum(dim=0)


def windows_of(series: Tensor, length: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, C, L + 1) and targets (N, C, H) of all windows, minus the last context value; the last input is 1."""
    starts = range(len(series) - length - horizon + 1)
    cut = np.stack([series[s : s + length + horizon].numpy() - series[s + length - 1].numpy() for s in starts])
    cut = cut.transpose(0, 2, 1)
    return np.concatenate([cut[..., :length], np.ones_like(cut[..., :1])], axis=-1), cut[..., length:]


@pytest.mark.parametrize(("length", "horizon"), [(6, 3), (1, 4), (5, 1), (60, 30)])
def test_moments_equal_sums_over_windows(length: int, horizon: int) -> None:
    x, y = windows_of(SERIES, length, horizon)
    moments = window_moments(SERIES, length, horizon)
    assert moments.windows == len(x)
    np.testing.assert_allclose(moments.xx, np.einsum("nci,ncj->cij", x, x), rtol=0, atol=1e-8)
    np.testing.assert_allclose(moments.xy, np.einsum("nci,ncj->cij", x, y), rtol=0, atol=1e-8)
    np.testing.assert_allclose(moments.yy, (y**2).sum(axis=(0, 2)), rtol=0, atol=1e-8)


def test_solved_linear_map_equals_numpy_least_squares() -> None:
    x, y = windows_of(SERIES, 6, 3)
    design = np.delete(x, 5, axis=2)  # the last step is zero by construction
    moments = window_moments(SERIES, 6, 3)
    shared, own = solve_linear(moments, 1e-12), solve_linear(moments, 1e-12, shrinkage=0.0)
    cases = [(shared.weight, shared.bias, design.reshape(-1, 6), y.reshape(-1, 3))]
    cases += [(own.weight[c], own.bias[c], design[:, c], y[:, c]) for c in range(3)]
    for weight, bias, inputs, targets in cases:
        solution, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
        np.testing.assert_allclose(weight.detach()[:-1], solution[:-1], atol=1e-5)
        np.testing.assert_allclose(bias.detach(), solution[-1], atol=1e-5)


def test_strong_shrinkage_gives_every_channel_the_shared_map() -> None:
    moments = window_moments(SERIES, 6, 3)
    shared, shrunk = solve_linear(moments, 0.1), solve_linear(moments, 0.1, shrinkage=1e6)
    for c in range(3):
        assert torch.allclose(shrunk.weight[c], shared.weight, atol=1e-4)
    assert not torch.allclose(solve_linear(moments, 0.1, shrinkage=0.1).weight[0], shared.weight, atol=1e-2)


@pytest.mark.parametrize("shrinkage", [None, 0.3])
def test_squared_error_equals_that_of_the_forecasts(shrinkage: float | None) -> None:
    model = solve_linear(window_moments(SERIES[:60], 6, 3), 0.1, shrinkage)
    x, y = windows_of(SERIES, 6, 3)
    forecast = model(torch.tensor(x[..., :6]).float().transpose(1, 2)).transpose(1, 2).detach().numpy()
    expected = ((forecast - y) ** 2).mean()
    assert squared_error(model, window_moments(SERIES, 6, 3)) == pytest.approx(expected, rel=1e-5)


def test_a_shared_map_for_every_channel_forecasts_the_same() -> None:
    model = solve_linear(window_moments(SERIES, 6, 3), 0.1)
    context = SERIES[:24].float().view(4, 6, 3)
    assert torch.allclose(share_map(model, 3)(context), model(context), atol=1e-6)


def test_dlinear_equals_the_published_form() -> None:
    torch.manual_seed(0)
    model, context = DLinear(40, 5), batch(3, 40, 5).context
    padded = np.pad(context.numpy(), ((0, 0), (12, 12), (0, 0)), mode="edge")
    trend = np.stack([padded[:, i : i + 25].mean(axis=1) for i in range(40)], axis=1)
    parts = ((trend, model.trend), (context.numpy() - trend, model.rest))
    expected = sum(
        np.einsum("blc,hl->bhc", x, layer.weight.detach()) + layer.bias.detach().numpy()[:, None] for x, layer in parts
    )
    np.testing.assert_allclose(model(context).detach(), expected, atol=1e-5)


def forecaster(**overrides: object) -> Forecaster:
    common = ["data.context_length=48", "data.horizon=5", "model.dim=8", "model.memory.num_heads=2"]
    return build_forecaster(load_config([], common + [f"{k}={v}" for k, v in overrides.items()]), num_channels=2).eval()


def test_training_starts_at_exactly_the_solved_linear_forecast() -> None:
    data = batch(100, 48, 5)
    series = torch.randn(200, 2).cumsum(dim=0)
    linear = solve_linear(window_moments(series, 48, 5), 0.1)
    model = forecaster()
    model.start_from(linear)
    assert torch.allclose(model(data.context), linear(data.context), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("centre", ["mean", "last"])
@pytest.mark.parametrize("linear", ["none", "learned"])
def test_forecast_follows_shift_and_scale_of_the_window(centre: str, linear: str) -> None:
    model = forecaster(**{"model.centre": centre, "model.linear_path": linear})
    if model.linear_path is not None:
        nn.init.normal_(model.linear_path.weight, std=0.1)
    context = batch(3, 48, 5).context.double()
    model.double()
    model.norm.eps = 0.0
    assert torch.allclose(model(4 * context + 7), 4 * model(context) + 7, atol=1e-8)


def test_channels_are_independent_unless_mixed() -> None:
    data = batch(3, 48, 5)
    changed = data.context.clone()
    changed[..., 1] = 0.0

    def first_channel(model: Forecaster, context: Tensor) -> Tensor:
        forecast: Tensor = model(context)
        return forecast[..., 0]

    model = forecaster()
    assert torch.allclose(first_channel(model, changed), first_channel(model, data.context), atol=1e-5)
    mixed = forecaster(**{"model.channel_mixing": "true"})
    assert not torch.allclose(first_channel(mixed, changed), first_channel(mixed, data.context), atol=1e-3)


def test_forecast_of_a_window_does_not_depend_on_its_batch() -> None:
    model, data = forecaster().double(), batch(5, 48, 5)
    whole = model(data.context.double())
    for index in range(5):
        assert torch.allclose(model(data.context[index : index + 1].double()), whole[index : index + 1], atol=1e-10)


def test_every_parameter_of_the_forecaster_learns() -> None:
    model, data = forecaster().train(), batch(8, 48, 5)
    nn.init.normal_(model.norm.shift, std=0.1)
    (model(data.context) - data.target).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_linear_forecaster_starts_as_the_last_value() -> None:
    context = batch(3, 10, 4).context
    assert torch.equal(LinearForecaster(10, 4)(context), LastValue(4)(context))
