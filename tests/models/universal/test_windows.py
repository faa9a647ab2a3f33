"""Windows forecast by the universal forecaster: equal to its own forecasts, known covariates, gradients."""

import pytest
import torch
from torch import Tensor

from titans_seq.backbone import build_backbone
from titans_seq.batch import CovariateInputs
from titans_seq.models.universal.context import Context
from titans_seq.models.universal.forecaster import LEVELS, UniversalForecaster
from titans_seq.models.universal.windows import WindowForecaster
from titans_seq.schema import PATCH, ForecastingTaskOptions, MemoryOptions, UniversalModelOptions

SEASON, KNOWN, MEDIAN = 12, 3, LEVELS.index(0.5)


def forecaster() -> UniversalForecaster:
    torch.manual_seed(0)
    options = UniversalModelOptions(dim=8, num_layers=2, hidden=16, dropout=0.0, memory=MemoryOptions(num_heads=2))
    return UniversalForecaster(build_backbone(options), dim=8, hidden=16)


def adapter(horizon: int, *, max_lead: int = 45, num_known: int = 0, season: int = SEASON) -> WindowForecaster:
    return WindowForecaster(forecaster(), horizon=horizon, season=season, max_lead=max_lead, num_known=num_known)


def windows(length: int, channels: int = 2) -> Tensor:
    torch.manual_seed(1)
    phase = torch.arange(length) * (2 * torch.pi / SEASON)
    return torch.randn(3, length, channels).cumsum(1) / 4 + phase.sin().view(1, -1, 1)


def covariates(length: int, horizon: int, seed: int = 2) -> CovariateInputs:
    torch.manual_seed(seed)
    nothing = torch.empty(3, 0)
    return CovariateInputs(torch.empty(3, length, 0), torch.randn(3, length + horizon, KNOWN), nothing.long(), nothing)


def forecast_one(model: UniversalForecaster, series: Tensor, patches: int, season: int = SEASON) -> Tensor:
    """Quantiles (patches * P, Q) of one series (L,), whose first patch is completed by missing steps."""
    missing = torch.full((-len(series) % PATCH,), torch.nan, dtype=torch.float64)
    context = Context(torch.cat([missing, series.double()])[None], torch.tensor([season]))
    return model.forecast(context, model.encode(context)[0], patches)[0]


@pytest.mark.parametrize(("length", "horizon"), [(64, 32), (70, 20), (10, 3)])
@pytest.mark.parametrize("season", [SEASON, 1])
@torch.no_grad()
def test_every_channel_is_forecast_as_a_series_of_its_own(length: int, horizon: int, season: int) -> None:
    model, context = adapter(horizon, season=season), windows(length)
    found = model.quantiles(context)
    assert found.shape == (3, horizon, 2, len(LEVELS))
    for window in range(3):
        for channel in range(2):
            patches = -(-horizon // PATCH)
            series = context[window, :, channel]
            expected = forecast_one(model.forecaster, series, patches, season if season > 1 else 0)[:horizon]
            torch.testing.assert_close(found[window, :, channel].double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(model(context), found[..., MEDIAN])


@torch.no_grad()
def test_leads_beyond_the_longest_are_forecast_recursively() -> None:
    model, context = adapter(40, max_lead=1), windows(64, channels=1)
    found = model.quantiles(context)[0, :, 0].double()
    series, parts = context[0, :, 0].double(), []
    for steps in (16, 16, 8):
        parts.append(forecast_one(model.forecaster, series, 1)[:steps])
        series = torch.cat([series, parts[-1][:, MEDIAN]])
    torch.testing.assert_close(found, torch.cat(parts), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_known_covariates_have_no_effect_at_first() -> None:
    model, context = adapter(20, num_known=KNOWN), windows(64)
    expected = WindowForecaster(model.forecaster, horizon=20, season=SEASON, max_lead=45).quantiles(context)
    assert torch.equal(model.quantiles(context, covariates(64, 20)), expected)


def with_effect(horizon: int, max_lead: int = 45) -> WindowForecaster:
    model = adapter(horizon, max_lead=max_lead, num_known=KNOWN)
    assert model.known is not None
    torch.nn.init.normal_(model.known.sensitivity.weight)
    return model


@torch.no_grad()
def test_known_covariates_of_a_step_move_all_quantiles_of_that_step_alone() -> None:
    model, context, inputs = with_effect(20), windows(64), covariates(64, 20)
    before = model.quantiles(context, inputs)
    inputs.known[:, 64 + 5] += 1
    change = model.quantiles(context, inputs) - before
    assert change[:, 5].abs().min() > 1e-3
    torch.testing.assert_close(change, change[..., :1].expand_as(change), rtol=1e-3, atol=1e-5)
    change[:, 5] = 0
    assert not change.any()


@torch.no_grad()
def test_effect_of_known_covariates_is_in_units_of_the_window() -> None:
    model, context, inputs = with_effect(20), windows(64), covariates(64, 20)
    assert model.known is not None
    plain = WindowForecaster(model.forecaster, horizon=20, season=SEASON, max_lead=45)
    for x in (context, 8 * context + 3):
        view = Context(x.transpose(1, 2).flatten(0, 1).double(), torch.full((6,), SEASON))
        effect = model.known(model.forecaster.encode(view)[0][:, -1], inputs.known[:, 64:])  # (B, C, H)
        expected = x.std(1, correction=0).unsqueeze(1) * effect.transpose(1, 2)
        torch.testing.assert_close(model(x, inputs) - plain(x), expected, rtol=1e-3, atol=1e-3)
        assert expected.std() > 0.1


@torch.no_grad()
def test_recursion_feeds_back_the_effect_of_known_covariates() -> None:
    model, context, inputs = with_effect(32, max_lead=1), windows(64, channels=1), covariates(64, 32)
    before = model.quantiles(context, inputs)
    inputs.known[:, 64] += 1
    after = model.quantiles(context, inputs)
    assert torch.equal(before[:, 1:16], after[:, 1:16])
    assert (before[:, 16:] != after[:, 16:]).any()
    inputs.known[:, 64 + 20] += 1
    changed = (model.quantiles(context, inputs) != after).flatten(2).any(2)
    assert changed[:, 20].all()
    changed[:, 20] = False
    assert not changed.any()


def test_gradients_reach_every_parameter() -> None:
    model = with_effect(40, max_lead=2)
    model.quantiles(windows(128), covariates(128, 40)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_levels_of_the_configuration_are_those_of_the_forecaster() -> None:
    assert tuple(ForecastingTaskOptions().quantiles) == LEVELS
