"""The forecaster and what it is compared with."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from titans_seq.batch import ForecastBatch
from titans_seq.config import load_config
from titans_seq.models.baselines import LastValue, LinearForecaster, SeasonalNaive, solve_linear
from titans_seq.models.forecaster import Forecaster
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


def test_solved_linear_map_equals_numpy_least_squares() -> None:
    data = batch(200, 6, 3)
    (model,) = solve_linear([data], [1e-12])
    last = data.context[:, -1:]
    x = (data.context - last).transpose(1, 2).reshape(-1, 6).double().numpy()
    y = (data.target - last).transpose(1, 2).reshape(-1, 3).double().numpy()
    design = np.column_stack([x[:, :-1], np.ones(len(x))])  # the last input is zero by construction
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    assert np.allclose(model.weight.detach().numpy()[:-1], solution[:-1], atol=1e-5)
    assert np.allclose(model.bias.detach().numpy(), solution[-1], atol=1e-5)


def test_sums_over_batches_equal_one_batch() -> None:
    data = batch(60, 6, 3)
    (whole,) = solve_linear([data], [0.1])
    (parts,) = solve_linear([ForecastBatch(*(x[i : i + 7] for x in data)) for i in range(0, 60, 7)], [0.1])
    assert torch.allclose(whole.weight, parts.weight, atol=1e-6)


def forecaster(**overrides: object) -> Forecaster:
    words = ["data.context_length=48", "data.horizon=5", "model.dim=8", "model.memory.num_heads=2"]
    return build_forecaster(load_config([], words + [f"{k}={v}" for k, v in overrides.items()]), num_channels=2).eval()


def test_training_starts_at_exactly_the_solved_linear_forecast() -> None:
    data = batch(100, 48, 5)
    (linear,) = solve_linear([data], [0.1])
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
