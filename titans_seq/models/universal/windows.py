"""Adapter of the universal forecaster to windows of multivariate series, for fine-tuning.

Shapes: B windows, L context steps, H horizon steps, C channels, K known covariates, P steps of a patch, Q quantiles, D
features of a token.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.batch import CovariateInputs
from titans_seq.models.universal.context import Context
from titans_seq.models.universal.forecaster import LEVELS, UniversalForecaster
from titans_seq.nn.covariates import KnownFuture
from titans_seq.schema import PATCH

_MEDIAN = LEVELS.index(0.5)


class WindowForecaster(nn.Module):
    """Quantile forecasts of windows by a `UniversalForecaster`; every channel is a series of its own.

    Known covariates of a future step add a term to all quantiles of that step (`KnownFuture`), in units of the
    context's standard deviation. It is zero at initialisation, so that fine-tuning starts at the zero-shot forecast.

    Args:
        forecaster: with pre-trained weights.
        horizon: H.
        season: seasonal period of the data in steps; 1 or less: none.
        max_lead: patches that are forecast from the context; for later ones the medians are fed back as input.
        num_known: K.
    """

    def __init__(
        self, forecaster: UniversalForecaster, *, horizon: int, season: int, max_lead: int, num_known: int = 0
    ) -> None:
        super().__init__()
        self.forecaster = forecaster
        self.horizon, self.max_lead = horizon, max_lead
        self.season = season if season > 1 else 0
        self.known = KnownFuture(num_known, forecaster.from_token.in_features, 1) if num_known else None
        if self.known is not None:
            self.known.zero_initialise()

    @property
    def backbone(self) -> nn.Module:
        """The forecaster's backbone."""
        return self.forecaster.backbone

    def forward(self, context: Tensor, covariates: CovariateInputs | None = None) -> Tensor:
        """Return the medians (B, H, C) of context (B, L, C), in the same units."""
        return self.quantiles(context, covariates)[..., _MEDIAN]

    def quantiles(self, context: Tensor, covariates: CovariateInputs | None = None) -> Tensor:
        """Return ascending quantiles (B, H, C, Q) of context (B, L, C), in the same units."""
        batch, length, channels = context.shape
        series = context.transpose(1, 2).reshape(batch * channels, length).double()
        series = F.pad(series, (-length % PATCH, 0), value=torch.nan)
        nominal = torch.full((len(series),), self.season, device=series.device)
        blocks: list[Tensor] = []
        effect: Tensor | None = None
        for begin in range(0, self.horizon, self.max_lead * PATCH):
            steps = min(self.horizon - begin, self.max_lead * PATCH)
            view = Context(series, nominal)
            encoded, _ = self.forecaster.encode(view)
            if begin == 0 and self.known is not None:
                effect = self._effect(view, encoded, covariates, length)
            block = self.forecaster.forecast(view, encoded, -(-steps // PATCH))[:, :steps]
            if effect is not None:
                block = block + effect[:, begin : begin + steps]
            blocks.append(block)
            series = torch.cat([series, block[..., _MEDIAN].detach()], dim=1)
        forecast = torch.cat(blocks, dim=1).to(context.dtype)
        return forecast.view(batch, channels, self.horizon, -1).transpose(1, 2)

    def _effect(self, view: Context, encoded: Tensor, covariates: CovariateInputs | None, length: int) -> Tensor:
        """Return the term of the known covariates, (B C, H, 1), in the context's own units."""
        assert self.known is not None
        assert covariates is not None, "built with known covariates"
        effect: Tensor = self.known(encoded[:, -1], covariates.known[:, length:]).flatten(0, 1)  # (B C, H)
        deviation = view.deviation[:, -1:] * torch.where(view.unit > 0, view.unit, 1.0).unsqueeze(1)
        return (deviation * effect.double()).unsqueeze(-1)
