"""The eleven candidate forecasts, each against a slow loop over the steps of one series."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.universal.series import batch, nasty, seasonal, with_gaps
from titans_seq.models.universal.candidates import NUM_CANDIDATES, candidate_forecasts
from titans_seq.models.universal.context import WINDOW, Context, Periods
from titans_seq.schema import PATCH

PERIODS = [(0, 0, 0), (24, 24, 168), (7, 3, 50), (0, 5, 0), (40, 0, 12), (2, 2048, 16), (5000, 1, 300)]


class Slow:
    """Forecasts from the end of one token of one series, in the units of its context."""

    def __init__(self, series: NDArray[np.float64], end: int, periods: tuple[int, int, int]) -> None:
        (known,) = np.nonzero(~np.isnan(series[:end]) & (np.arange(end) >= end - WINDOW))
        self.series, self.end, self.periods = series, end, periods
        self.start = int(known[0]) if len(known) else end
        self.last = series[known[-1]] if len(known) else 0.0
        self.mean = series[known].mean() if len(known) else 0.0

    def average(self, start: int, end: int) -> float | None:
        """Mean of the observed values in [start, end), None if there are none."""
        inside = self.series[max(0, start) : max(0, end)]
        known = inside[~np.isnan(inside)]
        return float(known.mean()) if len(known) else None

    def trend(self, ahead: int) -> float:
        half = min(max(self.end - self.start, 2), 32) // 2
        earlier = self.average(self.end - 2 * half, self.end - half)
        recent = self.average(self.end - half, self.end)
        if earlier is None or recent is None or self.end - 2 * half < self.start:
            return self.last
        return self.last + (recent - earlier) / half * min(ahead, 48)

    def usable(self, period: int) -> int:
        return period if period > 1 and self.end - period >= self.start else 0

    def seasons(self, period: int, ahead: int) -> list[float | None]:
        """The values at the same phase in the last eight seasons, newest first, None where missing."""
        step = self.end - 1 + ahead
        step -= -(-ahead // period) * period
        steps = [step - season * period for season in range(8)]
        return [self.series[step] if step >= self.start and not np.isnan(self.series[step]) else None for step in steps]

    def seasonal(self, period: int, ahead: int) -> tuple[float, float]:
        """The last season and the mean of seasons."""
        if not self.usable(period):
            return self.last, self.mean
        values = self.seasons(period, ahead)
        newest = self.last if values[0] is None else values[0]
        pairs = [(0.8**season, value) for season, value in enumerate(values) if value is not None]
        if not pairs:
            return newest, self.mean
        return newest, sum(w * value for w, value in pairs) / sum(w for w, _ in pairs)

    def main(self) -> int:
        return self.usable(self.periods[1]) or self.usable(self.periods[0])

    def drift(self) -> float:
        length = self.main() or PATCH
        newest = self.average(max(self.end - length, self.start), self.end)
        first = self.end - 2 * length
        before = self.average(first, self.end - length)
        count = np.sum(~np.isnan(self.series[max(0, first) : max(0, self.end - length)]))
        if newest is None or before is None or first < self.start or 2 * count < length:
            return 0.0
        return newest - before

    def offset(self) -> float:
        length = self.main() or PATCH
        newest = self.average(max(self.end - length, self.start), self.end)
        number = min((self.end - self.start) // length, 8)
        ends = [self.end - season * length for season in range(number)]
        means = [(0.8**season, self.average(end - length, end)) for season, end in enumerate(ends)]
        known = [(weight, mean) for weight, mean in means if mean is not None]
        if newest is None or not known:
            return 0.0
        return newest - sum(weight * mean for weight, mean in known) / sum(weight for weight, _ in known)

    def all(self, ahead: int) -> list[float]:
        forecasts = [self.last, self.mean, self.trend(ahead)]
        for period in self.periods:
            forecasts += self.seasonal(period, ahead)
        newest, mean = self.seasonal(self.main(), ahead)
        seasons = min(-(-ahead // max(self.main(), PATCH)), 4)
        return [*forecasts, newest + self.drift() * seasons, mean + self.offset()]


LENGTH = WINDOW + 24 * PATCH
SERIES = {
    "noise": np.random.default_rng(0).normal(size=LENGTH),
    "gaps": with_gaps(seasonal(LENGTH, 24, 168), 0.4),
    "walk": np.random.default_rng(1).normal(size=LENGTH).cumsum(),
    "starts late": np.where(np.arange(LENGTH) < 5 * PATCH + 3, np.nan, seasonal(LENGTH, 24)),
    "long gap": np.where((np.arange(LENGTH) > 40) & (np.arange(LENGTH) < LENGTH - 100), np.nan, seasonal(LENGTH, 12)),
    "unaligned start": np.where(np.arange(LENGTH) < 9, np.nan, with_gaps(seasonal(LENGTH, 7), 0.1)),
    "missing seasons": np.where(np.arange(LENGTH) % 200 >= 70, np.nan, 9 + seasonal(LENGTH, 24)),
    "all missing": np.full(LENGTH, np.nan),
}
TOKENS = [0, 1, 2, 5, 6, 20, 129, LENGTH // PATCH - 1]
LEADS = [0, 1, 2, 44]


@pytest.mark.parametrize("periods", PERIODS)
def test_candidates_equal_a_loop(periods: tuple[int, int, int]) -> None:
    series = list(SERIES.values())
    context = Context(batch(*series), torch.zeros(len(series), dtype=torch.int64))
    steps = torch.tensor(periods).expand(len(series), len(context.ends), 3)
    context.periods = Periods(steps, context.periods.strength)
    token = torch.tensor(TOKENS).repeat_interleave(len(LEADS)).expand(len(series), -1)
    lead = torch.tensor(LEADS).repeat(len(TOKENS)).expand(len(series), -1)
    found = candidate_forecasts(context, token, lead)
    assert found.shape == (len(series), len(TOKENS) * len(LEADS), NUM_CANDIDATES, PATCH)
    for row, name in enumerate(SERIES):
        unit = float(context.unit[row]) or 1.0
        scaled = (series[row] - context.shift[row].nan_to_num().item()) / unit
        pairs = [(token, lead) for token in TOKENS for lead in LEADS]
        for index, (at, patches) in enumerate(pairs):
            slow = Slow(scaled, (at + 1) * PATCH, periods)
            expected = np.array([slow.all(patches * PATCH + step) for step in (1, 2, PATCH)]).T
            np.testing.assert_allclose(
                found[row, index][:, [0, 1, PATCH - 1]],
                expected,
                rtol=2e-6,
                atol=2e-6,
                err_msg=f"{name} {at} {patches}",
            )


def test_the_detected_periods_are_used() -> None:
    series = seasonal(20 * PATCH, 24, noise=0.0)
    context = Context(batch(series), torch.tensor([0]))
    token, lead = torch.tensor([[19]]), torch.tensor([[3]])
    ahead = np.arange(3 * PATCH, 4 * PATCH) + len(series)
    found = context.restore(candidate_forecasts(context, token, lead))[0, 0]
    expected = series[ahead - 24 * -(-(ahead - len(series) + 1) // 24)]
    np.testing.assert_allclose(found[5], expected, atol=1e-6)  # the last season by the first detected period
    np.testing.assert_allclose(found[6], expected, atol=1e-6)


def test_candidates_of_nasty_series_are_finite_and_independent() -> None:
    series = list(nasty(12 * PATCH).values())
    nominal = torch.full((len(series),), 7)
    context = Context(batch(*series), nominal)
    token = torch.arange(12).expand(len(series), -1)
    lead = (token * 5) % 11
    found = candidate_forecasts(context, token, lead)
    assert found.isfinite().all()
    for row, one in enumerate(series):
        alone = candidate_forecasts(Context(batch(one), nominal[:1]), token[:1], lead[:1])
        torch.testing.assert_close(alone[0], found[row], rtol=1e-6, atol=1e-6)


def test_candidates_depend_on_the_past_only() -> None:
    series = with_gaps(seasonal(30 * PATCH, 24))
    changed = np.where(np.arange(len(series)) >= 20 * PATCH, -50.0, series)
    token = torch.arange(20).repeat(3).unsqueeze(0)
    lead = torch.tensor([0, 4, 9]).repeat_interleave(20).unsqueeze(0)
    one, other = (candidate_forecasts(Context(batch(x), torch.tensor([12])), token, lead) for x in (series, changed))
    assert torch.equal(one, other)
