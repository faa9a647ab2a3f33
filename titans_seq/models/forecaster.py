"""Patch-based forecaster: normalise, embed patches, apply a backbone, map all tokens to the horizon."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from titans_seq.batch import CovariateInputs
from titans_seq.models.linear import LinearForecaster
from titans_seq.nn.covariates import KnownFuture, StaticEmbedding
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.embedding import PatchEmbedding
from titans_seq.nn.heads import QuantileSpread
from titans_seq.nn.norm import Centre, InstanceStatistics, ReversibleInstanceNorm


class CovariateSizes(NamedTuple):
    """Widths of `CovariateInputs`."""

    past: int = 0  # P
    known: int = 0  # K
    categories: Sequence[int] = ()  # number of codes of each
    numbers: int = 0  # N
    unknown: bool = False  # whether the last code of each category stands for values that were not in training


class _Decoded(NamedTuple):
    """Normalised forecast of a window, with the statistics that restore its units."""

    tokens: Tensor  # (B, D) with channels mixed, else (B C, D)
    forecast: Tensor  # (B, C, H), normalised
    statistics: InstanceStatistics
    linear: Tensor | None  # (B, H, C), forecast of the linear path


class Forecaster(nn.Module):
    """Patches, a sequence backbone and a flatten head (the architecture of PatchTST, Nie et al., ICLR 2023).

    Past covariates, and the past of the known ones, are additional features of every patch. The known covariates of a
    future step contribute to that step's forecast (`KnownFuture`); static covariates are added to every token.

    Args:
        backbone: from (B, T, dim) to (B, T, dim) and a state.
        dim: D, features of a token.
        num_channels: C, the series' variables.
        context_length: L, input steps.
        horizon: H, forecast steps.
        patch_length, stride: see `PatchEmbedding`.
        channel_mixing: False forecasts every channel from its own past with shared weights; True puts all channels of
            a patch into one token.
        head_dropout: on the head's input.
        linear_path: add the forecast of a `LinearForecaster`, so that the backbone learns the residual.
        linear_maps: one map shared by all channels, or one per channel.
        centre: see `ReversibleInstanceNorm`.
        covariates: widths of the covariates of every window.
        quantiles: levels for `quantiles`, see `QuantileSpread`; the forecast is then the median.
        category_dropout: see `StaticEmbedding`; without effect if the categories have no code for unknown values.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        num_channels: int,
        context_length: int,
        horizon: int,
        patch_length: int = 16,
        stride: int = 8,
        channel_mixing: bool = False,
        head_dropout: float = 0.0,
        linear_path: bool = False,
        linear_maps: Literal["shared", "channels"] = "shared",
        centre: Centre = "mean",
        covariates: CovariateSizes = CovariateSizes(),  # noqa: B008 - immutable
        quantiles: Sequence[float] = (),
        category_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features = num_channels if channel_mixing else 1
        self.channel_mixing = channel_mixing
        self.context_length = context_length
        self.norm = ReversibleInstanceNorm(num_channels, centre)
        self.embed = PatchEmbedding(features + covariates.past + covariates.known, dim, patch_length, stride)
        self.backbone = backbone
        self.dropout = Dropout(head_dropout)
        width = self.embed.num_patches(context_length) * dim
        self.head = nn.Linear(width, features * horizon)
        maps = num_channels if linear_maps == "channels" else 1
        self.linear_path = LinearForecaster(context_length, horizon, maps) if linear_path else None
        self.known = KnownFuture(covariates.known, width, features) if covariates.known else None
        has_static = bool(covariates.categories or covariates.numbers)
        dropped = category_dropout if covariates.unknown else 0.0
        static = StaticEmbedding(covariates.categories, covariates.numbers, dim, dropped) if has_static else None
        self.static = static
        self.spread = QuantileSpread(width, features, horizon, quantiles) if quantiles else None
        self._takes_covariates = self.embed.project.in_features > features * patch_length or has_static

    def forward(self, context: Tensor, covariates: CovariateInputs | None = None) -> Tensor:
        """Return the forecast (B, H, C) of context (B, L, C), in the same units."""
        decoded = self._decode(context, covariates)
        return self._restore(decoded.forecast, decoded)

    def quantiles(self, context: Tensor, covariates: CovariateInputs | None = None) -> Tensor:
        """Return ascending quantiles (B, H, C, Q) of context (B, L, C), in the same units."""
        assert self.spread is not None, "built without quantiles"
        decoded = self._decode(context, covariates)
        levels = self.spread(decoded.tokens, decoded.forecast).unbind(-1)
        return torch.stack([self._restore(level, decoded) for level in levels], dim=-1)

    def start_from(self, linear: LinearForecaster) -> None:
        """Copy `linear` to the linear path and zero the head, so that training starts at exactly that forecast."""
        assert self.linear_path is not None, "built without a linear path"
        self.linear_path.load_state_dict(linear.state_dict())
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if self.known is not None:
            self.known.zero_initialise()

    def _decode(self, context: Tensor, covariates: CovariateInputs | None) -> _Decoded:
        assert self._takes_covariates == (covariates is not None), (
            "covariates must be given if and only if the model was built with them"
        )
        x, statistics = self.norm.normalise(context)
        series = x.transpose(1, 2)  # (B, C, L)
        copies = 1
        if not self.channel_mixing:
            copies = series.shape[1]
            series = series.reshape(-1, 1, series.shape[2])  # (B C, 1, L)
        if covariates is not None:
            features = torch.cat([covariates.past, covariates.known[:, : self.context_length]], dim=2).transpose(1, 2)
            series = torch.cat([series, features.repeat_interleave(copies, dim=0)], dim=1)
        embedded = self.embed(series)
        if self.static is not None and covariates is not None:
            static = self.static(covariates.categories, covariates.numbers)
            embedded = embedded + static.repeat_interleave(copies, dim=0).unsqueeze(1)
        tokens, _ = self.backbone(embedded)
        flat = self.dropout(tokens.flatten(1))
        y = self.head(flat).view(context.shape[0], context.shape[2], -1)  # (B, C, H)
        if self.known is not None and covariates is not None:
            y = y + self.known(flat, covariates.known[:, self.context_length :])
        linear = None if self.linear_path is None else self.linear_path(context)
        return _Decoded(flat, y, statistics, linear)

    def _restore(self, y: Tensor, decoded: _Decoded) -> Tensor:
        """Map normalised (B, C, H) to the units of the context, (B, H, C); monotonic, so quantiles stay in order."""
        forecast = self.norm.restore(y.transpose(1, 2), decoded.statistics)
        if decoded.linear is not None:
            forecast = forecast - decoded.statistics.centre + decoded.linear
        return forecast
