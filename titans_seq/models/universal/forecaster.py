"""The universal forecaster: tokens of patches, a causal backbone, and a head for any lead.

Shapes: B series, L steps, T tokens, D features of a token, M pairs of a token and a lead, P steps of a patch, Q
quantiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.backbone import build_backbone
from titans_seq.models.universal.candidates import NUM_CANDIDATES, candidate_forecasts
from titans_seq.models.universal.context import Context, take
from titans_seq.models.universal.features import PAIR_FEATURES, TOKEN_FEATURES, pair_features, token_features
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import PATCH, UniversalModelOptions

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MEDIAN = LEVELS.index(0.5)
_QUANTILES = len(LEVELS)
_SMALL = 0.1  # scale of the last layer at initialisation: training starts near an average of the candidates
_NARROW = -1.0  # added to the gaps between quantiles before softplus


class Quantiles(NamedTuple):
    """Quantile forecasts of pairs of a token and a lead; a value is centre + scale * quantile, in a context's units."""

    quantiles: Tensor  # (B, M, P, Q), ascending over Q
    centre: Tensor  # (B, M)
    scale: Tensor  # (B, M)


class UniversalForecaster(nn.Module):
    """Forecasts any series from its own past, in quantiles, at every patch and every lead.

    A token describes a patch, causally scaled, and how well simple forecasts predicted it. The backbone's output at a
    token, together with the simple forecasts for a later patch (`candidate_forecasts`), gives that patch's quantiles:
    the median is a weighted mean of the candidates plus a correction, the other quantiles follow by positive gaps.

    Args:
        backbone: from tokens (B, T, D), a state to (B, T, D), a state (`titans_seq.backbone.Stack`).
        dim: D.
        hidden: width of the hidden layers before and after the backbone.
    """

    def __init__(self, backbone: nn.Module, *, dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(TOKEN_FEATURES, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.backbone = backbone
        self.norm = RMSNorm(dim)
        self.from_token = nn.Linear(dim, hidden)
        self.from_pair = nn.Linear(PAIR_FEATURES, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, PATCH * (_QUANTILES + NUM_CANDIDATES))
        with torch.no_grad():
            self.out.weight.mul_(_SMALL)
            self.out.bias.zero_()

    def encode(self, context: Context, state: Sequence[object] | None = None) -> tuple[Tensor, Sequence[object]]:
        """Return the backbone's normalised output (B, T, D) at every token, and its state."""
        dtype = self.norm.weight.dtype  # autocast computes in another, in which residuals would lose digits
        read, state = self.backbone(self.embed(token_features(context).to(dtype)).to(dtype), state)
        return self.norm(read.to(dtype)), state

    def decode(self, context: Context, encoded: Tensor, token: Tensor, lead: Tensor) -> Quantiles:
        """Forecast the patches that begin `lead` (B, M) patches after the ends of `token` (B, M).

        `encoded` (B, T, D) is `encode`'s; in a continued context token 0 has none and T counts the others.
        """
        candidates = candidate_forecasts(context, token, lead)
        at = (token - int(context.continued)).unsqueeze(-1)
        if at.shape[1] < encoded.shape[1]:  # whichever is less work
            read = self.from_token(encoded.gather(1, at.expand(-1, -1, encoded.shape[2])))
        else:
            read = self.from_token(encoded).gather(1, at.expand(-1, -1, self.from_token.out_features))
        x = F.gelu(read + self.from_pair(pair_features(context, token, lead, candidates).to(encoded.dtype)))
        x = x + F.gelu(self.hidden(x))
        out = torch.unflatten(self.out(x).to(encoded.dtype), -1, (PATCH, -1))
        gaps, weights = out.split([_QUANTILES, NUM_CANDIDATES], dim=-1)
        centre, scale = take(context.mean, token).float(), context.scale(token)
        relative = (candidates - centre[..., None, None]) / scale[..., None, None]
        median = (torch.softmax(weights, dim=-1) * relative.transpose(-1, -2)).sum(-1, keepdim=True)
        median = median + gaps[..., _MEDIAN : _MEDIAN + 1]
        widths = F.softplus(gaps + _NARROW)
        above = widths[..., _MEDIAN + 1 :].cumsum(-1)
        below = widths[..., :_MEDIAN].flip(-1).cumsum(-1).flip(-1)
        return Quantiles(torch.cat([median - below, median, median + above], dim=-1), centre, scale)

    def forecast(self, context: Context, encoded: Tensor, patches: int) -> Tensor:
        """Forecast the next patches after the last token, (B, patches * P, Q), in the series' own units."""
        batch = len(context.values)
        context.detect_last()
        lead = torch.arange(patches, device=encoded.device).expand(batch, -1)
        token = torch.full_like(lead, len(context.ends) - 1)
        quantiles, centre, scale = self.decode(context, encoded, token, lead)
        return context.restore(centre[..., None, None] + scale[..., None, None] * quantiles).flatten(1, 2)


def build_universal_forecaster(options: UniversalModelOptions) -> UniversalForecaster:
    """Build the configured forecaster at initialisation."""
    return UniversalForecaster(build_backbone(options), dim=options.dim, hidden=options.hidden)
