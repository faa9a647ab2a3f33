"""The universal forecaster: causal, equivariant to scale and level, ordered quantiles, independent series."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import VARIANTS
from tests.models.universal.series import batch, nasty, seasonal, small_model, with_gaps
from titans_seq.models.universal.candidates import candidate_forecasts
from titans_seq.models.universal.context import Context
from titans_seq.models.universal.features import PAIR_FEATURES, TOKEN_FEATURES, pair_features, token_features
from titans_seq.models.universal.forecaster import UniversalForecaster
from titans_seq.schema import PATCH

TOKENS = 11
LENGTH = TOKENS * PATCH


def context(values: Tensor, nominal: int = 24) -> Context:
    return Context(values, torch.full((len(values),), nominal))


def forecast(model: UniversalForecaster, values: Tensor, patches: int = 3) -> Tensor:
    found = context(values)
    with torch.no_grad():
        return model.forecast(found, model.encode(found)[0], patches)


def all_pairs(rows: int, tokens: int, leads: tuple[int, ...] = (0, 1, 6)) -> tuple[Tensor, Tensor]:
    token = torch.arange(tokens).repeat(len(leads))
    return token.expand(rows, -1), torch.tensor(leads).repeat_interleave(tokens).expand(rows, -1)


def quantiles_everywhere(model: UniversalForecaster, values: Tensor, tokens: int) -> Tensor:
    """Forecasts at the first tokens of series, in their own units, (B, M, P, Q)."""
    found = context(values)
    with torch.no_grad():
        quantiles, centre, scale = model.decode(found, model.encode(found)[0], *all_pairs(len(values), tokens))
    return found.restore(centre[..., None, None] + scale[..., None, None] * quantiles)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forecasts_depend_on_the_past_only(variant: str) -> None:
    model = small_model(variant)
    series = [seasonal(LENGTH, 24), with_gaps(seasonal(LENGTH, 7), 0.3)]
    before = quantiles_everywhere(model, batch(*series), TOKENS)
    for token in (0, 4, 8):
        changed = [np.where(np.arange(LENGTH) >= (token + 1) * PATCH, 20 - x, x) for x in series]
        after = quantiles_everywhere(model, batch(*changed), TOKENS)
        same = all_pairs(1, TOKENS)[0][0] <= token
        torch.testing.assert_close(after[:, same], before[:, same], rtol=0, atol=1e-12)
        assert not torch.isclose(after[:, ~same], before[:, ~same]).any(dim=(2, 3)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_forecasts_at_a_token_equal_those_of_the_series_up_to_there(variant: str) -> None:
    model = small_model(variant)
    values = batch(seasonal(LENGTH, 24), with_gaps(seasonal(LENGTH, 7), 0.3))
    everywhere = quantiles_everywhere(model, values, TOKENS)
    for token in (1, 3, 7):  # tokens at which periods are detected; at others a forecast detects them anew
        alone = forecast(model, values[:, : (token + 1) * PATCH], 2)
        for lead in (0, 1):
            torch.testing.assert_close(
                alone[:, lead * PATCH : (lead + 1) * PATCH], everywhere[:, lead * TOKENS + token], rtol=0, atol=1e-9
            )


def test_every_token_and_the_distant_past_matter() -> None:
    model = small_model("lmm")
    series = seasonal(LENGTH, 24)
    before = forecast(model, batch(series))
    for token in range(TOKENS):
        changed = np.where(np.arange(LENGTH) // PATCH == token, series + 1, series)
        assert (forecast(model, batch(changed)) - before).abs().max() > 1e-6, token


SERIES = {
    "season": seasonal(LENGTH, 24),
    "gaps": with_gaps(seasonal(LENGTH, 12), 0.3),
    "walk": np.random.default_rng(1).normal(size=LENGTH).cumsum(),
    "constant": np.full(LENGTH, 0.3),
    "constant, then noise": nasty(LENGTH)["constant, then noise"],
    "constant again": np.where(np.arange(LENGTH) < 3, np.arange(LENGTH), 2.0),
}


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-20, 0.5, 4.0, 2.0**40])
def test_scaling_by_a_power_of_two_scales_the_forecast_exactly(scale: float) -> None:
    model, values = small_model(), batch(*SERIES.values())
    assert torch.equal(forecast(model, scale * values), scale * forecast(model, values))


@pytest.mark.parametrize(("scale", "level"), [(3, 0), (1.7e-9, 0), (1e9, 0), (1, 5), (0.3, -40), (7, 1e4)])
@pytest.mark.parametrize("name", SERIES)
def test_scaling_and_shifting_a_series_scales_and_shifts_the_forecast(name: str, scale: float, level: float) -> None:
    model, values = small_model(), batch(SERIES[name])
    found, expected = forecast(model, scale * values + level), scale * forecast(model, values) + level
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=2e-5 * scale)


def test_series_with_a_huge_level_are_forecast_like_others() -> None:
    model, values = small_model(), batch(np.round(seasonal(LENGTH, 24), 5))
    found, expected = forecast(model, 1e9 + values) - 1e9, forecast(model, values)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_constant_series_are_forecast_to_stay() -> None:
    model = small_model()
    for level in (0.0, 0.3, -1e9, 1e-12):
        values = batch(np.full(LENGTH, level), with_gaps(np.full(LENGTH, level), 0.4))
        assert (forecast(model, values) == level).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_nasty_series_have_finite_ordered_forecasts_and_gradients(variant: str) -> None:
    model = small_model(variant)
    series = nasty(LENGTH)
    found = context(batch(*series.values()))
    encoded, _ = model.encode(found)
    token, lead = all_pairs(len(series), TOKENS)
    quantiles, centre, scale = model.decode(found, encoded, token, lead)
    for part in (encoded, quantiles, centre, scale):
        assert part.isfinite().all()
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert (scale > 0).all()
    quantiles.abs().clamp_max(1e6).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    restored = forecast(model, batch(*series.values()))
    for row, name in enumerate(series):
        assert restored[row].isnan().all() == (name == "all missing"), name
        assert restored[row].isfinite().all() == (name != "all missing"), name
    assert (restored.nan_to_num().diff(dim=-1) >= 0).all()


def test_quantiles_never_cross_with_any_weights() -> None:
    model = small_model()
    for size in (1.0, 10.0, 100.0):
        torch.nn.init.normal_(model.out.weight, std=size)
        found = quantiles_everywhere(model, batch(*SERIES.values()), TOKENS)
        assert (found.diff(dim=-1) >= 0).all()
        assert found.std() > 0


def test_single_precision_gives_finite_numbers() -> None:
    model = small_model().float()
    assert forecast(model, batch(*(x for x in nasty(LENGTH).values() if np.isfinite(x).any()))).isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_series_of_a_batch_are_independent(variant: str) -> None:
    model = small_model(variant)
    values = batch(*SERIES.values(), *nasty(LENGTH).values())
    together = forecast(model, values)
    for row in range(len(values)):
        alone = forecast(model, values[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_features_have_the_promised_sizes_and_a_small_range() -> None:
    values = batch(*nasty(LENGTH).values(), *SERIES.values())
    found = context(values)
    token, lead = all_pairs(len(values), TOKENS, (0, 44))
    candidates = torch.zeros(*token.shape, 11, PATCH)
    tokens, pairs = token_features(found), pair_features(found, token, lead, candidates)
    assert tokens.shape == (len(values), TOKENS, TOKEN_FEATURES)
    assert pairs.shape == (*token.shape, PAIR_FEATURES)
    assert tokens.isfinite().all()
    assert tokens.abs().max() < 100


def test_initial_forecasts_are_near_the_mean_of_the_candidates() -> None:
    model = small_model(perturb=0.0)
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.zero_()
    values = batch(*(x for name, x in SERIES.items() if name != "constant"))
    found = context(values)
    quantiles, centre, scale = model.decode(found, model.encode(found)[0], *all_pairs(len(values), TOKENS))
    candidates = candidate_forecasts(found, *all_pairs(len(values), TOKENS)).double().mean(dim=2)
    median = centre.double()[..., None] + scale.double()[..., None] * quantiles[..., 4]
    torch.testing.assert_close(median, candidates, rtol=1e-5, atol=1e-5)
    gaps = quantiles.diff(dim=-1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, float(np.log1p(np.exp(-1.0)))), rtol=1e-6, atol=1e-9)
