"""Causal view of a batch of series: at the end of every patch, statistics and periods of the steps before it.

Shapes: B series, L steps in patches of P steps, T tokens, one for the end of each patch.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.models.universal.periods import dominant_periods
from titans_seq.schema import PATCH

WINDOW = 2048  # steps that statistics, periods and candidates look back
HISTORY = WINDOW + PATCH  # steps before its first token that a continued context needs
_LARGEST = 1e30  # of a value in units of the first difference: float32 ends at 3e38
_ROUNDING = 1e-14  # of a value, relative to its size: some float64 operations
_SHORT = 384  # steps of a window
_REFRESH = WINDOW // PATCH // 2  # patches between two detections of the periods, once the window is full


class Periods(NamedTuple):
    """Seasonal periods in steps at every token, 0 where there is none."""

    steps: Tensor  # (B, T, 3) int64: the nominal one, and the two that were detected
    strength: Tensor  # (B, T, 2), of the detected ones


class Context:
    """Series and what is known of their past at the end of every patch; nothing looks ahead.

    Values are shifted by the first observed value and divided by a power of two near the first difference, so that
    float32 resolves them at any level and scale. Statistics at a token are over the WINDOW steps up to its end.

    Args:
        values: (B, L) float64, L a multiple of P, NaN where missing. The steps of a series that starts later are NaN.
        nominal: (B,) int64, a period that is known beforehand, such as 24 for hours; 0: none.
        history: number of the first steps of `values`, a multiple of P, that were read in an earlier call: at least
            HISTORY of them, NaN before the series' start. The last patch of the history is token 0.
        before: number of patches read in earlier calls.
        periods: those at the last token of the earlier call, steps (B, 2) and strengths (B, 2) of the detected ones.
        shift, unit: (B,) those of the earlier call; NaN and 0 where nothing was observed yet.
    """

    def __init__(
        self,
        values: Tensor,
        nominal: Tensor,
        *,
        history: int = 0,
        before: int = 0,
        periods: tuple[Tensor, Tensor] | None = None,
        shift: Tensor | None = None,
        unit: Tensor | None = None,
    ) -> None:
        observed = torch.isfinite(values)
        self.observed = observed
        first = _first_observed(values, observed)
        self.shift = first if shift is None else torch.where(shift.isnan(), first, shift)
        moved = torch.where(observed, values - self.shift.unsqueeze(1), 0.0)
        self.unit = _unit(moved) if unit is None else torch.where(unit > 0, unit, _unit(moved))
        scaled = (moved / torch.where(self.unit > 0, self.unit, 1.0).unsqueeze(1)).clamp(-_LARGEST, _LARGEST)
        self.values = scaled.float()
        self.continued = history > 0
        # (T,) steps before a token's end
        self.ends = torch.arange(history or PATCH, values.shape[1] + 1, PATCH, device=values.device)
        self._accumulate(scaled)
        self.periods = self._detect(nominal, before, periods)

    def _accumulate(self, scaled: Tensor) -> None:
        steps = torch.arange(scaled.shape[1], device=scaled.device)
        mask = self.observed.double()
        self._sums, self._counts = (F.pad(x.cumsum(1), (1, 0)) for x in (scaled, mask))
        newest = torch.where(self.observed, steps, 0).cummax(1).values
        self._filled = self.values.gather(1, newest)
        next_observed = torch.where(self.observed, steps, scaled.shape[1]).flip(1).cummin(1).values.flip(1)
        windows = (self.ends - WINDOW).clamp_min(0)
        # (B, T): the first step that statistics at a token may use, its end where nothing is observed
        self.starts = torch.minimum(next_observed[:, windows], self.ends)
        self.count = self._in_window(mask)
        observations = self.count.clamp_min(1)
        self.mean = self._in_window(scaled) / observations
        self.last = torch.where(self.count > 0, self._filled[:, self.ends - 1], 0.0)
        deviation = (self._in_window(scaled.square()) / observations - self.mean.square()).clamp_min(0).sqrt()
        both = F.pad(self.observed[:, 1:] & self.observed[:, :-1], (1, 0)).double()
        change = F.pad((scaled[:, 1:] - scaled[:, :-1]).abs(), (1, 0)) * both
        rate = self._in_window(change) / self._in_window(both).clamp_min(1)
        # Below the floor, differences are rounding of the input.
        rounding = torch.where(self.unit > 0, _ROUNDING * self.shift.abs() / self.unit, 0.0).unsqueeze(1)
        floor = rounding + 1e-6 * self.mean.abs() + 1e-6
        self.deviation = torch.maximum(deviation, floor)  # (B, T) standard deviation
        self.rate = torch.maximum(rate, 1e-3 * self.deviation)  # (B, T) mean absolute change from step to step

    def _in_window(self, x: Tensor) -> Tensor:
        """Return the sums of x (B, L) over the window of every token, (B, T).

        Differences of cumulative sums would keep the rounding of large values that have left the window.
        """
        patches = x.unflatten(1, (-1, PATCH)).sum(2)
        return F.pad(patches, (WINDOW // PATCH - 1, 0)).unfold(1, WINDOW // PATCH, 1).sum(2)[:, -len(self.ends) :]

    def scale(self, token: Tensor) -> Tensor:
        """Return the scale of forecasts at `token` (B, M), float32.

        Between the standard deviation and the mean change: smooth series and random walks change little from step to
        step.
        """
        return (take(self.deviation, token) * take(self.rate, token)).sqrt().float()

    def between(self, cumulative: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Return the sums over steps [start, end), (B, ...); steps below 0 count as none."""
        return take(cumulative, end.expand_as(start).clamp_min(0)) - take(cumulative, start.clamp_min(0))

    def average(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the mean of the observed values in steps [start, end); 0 where there are none."""
        return self.between(self._sums, start, end) / self.number(start, end).clamp_min(1)

    def number(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the number of observed values in steps [start, end)."""
        return self.between(self._counts, start, end)

    def _detect(self, nominal: Tensor, before: int, carried: tuple[Tensor, Tensor] | None) -> Periods:
        """Detect periods at the tokens of the schedule; between two of them the earlier ones hold."""
        batch, tokens = len(self.values), len(self.ends)
        first = int(self.continued)
        number = before + (not self.continued)  # patches up to token 0
        scheduled = [token for token in range(first, tokens) if _scheduled(number + token)]
        if carried is None:
            carried = nominal.new_zeros(batch, 2), self.values.new_zeros(batch, 2)
        found = [each.unsqueeze(1) for each in carried]
        for _, group in groupby(scheduled, self._window_class):
            at = self.detect_at(list(group))
            found = [torch.cat(pair, dim=1) for pair in zip(found, at, strict=True)]
        self._is_detected_last = tokens - 1 in scheduled
        since = torch.zeros(tokens, dtype=torch.long, device=self.values.device)
        since[scheduled] = 1
        steps, strength = (each[:, since.cumsum(0)] for each in found)
        return Periods(torch.cat([nominal.reshape(-1, 1, 1).expand(-1, tokens, 1), steps], dim=2), strength)

    def _window_class(self, token: int) -> int:
        """Class of the length of a token's window, in which periods are detected together.

        Of short windows the calls take most of the time, of long ones the padding would.
        """
        end = int(self.ends[token])
        return end.bit_length() // 2 if end <= _SHORT else end

    def detect_at(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the two periods (B, N, 2) and strengths (B, N, 2) that the windows up to N tokens' ends show.

        Unobserved steps before the shorter windows make all equally long.
        """
        ends = [int(self.ends[token]) for token in tokens]
        length = min(max(ends), WINDOW)
        windows = [
            torch.stack([F.pad(x[:, max(0, end - length) : end], (max(0, length - end), 0)) for end in ends], dim=1)
            for x in (self.values, self.observed)
        ]
        periods, strength = dominant_periods(*(each.flatten(0, 1) for each in windows))
        return periods.unflatten(0, (-1, len(tokens))), strength.unflatten(0, (-1, len(tokens)))

    def detect_last(self) -> None:
        """Detect the periods anew at the last token, for forecasts from there; other tokens keep theirs."""
        if self._is_detected_last:
            return
        found, strength = self.detect_at([len(self.ends) - 1])
        steps = torch.cat([self.periods.steps[:, -1:, :1], found], dim=2)
        self.periods = Periods(
            torch.cat([self.periods.steps[:, :-1], steps], dim=1),
            torch.cat([self.periods.strength[:, :-1], strength], dim=1),
        )

    def restore(self, scaled: Tensor) -> Tensor:
        """Return forecasts (B, ...) in the series' own units, float64.

        They are NaN where nothing was observed, and the one value where all observed ones are equal.
        """
        shape = (-1, *(1,) * (scaled.dim() - 1))
        return scaled.double() * self.unit.view(shape) + self.shift.view(shape)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return x (B, L) at index (B, ...)."""
    return x.gather(1, index.flatten(1)).view(index.shape)


def _scheduled(number: int) -> bool:
    """Whether periods are detected after this number of patches: 2, 3, 4, 6, 8, 12, ... and then regularly."""
    if number > WINDOW // PATCH:
        return number % _REFRESH == 0
    power = 1 << (number.bit_length() - 1)
    return number >= 2 and (number == power or 2 * number == 3 * power)


def _first_observed(values: Tensor, observed: Tensor) -> Tensor:
    first = observed.to(torch.int8).argmax(1, keepdim=True)
    return torch.where(observed.any(1), values.gather(1, first).squeeze(1), torch.nan)


def _unit(moved: Tensor) -> Tensor:
    """Return the power of two below the first value that differs from zero, (B,); 0 where there is none."""
    first = (moved != 0).to(torch.int8).argmax(1, keepdim=True)
    size = moved.gather(1, first).squeeze(1).abs()
    return torch.where(size > 0, torch.exp2(torch.floor(torch.log2(size.clamp_min(1e-300)))), 0.0)
