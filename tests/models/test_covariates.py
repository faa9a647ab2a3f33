"""Effects of covariates on forecasts, and properties of forecast quantiles."""

import pytest
import torch
from torch import Tensor, nn

from titans_seq.batch import CovariateInputs
from titans_seq.config import load_config
from titans_seq.models.forecaster import CovariateSizes, Forecaster
from titans_seq.models.linear import LinearForecaster
from titans_seq.nn.covariates import StaticEmbedding
from titans_seq.nn.heads import QuantileSpread
from titans_seq.tasks.forecasting import build_forecaster

B, L, H, C = 4, 48, 5, 2
SIZES = CovariateSizes(past=2, known=3, categories=[4, 2], numbers=1)
LEVELS = [0.1, 0.3, 0.5, 0.6, 0.95]


def build(sizes: CovariateSizes = SIZES, *overrides: str) -> Forecaster:
    torch.manual_seed(0)
    common = [f"data.context_length={L}", f"data.horizon={H}", "model.dim=8", "model.memory.num_heads=2"]
    return build_forecaster(load_config([], [*common, *overrides]), C, sizes).double().eval()


def inputs() -> tuple[Tensor, CovariateInputs]:
    torch.manual_seed(1)
    context = torch.randn(B, L, C).cumsum(1).double()
    known = torch.randn(B, L + H, 3).double()
    categories = torch.tensor([[0, 1], [1, 0], [2, 1], [3, 0]])
    return context, CovariateInputs(torch.randn(B, L, 2).double(), known, categories, torch.randn(B, 1).double())


def changed(part: Tensor, place: tuple[object, ...]) -> Tensor:
    other = part.clone()
    other[place] = other[place] + 1 if part.is_floating_point() else 1 - other[place].clamp(max=1)
    return other


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("past", (0, 7, 1)),
        ("known", (0, 7, 2)),  # in the past
        ("known", (0, L + 3, 0)),  # in the future
        ("categories", (0, 0)),
        ("categories", (0, 1)),
        ("numbers", (0, 0)),
    ],
)
@pytest.mark.parametrize("mixing", ["false", "true"])
def test_every_covariate_changes_its_own_windows_forecast(field: str, place: tuple[object, ...], mixing: str) -> None:
    model = build(SIZES, f"model.channel_mixing={mixing}")
    context, covariates = inputs()
    before = model(context, covariates)
    after = model(context, covariates._replace(**{field: changed(getattr(covariates, field), place)}))
    moved = (after - before).abs().amax(dim=(1, 2))
    assert moved[0] > 1e-6
    assert moved[1:].max() < 1e-10


def sample(kind: str, count: int, seed: int) -> tuple[Tensor, CovariateInputs, Tensor]:
    """Context, covariates and target of one channel, which the covariate `kind` explains up to noise of std 0.1."""
    torch.manual_seed(seed)
    noise = 0.1 * torch.randn(count, L + H, 1)
    past, known = torch.zeros(count, L, 0), torch.zeros(count, L + H, 0)
    categories, numbers = torch.zeros(count, 0, dtype=torch.int64), torch.zeros(count, 0)
    if kind == "past":  # the covariate leads the series by H steps
        leading = torch.randn(count, L + H, 1)
        past, series = leading[:, H:], leading + noise
    elif kind == "known":
        known = torch.randn(count, L + H, 1)
        series = known + noise
    elif kind == "categories":  # the category affects future steps only
        categories = torch.randint(0, 2, (count, 1))
        series = noise + (2 * categories - 1).unsqueeze(1) * (torch.arange(L + H) >= L).view(1, -1, 1)
    else:
        numbers = torch.randn(count, 1)
        series = noise + numbers.unsqueeze(1) * (torch.arange(L + H) >= L).view(1, -1, 1)
    return series[:, :L], CovariateInputs(past, known, categories, numbers), series[:, L:]


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("past", CovariateSizes(past=1)),
        ("known", CovariateSizes(known=1)),
        ("categories", CovariateSizes(categories=[2])),
        ("numbers", CovariateSizes(numbers=1)),
    ],
)
def test_informative_covariate_is_learned(kind: str, sizes: CovariateSizes) -> None:
    torch.manual_seed(0)
    overrides = [f"data.context_length={L}", f"data.horizon={H}", "model.dim=16", "model.memory.num_heads=2"]
    quiet = ["model.dropout=0", "model.head_dropout=0", "model.num_layers=1"]
    model = build_forecaster(load_config([], [*overrides, *quiet]), 1, sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(150):
        context, covariates, target = sample(kind, 64, seed=step)
        loss = (model(context, covariates) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context, covariates, target = sample(kind, 500, seed=1000)
    with torch.no_grad():
        error = (model.eval()(context, covariates) - target).square().mean()
    assert target.var() > 0.8
    assert error < 0.25, "the model must explain three quarters of the variance"


def test_future_covariate_changes_its_own_step_only() -> None:
    model = build()
    context, covariates = inputs()
    known = changed(covariates.known, (slice(None), L + 3))
    moved = (model(context, covariates._replace(known=known)) - model(context, covariates)).abs().amax(dim=(0, 2))
    assert moved[3] > 1e-6
    assert moved[[0, 1, 2, 4]].max() < 1e-12


def test_channels_stay_independent_with_covariates() -> None:
    model = build()
    context, covariates = inputs()
    other = changed(context, (slice(None), slice(None), 1))
    other[:, 5, 1] += 3
    moved = (model(other, covariates) - model(context, covariates)).abs().amax(dim=(0, 1))
    assert moved[0] < 1e-10 < moved[1]


def test_forecast_of_a_channel_does_not_depend_on_channel_order() -> None:
    model, (context, covariates) = build(), inputs()
    both = model(context, covariates)
    flipped = model(context.flip(2), covariates).flip(2)  # norm weights are initialised identically for all channels
    torch.testing.assert_close(both, flipped)


@pytest.mark.parametrize("sizes", [SIZES, CovariateSizes(known=1), CovariateSizes(past=1), CovariateSizes(numbers=1)])
@pytest.mark.parametrize("mixing", ["false", "true"])
def test_every_parameter_learns(sizes: CovariateSizes, mixing: str) -> None:
    model = build(sizes, "model.head=quantile", f"model.channel_mixing={mixing}")
    nn.init.normal_(model.norm.shift, std=0.1)
    assert model.spread is not None
    nn.init.normal_(model.spread.steps.weight, std=0.1)
    context, covariates = inputs()
    kept = CovariateInputs(
        covariates.past[..., : sizes.past],
        covariates.known[..., : sizes.known],
        covariates.categories[:, : len(sizes.categories)],
        covariates.numbers[:, : sizes.numbers],
    )
    model.quantiles(context, kept).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_training_starts_at_the_solved_linear_forecast_with_covariates_too() -> None:
    linear = LinearForecaster(L, H).double()
    nn.init.normal_(linear.weight)
    model, (context, covariates) = build(), inputs()
    model.start_from(linear)
    torch.testing.assert_close(model(context, covariates), linear(context))


def test_covariates_must_match_the_model() -> None:
    context, covariates = inputs()
    line = "covariates must be given if and only if the model was built with them"
    for model, given in ((build(), None), (build(CovariateSizes()), covariates)):
        with pytest.raises(AssertionError, match=line):
            model(context, given)


@pytest.mark.parametrize("mixing", ["false", "true"])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-4])
def test_quantiles_never_cross_and_include_the_forecast(mixing: str, scale: float) -> None:
    overrides = ["model.head=quantile", f"task.quantiles={LEVELS}", f"model.channel_mixing={mixing}"]
    model = build(SIZES, *overrides).float()
    assert model.spread is not None
    for parameter in model.parameters():  # extreme weights, unlike those of a trained model
        nn.init.normal_(parameter, std=2.0)
    context, covariates = inputs()
    context = scale * context.float()
    covariates = CovariateInputs(*(p.float() if p.is_floating_point() else p for p in covariates))
    quantiles = model.quantiles(context, covariates)
    assert quantiles.shape == (B, H, C, len(LEVELS))
    assert quantiles.diff(dim=-1).min() >= 0
    assert torch.equal(quantiles[..., 2], model(context, covariates))


def test_quantile_spread_is_initialised_to_normal_quantiles() -> None:
    head = QuantileSpread(6, 1, H, LEVELS, std=2.0)
    median = torch.randn(B, 1, H)
    found = head(torch.randn(B, 6), median) - median.unsqueeze(-1)
    normal = torch.distributions.Normal(0.0, 2.0).icdf(torch.tensor(LEVELS))
    torch.testing.assert_close(found, normal.expand(B, 1, H, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [[0.1, 0.9], [0.5, 0.1], [0.0, 0.5], [0.5, 0.5, 0.9], [0.5, 1.0]])
def test_invalid_quantile_levels(levels: list[float]) -> None:
    with pytest.raises(ValueError, match=r"levels must be ascending, within \(0, 1\) and include 0.5"):
        QuantileSpread(6, 1, H, levels)


def test_category_dropout_takes_categories_for_unknown_ones_in_training_only() -> None:
    context, covariates = inputs()
    unknown = covariates._replace(categories=torch.tensor([[4, 2]] * B))
    sizes = SIZES._replace(categories=[5, 3], unknown=True)
    table = ["data.name=table", "data.path=t.csv", "data.id=store", "data.static=[kind]"]
    words = [*table, "model.category_dropout=1", "model.dropout=0", "model.head_dropout=0"]
    model = build(sizes, *words)
    assert not torch.equal(model(context, covariates), model(context, unknown))
    model.train()
    torch.testing.assert_close(model(context, covariates), model(context, unknown))
    plain = build(SIZES, *words)  # an older checkpoint's
    before = plain(context, covariates)
    torch.testing.assert_close(plain.train()(context, covariates), before)


def test_category_dropout_drops_its_share_of_the_categories() -> None:
    embedding = StaticEmbedding([3], 0, 1, dropout=0.3)
    with torch.no_grad():
        embedding.tables[0].weight.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
    codes = torch.zeros(4000, 1, dtype=torch.int64)
    assert 0.26 < float(embedding(codes, torch.empty(4000, 0)).detach().mean()) < 0.34
    assert float(embedding.eval()(codes, torch.empty(4000, 0)).mean()) == 0
