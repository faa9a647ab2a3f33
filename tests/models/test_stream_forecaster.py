"""The streaming forecaster: split streams, causality, and the effect of the carried memory state."""

from dataclasses import replace

import pytest
import torch

from tests.helpers import VARIANTS
from titans_seq.backbone import build_backbone
from titans_seq.models.linear import solve_linear, window_moments
from titans_seq.models.stream_forecaster import StreamForecaster
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions, MixerOptions

L, H, P = 24, 5, 4
SERIES = torch.randn(2, L + 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(dim=1)


def forecaster(variant: str = "lmm") -> StreamForecaster:
    torch.manual_seed(0)
    options = BackboneOptions(
        variant=variant,  # type: ignore[arg-type]
        dim=8,
        num_layers=2,
        memory=MemoryOptions(num_heads=2, chunk_size=4),
        attention=AttentionOptions(num_heads=2, window=3),
        mixer=MixerOptions(num_heads=2),
        segment_length=4,
    )
    model = StreamForecaster(
        build_backbone(replace(options, dropout=0.0)), dim=8, context_length=L, horizon=H, patch_length=P
    )
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.linear_path.weight, std=0.1)
    return model.double().eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_split_stream_gives_the_forecasts_of_the_whole_stream(variant: str) -> None:
    model = forecaster(variant)
    whole, _ = model(SERIES[:, L:], model.initial_state(SERIES[:, :L]))
    state, parts = model.initial_state(SERIES[:, :L]), []
    for piece in SERIES[:, L:].split([8, 4, 36, 12], dim=1):
        forecast, state = model(piece, state)
        parts.append(forecast)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-9)
    assert whole.shape == (2, 15, H)
    assert torch.equal(state.recent, SERIES[:, -L:])


def test_forecasts_are_causal() -> None:
    model = forecaster()
    whole, _ = model(SERIES[:, L:], model.initial_state(SERIES[:, :L]))
    changed = SERIES[:, L:].clone()
    changed[:, 7 * P :] += 100
    other, _ = model(changed, model.initial_state(SERIES[:, :L]))
    torch.testing.assert_close(other[:, :7], whole[:, :7], rtol=0, atol=0)
    assert not torch.allclose(other[:, 7:], whole[:, 7:])


def test_only_carried_memory_depends_on_values_before_the_context() -> None:
    model = forecaster()
    changed = SERIES.clone()
    changed[:, : L + 12] *= -1  # more than L steps before the end
    results = []
    for series in (SERIES, changed):
        state = model.initial_state(series[:, :L])
        carried, _ = model(series[:, L:], state)
        windowed = model.forecast_windowed(series[:, L:], state, patches=3)
        _, later = model(series[:, L:-P], state)
        reset, _ = model(series[:, -P:], later.without_memory())
        results.append((carried[:, -1], windowed[:, -1], reset[:, -1]))
    assert not torch.allclose(results[0][0], results[1][0], rtol=1e-6)
    for fresh in (1, 2):
        torch.testing.assert_close(results[0][fresh], results[1][fresh], rtol=0, atol=1e-9)


def test_windowed_forecast_over_the_whole_stream_equals_the_stream() -> None:
    model = forecaster()
    state = model.initial_state(SERIES[:, :L])
    whole, _ = model(SERIES[:, L:], state)
    torch.testing.assert_close(model.forecast_windowed(SERIES[:, L:], state, 15)[:, 0], whole[:, -1], rtol=0, atol=1e-9)


def test_training_starts_at_the_linear_forecast_of_every_window() -> None:
    linear = solve_linear(window_moments(SERIES.T, L, H), 0.1)
    model = forecaster().float()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    model.linear_path.load_state_dict(linear.state_dict())
    series = SERIES.float()
    forecast, _ = model(series[:, L:], model.initial_state(series[:, :L]))
    contexts = series[:, P:].unfold(1, L, P)
    for n in range(15):
        torch.testing.assert_close(forecast[:, n], linear(contexts[:, n].T.unsqueeze(0))[0].T, rtol=1e-4, atol=1e-4)


def test_input_that_ends_within_a_patch_is_an_error() -> None:
    model = forecaster()
    with pytest.raises(ValueError, match="multiple of patch_length = 4; got 6"):
        model(SERIES[:, :6], model.initial_state(SERIES[:, :L]))
