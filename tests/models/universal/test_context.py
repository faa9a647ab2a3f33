"""Causal statistics of a series, against plain loops over the window, at any level and scale."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.universal.series import batch, nasty, seasonal, with_gaps
from titans_seq.models.universal.context import HISTORY, WINDOW, Context
from titans_seq.schema import PATCH

STATISTICS = ("count", "mean", "deviation", "rate", "last", "starts")
SHORT = 12 * PATCH


def context(*series: NDArray[np.float64], nominal: int = 0) -> Context:
    return Context(batch(*series), torch.full((len(series),), nominal))


def assert_same_past(one: Context, other: Context, tokens: int) -> None:
    """Assert that the first tokens of two contexts have the same statistics and periods."""
    for name in STATISTICS:
        assert torch.equal(getattr(one, name)[:, :tokens], getattr(other, name)[:, :tokens]), name
    for x, y in zip(one.periods, other.periods, strict=True):
        assert torch.equal(x[:, :tokens], y[:, :tokens])


@pytest.mark.parametrize("future", [np.nan, 0.0, 1e9, -3.0])
def test_nothing_depends_on_later_steps(future: float) -> None:
    rng = np.random.default_rng(0)
    series = [seasonal(2 * WINDOW, 24), with_gaps(rng.normal(size=2 * WINDOW).cumsum(), 0.5), 1e6 + seasonal(4096, 7)]
    whole = context(*series)
    for token in (0, 1, 5, 127, 128, 200, 254):
        end = (token + 1) * PATCH
        changed = [np.where(np.arange(len(x)) >= end, future * (1 + np.arange(len(x)) % 3), x) for x in series]
        assert_same_past(context(*changed), whole, token + 1)
        other = context(*(x[:end] for x in series))
        assert_same_past(other, whole, token + 1)
        assert torch.equal(other.values, whole.values[:, :end])
        assert torch.equal(other.unit, whole.unit)


def window_statistics(series: NDArray[np.float64], end: int) -> dict[str, float]:
    """Statistics of the window up to step `end`, by a loop, in the series' units."""
    window = [(step, series[step]) for step in range(max(0, end - WINDOW), end)]
    known = [(step, value) for step, value in window if not np.isnan(value)]
    values = np.array([value for _, value in known])
    changes = [abs(value - series[step - 1]) for step, value in known if step > 0 and not np.isnan(series[step - 1])]
    return {
        "count": len(known),
        "mean": values.mean(),
        "deviation": values.std(),
        "rate": np.mean(changes) if changes else 0.0,
        "last": values[-1],
        "starts": known[0][0],
    }


SERIES = {
    "noise": lambda n: np.random.default_rng(0).normal(size=n),
    "season": lambda n: seasonal(n, 24),
    "gaps": lambda n: with_gaps(seasonal(n, 24), 0.6),
    "walk": lambda n: np.random.default_rng(1).normal(size=n).cumsum(),
    "long gap": lambda n: np.where((np.arange(n) > 40) & (np.arange(n) < n - 100), np.nan, seasonal(n, 12)),
    "starts late": lambda n: np.where(np.arange(n) < 5 * PATCH + 3, np.nan, seasonal(n, 12)),
    "huge offset": lambda n: 1e9 + seasonal(n, 12),
    "huge offset, small noise": lambda n: 1e9 + 1e-3 * seasonal(n, 12),
    "tiny": lambda n: 1e-12 * seasonal(n, 12),
    "huge": lambda n: 1e12 * seasonal(n, 12),
    "after a spike": lambda n: np.where(np.arange(n) == 30, 1e20, seasonal(n, 12)),
}


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("length", [SHORT, 2 * WINDOW])
def test_statistics_equal_a_loop_over_the_window(name: str, length: int) -> None:
    series = SERIES[name](length)
    found = context(series)
    unit, shift = float(found.unit), float(found.shift)
    tokens = range(length // PATCH) if length == SHORT else (0, 7, 126, 127, 128, 129, 130, 200, 255)
    for token in tokens:
        end = (token + 1) * PATCH
        if np.isnan(series[max(0, end - WINDOW) : end]).all():
            for statistic in ("count", "mean", "last"):
                assert getattr(found, statistic)[0, token] == 0
            assert found.starts[0, token] == end
            continue
        expected = window_statistics(series, end)
        deviation = max(expected["deviation"] / unit, 1e-6 + 1e-6 * abs(expected["mean"] - shift) / unit)
        rate = max(expected["rate"] / unit, 1e-3 * deviation)
        assert int(found.count[0, token]) == expected["count"]
        assert int(found.starts[0, token]) == expected["starts"]
        # Relative to the value itself: the rounding of large offsets is that of float64.
        rounding = 1e-15 * abs(shift) / unit
        close = {"rel": 1e-6, "abs": 1e-6 + 4 * rounding}
        assert float(found.deviation[0, token]) == pytest.approx(deviation, **close)
        assert float(found.rate[0, token]) == pytest.approx(rate, **close)
        assert float(found.mean[0, token]) == pytest.approx((expected["mean"] - shift) / unit, **close)
        assert float(found.last[0, token]) == pytest.approx((expected["last"] - shift) / unit, **close)


def test_averages_and_numbers_equal_a_loop() -> None:
    series = with_gaps(seasonal(SHORT, 24), 0.3)
    found = context(series)
    unit, shift = float(found.unit), float(found.shift)
    rng = np.random.default_rng(0)
    for _ in range(50):
        start, end = np.sort(rng.integers(-20, SHORT + 1, size=2))
        inside = series[max(0, start) : max(0, end)]
        known = inside[~np.isnan(inside)]
        bounds = torch.tensor([[start]]), torch.tensor([[end]])
        assert int(found.number(*bounds)) == len(known)
        expected = (known.mean() - shift) / unit if len(known) else 0.0
        assert float(found.average(*bounds)) == pytest.approx(expected, abs=1e-12)


def test_nasty_series_give_finite_numbers_and_do_not_affect_others() -> None:
    series = nasty(SHORT)
    found = context(seasonal(SHORT, 24), *series.values(), nominal=12)
    alone = context(seasonal(SHORT, 24), nominal=12)
    for name in STATISTICS:
        assert getattr(found, name).isfinite().all(), name
        assert torch.equal(getattr(found, name)[:1], getattr(alone, name)), name
    assert found.values.isfinite().all()
    assert found.periods.strength.isfinite().all()
    assert (found.deviation > 0).all()
    assert (found.rate > 0).all()
    for row, name in enumerate(series, start=1):
        assert bool(found.shift[row].isnan()) == (name == "all missing")
        assert bool(found.unit[row] == 0) == (name in ("all missing", "one value", "zeros", "constant")), name


@pytest.mark.parametrize("scale", [2.0**-60, 0.25, 1024.0, 2.0**50])
def test_a_power_of_two_changes_nothing(scale: float) -> None:
    series = list(nasty(SHORT).values())
    one, other = context(*series), context(*(scale * x for x in series))
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.unit * scale, other.unit)
    assert_same_past(one, other, SHORT // PATCH)


def test_an_offset_changes_little() -> None:
    series = [np.round(seasonal(SHORT, 12), 6), with_gaps(np.round(seasonal(SHORT, 24), 6))]
    one, other = context(*series), context(*(x + 2.0**20 for x in series))
    torch.testing.assert_close(one.values, other.values, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.deviation, other.deviation, rtol=1e-6, atol=0)
    torch.testing.assert_close(one.rate, other.rate, rtol=1e-6, atol=0)
    assert torch.equal(one.periods.steps, other.periods.steps)


def test_values_are_restored() -> None:
    series = batch(*nasty(SHORT).values())
    found = Context(series, torch.zeros(len(series), dtype=torch.int64))
    restored = found.restore(found.values)
    known = series.isfinite()
    for row, name in enumerate(nasty(SHORT)):
        if name == "many orders of magnitude":
            continue  # 1e300 times the first change: beyond float32
        where, size = known[row], series[row].abs().nan_to_num().max()
        torch.testing.assert_close(restored[row][where], series[row][where], rtol=1e-6, atol=1e-6 * float(size))
    assert restored[list(nasty(SHORT)).index("all missing")].isnan().all()
    constant = list(nasty(SHORT)).index("constant")
    assert (found.restore(torch.randn(len(series), 5))[constant] == 0.3).all()


def test_periods_are_detected_at_the_tokens_of_the_schedule() -> None:
    found = context(seasonal(2 * WINDOW, 7, 24, noise=1.0), nominal=5)
    steps = found.periods.steps[0]
    assert (steps[:, 0] == 5).all()
    strength = found.periods.strength[0]
    tokens = 1 + torch.nonzero((strength[1:] != strength[:-1]).any(dim=1)).flatten()
    schedule = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256}
    assert set((tokens + 1).tolist()) <= schedule
    assert len(tokens) > 8
    for token in (11, 127, 191, 255):
        expected, how_strong = (x[:, 0] for x in found.detect_at([token]))
        assert torch.equal(expected[0], steps[token, 1:])
        assert torch.equal(how_strong[0], strength[token])


def test_periods_of_several_windows_are_those_of_each() -> None:
    found = context(seasonal(40 * PATCH, 7), with_gaps(seasonal(40 * PATCH, 24)), nominal=0)
    tokens = [2, 7, 20, 39]
    steps, strength = found.detect_at(tokens)
    for index, token in enumerate(tokens):
        expected, how_strong = (x[:, 0] for x in found.detect_at([token]))
        assert torch.equal(steps[:, index], expected)
        torch.testing.assert_close(strength[:, index], how_strong)


def test_detect_last_changes_the_last_token_only() -> None:
    found, before = (context(seasonal(9 * PATCH, 12), seasonal(9 * PATCH, 20), nominal=24) for _ in range(2))
    found.detect_last()
    assert_same_past(found, before, 8)
    expected, strength = (x[:, 0] for x in found.detect_at([8]))
    assert torch.equal(found.periods.steps[:, -1], torch.cat([torch.full((2, 1), 24), expected], dim=1))
    assert torch.equal(found.periods.strength[:, -1], strength)
    assert not torch.equal(found.periods.strength[:, -1], before.periods.strength[:, -1])


@pytest.mark.parametrize("read", [5, 129, 140])
@pytest.mark.parametrize("name", SERIES)
def test_a_continued_context_equals_the_whole_one(name: str, read: int) -> None:
    series = SERIES[name](WINDOW + 20 * PATCH)
    whole = context(series, nominal=12)
    earlier = context(series[: read * PATCH], nominal=12)
    recent = np.concatenate([np.full(HISTORY, np.nan), series])[read * PATCH :]
    found = Context(
        batch(recent),
        torch.tensor([12]),
        history=HISTORY,
        before=read,
        periods=(earlier.periods.steps[:, -1, 1:], earlier.periods.strength[:, -1]),
        shift=earlier.shift,
        unit=earlier.unit,
    )
    offset = read * PATCH - HISTORY  # of the first step
    assert torch.equal(found.unit, whole.unit)
    assert torch.equal(found.shift, whole.shift)
    assert torch.equal(found.starts + offset, whole.starts[:, read - 1 :])
    assert torch.equal(found.ends + offset, whole.ends[read - 1 :])
    for statistic in ("count", "mean", "deviation", "rate", "last"):
        assert torch.equal(getattr(found, statistic), getattr(whole, statistic)[:, read - 1 :]), statistic
    assert torch.equal(found.periods.steps, whole.periods.steps[:, read - 1 :])
    torch.testing.assert_close(found.periods.strength, whole.periods.strength[:, read - 1 :], rtol=0, atol=1e-6)
