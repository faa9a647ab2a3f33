"""Candidate forecasts: simple forecasts from the past of a token, which the model weighs and corrects.

Shapes: B series, T tokens, M pairs of a token and a lead, K candidates, P steps of a patch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.models.universal.context import Context, take
from titans_seq.schema import PATCH

# last value, mean, trend; of each of three periods the last season and a mean of seasons; of the main period the last
# season with the drift between seasons, and the mean of seasons moved to the level of the last one.
NUM_CANDIDATES = 11
LAST_VALUE, LAST_SEASON = 0, 3  # indices; the last season by the nominal period
_SEASONS, _DECAY = 8, 0.8  # a mean of seasons is over the last 8, each with 0.8 of the next one's weight
_TREND_STEPS = 32  # the trend is measured over
_TREND_HORIZON = 48  # steps after which the trend stays flat
_DRIFT_SEASONS = 4.0  # seasons after which the drift stays flat


def candidate_forecasts(context: Context, token: Tensor, lead: Tensor) -> Tensor:
    """Return forecasts (B, M, K, P) of the patch that begins `lead` (B, M) patches after the end of `token` (B, M).

    They are in the units of `context.values`. A seasonal forecast is the last value or the mean where the series has no
    such period yet.
    """
    ends = context.ends[token]
    starts = take(context.starts, token)
    last, mean = (take(x, token).float().unsqueeze(-1) for x in (context.last, context.mean))
    ahead = lead.unsqueeze(-1) * PATCH + torch.arange(1, PATCH + 1, device=lead.device)  # (B, M, P), 1 is the next step
    half = ((ends - starts).clamp(2, _TREND_STEPS) // 2).clamp_min(1)
    recent, earlier = context.average(ends - half, ends), context.average(ends - 2 * half, ends - half)
    enough = (context.number(ends - half, ends) > 0) & (context.number(ends - 2 * half, ends - half) > 0)
    slope = torch.where(enough & (ends - 2 * half >= starts), (recent - earlier) / half, 0.0).float().unsqueeze(-1)
    forecasts = [last.expand_as(ahead), mean.expand_as(ahead), last + slope * ahead.clamp_max(_TREND_HORIZON)]
    periods = context.periods.steps.gather(1, token.unsqueeze(-1).expand(-1, -1, 3))
    values, steps = _with_observed(context), ahead.int()
    seasonal = [_Seasonal(values, periods[..., index], ends, starts, steps, last, mean) for index in range(3)]
    for each in seasonal:
        forecasts += [each.last_season, each.mean_of_seasons]
    nominal, detected, _ = seasonal
    main = (detected.period > 1).unsqueeze(-1)
    last_season = torch.where(main, detected.last_season, nominal.last_season)
    mean_of_seasons = torch.where(main, detected.mean_of_seasons, nominal.mean_of_seasons)
    period = torch.where(main.squeeze(-1), detected.period, nominal.period)
    drift, offset = _level_changes(context, period, ends, starts)
    seasons = (ahead / period.clamp_min(PATCH).unsqueeze(-1)).ceil().clamp_max(_DRIFT_SEASONS)
    forecasts += [last_season + drift * seasons, mean_of_seasons + offset]
    return torch.stack(forecasts, dim=2)


def _with_observed(context: Context) -> Tensor:
    """Return complex numbers (B, 1 + L): a value and 1 for an observed step, 0 for others and before the first.

    One index reads both: reads at indices are most of the time that candidates take.
    """
    return F.pad(torch.complex(context.values, context.observed.float()), (1, 0))


class _Seasonal:
    """Forecasts (B, M, P) by one period: the last season repeated, and a mean of the last seasons."""

    def __init__(
        self, values: Tensor, period: Tensor, ends: Tensor, starts: Tensor, ahead: Tensor, last: Tensor, mean: Tensor
    ) -> None:
        self.period = torch.where((period > 1) & (ends - period >= starts), period, 0)
        # 32 bits: twice as fast. Entry t + 1 of a row is step t; without a period no step is usable.
        rows = torch.arange(len(values), dtype=torch.int32, device=values.device).view(-1, 1, 1) * values.shape[1]
        first = torch.where(self.period > 0, starts, values.shape[1]).int().unsqueeze(-1)
        steps = self.period.clamp_min(1).int().unsqueeze(-1)
        entry = ends.int().unsqueeze(-1) + ahead - (ahead + (steps - 1)) // steps * steps  # the same phase, last season
        seasons = torch.zeros(entry.shape, dtype=values.dtype, device=values.device)
        for season in range(_SEASONS):
            usable = (entry - first).clamp_(0, 1)
            at = usable.mul_(entry).add_(rows)  # the entry before the first step, which is 0, where it is not usable
            read = values.flatten().index_select(0, at.flatten()).view(entry.shape)
            if season == 0:
                # The value is 0 where it is not known.
                self.last_season = torch.addcmul(read.real, last, 1 - read.imag)
            seasons.add_(read, alpha=_DECAY**season)
            entry = entry - steps
        total, weights = seasons.real, seasons.imag
        self.mean_of_seasons = torch.addcmul(total / weights.clamp_min(1e-9), mean, (weights == 0).to(mean.dtype))


def _level_changes(context: Context, period: Tensor, ends: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change from the season before the last to the last one, and the last one's mean less the seasons'.

    Both (B, M, 1); a patch counts as a season where there is no period.
    """
    length = torch.where(period > 0, period, PATCH)
    begin = torch.maximum(ends - length, starts)
    newest, is_known = context.average(begin, ends), context.number(begin, ends) > 0
    before = context.average(ends - 2 * length, ends - length)
    two = (ends - 2 * length >= starts) & (2 * context.number(ends - 2 * length, ends - length) >= length)
    drift = torch.where(two & is_known, newest - before, 0.0)
    number = ((ends - starts) // length).clamp_max(_SEASONS)
    weights = total = torch.zeros_like(newest)
    for season in range(_SEASONS):
        end = ends - season * length
        weight = (season < number) * (context.number(end - length, end) > 0) * _DECAY**season
        total = total + weight * context.average(end - length, end)
        weights = weights + weight
    offset = torch.where(is_known & (weights > 0), newest - total / weights.clamp_min(1e-9), 0.0)
    return drift.float().unsqueeze(-1), offset.float().unsqueeze(-1)
