"""Lightning task of a forecaster on z-scored windows: training, metrics and prediction."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection

from titans_seq.backbone import build_backbone
from titans_seq.batch import CovariateBatch, CovariateInputs, ForecastBatch
from titans_seq.config import from_container
from titans_seq.models.baselines import DLinear, LastValue, SeasonalNaive
from titans_seq.models.forecaster import CovariateSizes, Forecaster
from titans_seq.models.linear import LinearForecaster
from titans_seq.models.universal.forecaster import build_universal_forecaster
from titans_seq.models.universal.windows import WindowForecaster
from titans_seq.schema import ForecastingConfig, UniversalConfig
from titans_seq.tasks.base import Task
from titans_seq.tasks.batches import WindowShapes, forecast_batch
from titans_seq.tasks.quantiles import CRPS, Coverage, central_pairs, pinball

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


def forecast_metrics(prefix: str) -> MetricCollection:
    """MSE and MAE averaged over windows, horizon and channels, as `<prefix>/mse` and `<prefix>/mae`."""
    return MetricCollection({"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}, prefix=f"{prefix}/")


def quantile_metrics(prefix: str, levels: list[float]) -> MetricCollection:
    """`<prefix>/crps`, and `<prefix>/coverage_80` etc. for every central interval of `levels`."""
    coverages = {f"coverage_{100 * nominal:g}": Coverage(*pair) for nominal, pair in central_pairs(levels).items()}
    metrics: dict[str, Metric | MetricCollection] = {"crps": CRPS(levels), **coverages}
    return MetricCollection(metrics, prefix=f"{prefix}/", compute_groups=False)


class Universal(NamedTuple):
    """Pre-trained universal forecaster that a task fine-tunes; plain containers, saved in checkpoints."""

    config: dict[str, Any]  # of its training
    season: int  # seasonal period of the fine-tuning data in steps


def build_model(
    config: ForecastingConfig, num_channels: int, covariates: CovariateSizes, universal: Universal | None = None
) -> nn.Module:
    """Build the configured forecaster, or the configured baseline, which does not use covariates."""
    length, horizon = config.data.context_length, config.data.horizon
    if config.model.pretrained is not None:
        if universal is None:
            raise ValueError("model.pretrained: requires `universal`, the configuration of the pre-trained forecaster")
        return build_window_forecaster(universal, horizon, covariates)
    match config.model.baseline:
        case "none":
            forecaster = build_forecaster(config, num_channels, covariates)
            if config.model.linear_path == "frozen" and forecaster.linear_path is not None:
                forecaster.linear_path.requires_grad_(False)
            return forecaster
        case "last_value":
            return LastValue(horizon)
        case "seasonal_naive":
            return SeasonalNaive(horizon)
        case "linear":
            maps = num_channels if config.model.linear_maps == "channels" else 1
            return LinearForecaster(length, horizon, maps).requires_grad_(False)  # solved in closed form, not trained
        case "dlinear":
            return DLinear(length, horizon)


def build_window_forecaster(universal: Universal, horizon: int, covariates: CovariateSizes) -> WindowForecaster:
    """Build the pre-trained forecaster's model for windows, without its weights."""
    if covariates.past or covariates.categories or covariates.numbers:
        raise ValueError(f"model.pretrained takes known covariates only; got {covariates}")
    pretrained = from_container(universal.config, source="checkpoint")
    assert isinstance(pretrained, UniversalConfig)
    return WindowForecaster(
        build_universal_forecaster(pretrained.model),
        horizon=horizon,
        season=universal.season,
        max_lead=pretrained.task.max_lead,
        num_known=covariates.known,
    )


def build_forecaster(
    config: ForecastingConfig,
    num_channels: int,
    covariates: CovariateSizes = CovariateSizes(),  # noqa: B008 - immutable
) -> Forecaster:
    """Build the configured forecaster at initialisation."""
    model, data = config.model, config.data
    return Forecaster(
        build_backbone(model),
        dim=model.dim,
        num_channels=num_channels,
        context_length=data.context_length,
        horizon=data.horizon,
        patch_length=model.patch_length,
        stride=model.stride,
        channel_mixing=model.channel_mixing,
        head_dropout=model.head_dropout,
        linear_path=model.linear_path != "none",
        linear_maps=model.linear_maps,
        centre=model.centre,
        covariates=covariates,
        quantiles=config.task.quantiles if model.head == "quantile" else (),
        category_dropout=model.category_dropout,
    )


class ForecastingTask(Task):
    """A forecaster or a baseline, with its loss, metrics (MSE and MAE on z-scores) and optimiser.

    Checkpoints are selected by `val/mse`, or by `val/mae` if MAE is the loss. With quantiles the loss is their mean
    pinball loss, the selection is by `val/crps`, and MSE and MAE are those of the median.

    Args:
        config: see `Task`.
        num_channels: C, the series' variables.
        covariates: fields of `CovariateSizes`; None for no covariates.
        layout: the `FeatureEncoder` of the training data as plain containers, saved in checkpoints to encode new data.
        universal: fields of `Universal`, required with model.pretrained; the weights are loaded by the caller.
    """

    config: ForecastingConfig
    model: nn.Module

    def __init__(
        self,
        config: dict[str, Any],
        num_channels: int,
        covariates: dict[str, Any] | None = None,
        layout: dict[str, Any] | None = None,
        universal: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(config)
        self.save_hyperparameters()
        assert isinstance(self.config, ForecastingConfig)
        self.num_channels = num_channels
        pretrained = Universal(**universal) if universal else None
        self.model = build_model(self.config, num_channels, CovariateSizes(**covariates or {}), pretrained)
        self.loss = _LOSSES[self.config.task.loss]
        self.val_metrics = forecast_metrics("val")
        self.test_metrics = forecast_metrics("test")
        self.has_quantiles = self.config.model.head == "quantile"
        point = "val/mae" if self.config.task.loss == "mae" else "val/mse"
        self.monitor = "val/crps" if self.has_quantiles else point
        if self.has_quantiles:
            levels = self.quantile_levels
            self.register_buffer("levels", torch.tensor(levels), persistent=False)
            self.val_quantiles = quantile_metrics("val", levels)
            self.test_quantiles = quantile_metrics("test", levels)

    @property
    def quantile_levels(self) -> list[float]:
        """The levels of `quantiles`; empty for a point forecast."""
        return list(self.config.task.quantiles) if self.has_quantiles else []

    @property
    def point(self) -> int:
        """The index of the point forecast (median) among `quantiles`."""
        return self.quantile_levels.index(0.5) if self.has_quantiles else 0

    def forward(self, context: Tensor, covariates: CovariateInputs | None = None) -> Tensor:
        """Return the forecast (B, H, C) of context (B, L, C), both z-scored."""
        takes_covariates = isinstance(self.model, Forecaster | WindowForecaster)
        forecast: Tensor = self.model(context, covariates) if takes_covariates else self.model(context)
        return forecast

    def quantiles(self, context: Tensor, covariates: CovariateInputs | None = None) -> Tensor:
        """Return the quantiles (B, H, C, Q) of context (B, L, C), or the point forecast (B, H, C, 1) without them."""
        if self.has_quantiles:
            assert isinstance(
                self.model, Forecaster | WindowForecaster
            )  # ensured by the validation of the configuration
            return self.model.quantiles(context, covariates)
        return self(context, covariates).unsqueeze(-1)  # type: ignore[no-any-return]

    def as_batch(self, batch: Any, *, with_targets: bool = True) -> ForecastBatch | CovariateBatch:
        """Return a batch of windows; also accepts context, target and, if known, start and covariates."""
        data, task = self.config.data, type(self).__name__
        shapes = WindowShapes(data.context_length, data.horizon, self.num_channels)
        return forecast_batch(batch, task, shapes, cast(torch.dtype, self.dtype), with_targets=with_targets)

    def training_step(self, batch: ForecastBatch | CovariateBatch, batch_idx: int) -> Tensor:
        """Return the training loss of a batch."""
        forecast = self.quantiles(batch.context, _covariates(batch))
        if self.has_quantiles:
            loss = pinball(forecast, batch.target, self.levels).mean()  # type: ignore[arg-type]
        else:
            loss = self.loss(forecast.squeeze(-1), batch.target)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.context))
        return loss

    def validation_step(self, batch: ForecastBatch | CovariateBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._measure("val", batch)

    def test_step(self, batch: ForecastBatch | CovariateBatch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        self._measure("test", batch)

    def predict_step(self, batch: ForecastBatch | CovariateBatch, batch_idx: int) -> Tensor:
        """Return the z-scored quantiles of a batch, not below its floor; see `quantiles`."""
        # Not in training, where a forecast on the floor would have no gradient.
        forecast = self.quantiles(batch.context, _covariates(batch))
        return forecast if batch.floor is None else torch.maximum(forecast, batch.floor.unsqueeze(-1))

    def _measure(self, split: str, batch: ForecastBatch | CovariateBatch) -> None:
        forecast = self.predict_step(batch, 0)
        metrics = self.val_metrics if split == "val" else self.test_metrics
        metrics.update(forecast[..., self.point].contiguous(), batch.target.contiguous())
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.context))
        if self.has_quantiles:
            scores = self.val_quantiles if split == "val" else self.test_quantiles
            scores.update(forecast, batch.target)
            self.log_dict(scores, on_step=False, on_epoch=True, batch_size=len(batch.context))


def _covariates(batch: ForecastBatch | CovariateBatch) -> CovariateInputs | None:
    return batch.covariates if isinstance(batch, CovariateBatch) else None
