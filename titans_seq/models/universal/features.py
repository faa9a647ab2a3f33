"""Inputs of the universal forecaster: features of a token, and of a pair of a token and a lead.

Shapes: B series, T tokens, M pairs of a token and a lead, K candidates, P steps of a patch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.models.universal.candidates import NUM_CANDIDATES, candidate_forecasts
from titans_seq.models.universal.context import Context, take
from titans_seq.schema import PATCH

TOKEN_FEATURES = 3 * PATCH + NUM_CANDIDATES * (PATCH + 1) + 10
PAIR_FEATURES = NUM_CANDIDATES * PATCH + 8
_LARGEST = 6.0  # of an arcsinh of changes and of logarithms
_SQUARABLE = 1e18  # larger float32 numbers overflow when squared


def token_features(context: Context) -> Tensor:
    """Return the features (B, T, F) of every token that is not history.

    The patch in units of the standard deviation and in units of the mean change; which steps were observed; the
    candidates that were forecast for this patch from the token before, and their errors; scale, number of steps seen,
    and the periods with their strengths.
    """
    tokens = len(context.ends)
    patches = slice(int(context.ends[0]) - PATCH, None)
    values = context.values[:, patches].unflatten(1, (tokens, PATCH))
    observed = context.observed[:, patches].unflatten(1, (tokens, PATCH)).float()
    mean, deviation, rate = (x.float().unsqueeze(-1) for x in (context.mean, context.deviation, context.rate))
    level = arcsinh((values - mean) / deviation) * observed
    change = arcsinh((values - context.last.unsqueeze(-1)) / rate).clamp(-_LARGEST, _LARGEST) * observed
    before = torch.arange(tokens - 1, device=values.device).expand(len(values), -1)
    forecast = F.pad(candidate_forecasts(context, before, torch.zeros_like(before)), (0, 0, 0, 0, 1, 0))
    has_forecast = (torch.arange(tokens, device=values.device) > 0).view(1, -1, 1)
    misses = (forecast - values.unsqueeze(2)).abs() * observed.unsqueeze(2)
    miss = misses.sum(-1) / observed.sum(-1, keepdim=True).clamp_min(1)
    errors = torch.log(miss / deviation + 1e-3) * has_forecast
    forecasts = arcsinh((forecast - mean.unsqueeze(2)) / deviation.unsqueeze(2)) * has_forecast.unsqueeze(-1)
    mean_before, deviation_before = (torch.cat([x[:, :1], x[:, :-1]], dim=1) for x in (mean, deviation))
    scalars = [
        *torch.log(rate / deviation).unbind(-1),
        torch.log1p(context.count.float()) / 4,
        *arcsinh((mean - mean_before) / deviation).unbind(-1),
        *torch.log(deviation / deviation_before).clamp(-_LARGEST, _LARGEST).unbind(-1),
        *context.periods.strength.unbind(-1),
        *(torch.log1p(context.periods.steps.float()) / 4).unbind(-1),
        observed.mean(-1),
    ]
    features = [level, change, observed, forecasts.flatten(2), errors, torch.stack(scalars, dim=-1)]
    return torch.cat(features, dim=-1)[:, int(context.continued) :]


def pair_features(context: Context, token: Tensor, lead: Tensor, candidates: Tensor) -> Tensor:
    """Return the features (B, M, F) of pairs of a token and a lead: the candidates (B, M, K, P), lead and scales."""
    mean, deviation, rate, count = (
        take(x, token).float() for x in (context.mean, context.deviation, context.rate, context.count)
    )
    level = arcsinh((candidates - mean[..., None, None]) / deviation[..., None, None])
    periods = context.periods.steps.gather(1, token.unsqueeze(-1).expand(-1, -1, 3)).float()
    seasons = torch.log((lead.unsqueeze(-1) + 1) * PATCH / periods.clamp_min(1)).clamp(-4, 4) * (periods > 0)
    scalars = [
        torch.log1p(lead.float()) / 2,
        lead / 20,
        torch.log(rate / deviation),
        torch.log1p(count) / 4,
        *seasons.unbind(-1),
        take(context.periods.strength[..., 0], token),
    ]
    return torch.cat([level.flatten(2), torch.stack(scalars, dim=-1)], dim=-1)


def arcsinh(x: Tensor) -> Tensor:
    """Return the inverse hyperbolic sine to an absolute error of 3e-7, for sizes of at most 1e18.

    `torch.asinh` takes eight times as long on a CPU, which was a quarter of a forecast.
    """
    size = x.abs().clamp_max(_SQUARABLE)
    return torch.copysign((size.square() + 1).sqrt_().add_(size).log_(), x)
