"""Reading series piece by piece gives what one call gives, with a state of constant size."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers import VARIANTS
from tests.models.universal.series import batch, nasty, seasonal, small_model, with_gaps
from titans_seq.models.universal.context import WINDOW
from titans_seq.models.universal.forecaster import UniversalForecaster
from titans_seq.models.universal.stream import SeriesState, read_series
from titans_seq.schema import PATCH

TOKENS = WINDOW // PATCH + 70  # more than a window, and two detections of periods after it
LENGTH = TOKENS * PATCH
STEPS = np.arange(LENGTH)
NASTY = nasty(LENGTH)
SERIES = {
    "season": seasonal(LENGTH, 24),
    "gaps": with_gaps(seasonal(LENGTH, 24, 168), 0.4),
    "long gap": np.where((STEPS > 5 * PATCH) & (STEPS < LENGTH - 200), np.nan, seasonal(LENGTH, 12)),
    "gap longer than a window": np.where((STEPS > 40) & (STEPS < 60 + WINDOW), np.nan, seasonal(LENGTH, 12)),
    "starts late": np.where(STEPS < 37 * PATCH + 5, np.nan, seasonal(LENGTH, 7)),
    "starts constant": np.where(STEPS < 37 * PATCH + 5, 7.0, 7 + 1e-3 * seasonal(LENGTH, 7)),
    "ends constant": np.where(STEPS > 9 * PATCH, 2.0, seasonal(LENGTH, 7)),
    "walk": NASTY["noise"].cumsum(),
    "periodic": (STEPS % 24 == 0) * 1.0,
    "alternating": NASTY["two values"],
    "line": NASTY["line"],
    "all missing": NASTY["all missing"],
    "constant": NASTY["constant"],
    "one value": NASTY["one value"],
    "huge offset": NASTY["huge offset"],
}
NOMINAL = torch.tensor([24, 0, 12] * 5)
SPLITS = {
    "patch by patch": list(range(1, 12)),
    "two halves": [TOKENS // 2],
    "at the end of the window": [WINDOW // PATCH - 1, WINDOW // PATCH, WINDOW // PATCH + 1],
    "late": [TOKENS - 1],
    "uneven": [2, 3, 36, 38, 90, 150, 191],
}


def read_pieces(model: UniversalForecaster, values: Tensor, ends: list[int]) -> tuple[Tensor, Tensor, SeriesState]:
    """Read series in pieces that end after these numbers of patches; the tokens, the forecast after the last, state."""
    state, parts = None, []
    for start, end in pairwise([0, *ends, values.shape[1] // PATCH]):
        with torch.no_grad():
            context, encoded, state = read_series(model, values[:, start * PATCH : end * PATCH], NOMINAL, state)
        parts.append(encoded)
    assert state is not None
    with torch.no_grad():
        return torch.cat(parts, dim=1), model.forecast(context, encoded, 4), state


def assert_same_state(found: SeriesState, expected: SeriesState) -> None:
    one, other = found.named_tensors(), expected.named_tensors()
    assert one.keys() == other.keys()
    for name, x in one.items():
        torch.testing.assert_close(x, other[name], rtol=0, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def whole() -> tuple[Tensor, Tensor, SeriesState]:
    """All series read in one call, by the variant lmm."""
    return read_pieces(small_model(), batch(*SERIES.values()), [])


@pytest.mark.parametrize("split", SPLITS)
def test_pieces_equal_one_call(split: str, whole: tuple[Tensor, Tensor, SeriesState]) -> None:
    tokens, forecast, state = read_pieces(small_model(), batch(*SERIES.values()), SPLITS[split])
    for row, name in enumerate(SERIES):
        for found, expected in ((tokens, whole[0]), (forecast, whole[1])):
            torch.testing.assert_close(
                found[row], expected[row], rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert_same_state(state, whole[2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_reads_in_pieces(variant: str) -> None:
    model, values = small_model(variant), batch(*SERIES.values())[:, : 40 * PATCH]
    tokens, forecast, state = read_pieces(model, values, [])
    pieces = read_pieces(model, values, [1, 2, 7, 30])
    torch.testing.assert_close(pieces[0], tokens, rtol=0, atol=1e-9)
    torch.testing.assert_close(pieces[1], forecast, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert_same_state(pieces[2], state)


def test_a_forecast_in_between_changes_nothing() -> None:
    model, values = small_model(), batch(*SERIES.values())[:, : 30 * PATCH]
    first, rest = values[:, : 11 * PATCH], values[:, 11 * PATCH :]
    results = []
    for forecasts in (0, 2):
        with torch.no_grad():
            context, encoded, state = read_series(model, first, NOMINAL)
            for _ in range(forecasts):
                model.forecast(context, encoded, 3)
            results.append(read_series(model, rest, NOMINAL, state))
    assert torch.equal(results[0][1], results[1][1])
    assert_same_state(results[0][2], results[1][2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_state_continues_exactly(variant: str, tmp_path: Path) -> None:
    model, values = small_model(variant), batch(*SERIES.values())[:, : 30 * PATCH]
    with torch.no_grad():
        _, _, state = read_series(model, values[:, : 13 * PATCH], NOMINAL)
        save_file(state.named_tensors(), tmp_path / "state.safetensors")
        again = SeriesState.from_named_tensors(load_file(tmp_path / "state.safetensors"), model.backbone)
        assert isinstance(again.patches, int)
        results = [read_series(model, values[:, 13 * PATCH :], NOMINAL, each) for each in (state, again)]
    assert torch.equal(results[0][1], results[1][1])
    assert_same_state(results[0][2], results[1][2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_size_of_the_state_is_constant(variant: str) -> None:
    model, series = small_model(variant), batch(seasonal(LENGTH, 24))
    sizes = []
    for patches in (1, 10, TOKENS):
        with torch.no_grad():
            state = read_series(model, series[:, : patches * PATCH], NOMINAL[:1])[2]
        assert state.patches == patches
        sizes.append({name: x.shape for name, x in state.named_tensors().items()})
    assert sizes[0] == sizes[1] == sizes[2]


def test_the_nominal_period_of_the_first_call_is_kept() -> None:
    model, values = small_model(), batch(seasonal(20 * PATCH, 24))
    with torch.no_grad():
        state = read_series(model, values[:, : 8 * PATCH], torch.tensor([24]))[2]
        results = [read_series(model, values[:, 8 * PATCH :], torch.tensor([n]), state)[1] for n in (24, 5)]
    assert torch.equal(*results)


@pytest.mark.parametrize("steps", [0, 1, 15, 17])
def test_parts_of_patches_are_an_error(steps: int) -> None:
    with pytest.raises(ValueError, match=f"a multiple of 16 steps, at least 16; got {steps}"):
        read_series(small_model(), torch.zeros(1, steps, dtype=torch.float64), NOMINAL[:1])


def test_errors_of_named_tensors() -> None:
    model = small_model()
    with torch.no_grad():
        named = read_series(model, batch(seasonal(32, 7)), NOMINAL[:1])[2].named_tensors()
    with pytest.raises(ValueError, match="the state has no tensor shift"):
        SeriesState.from_named_tensors({k: x for k, x in named.items() if k != "shift"}, model.backbone)
    with pytest.raises(ValueError, match="unknown tensor surprise in the state"):
        SeriesState.from_named_tensors({**named, "surprise": torch.zeros(1)}, model.backbone)
    with pytest.raises(ValueError, match="unknown tensor 7"):
        SeriesState.from_named_tensors({**named, "backbone.7.x": torch.zeros(1)}, model.backbone)
