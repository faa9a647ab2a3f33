"""Training and measuring a forecaster on z-scored windows."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from titans_seq.backbone import build_backbone
from titans_seq.batch import ForecastBatch
from titans_seq.models.forecaster import Forecaster
from titans_seq.schema import ForecastConfig
from titans_seq.tasks.base import Task

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


def forecast_metrics(prefix: str) -> MetricCollection:
    """MSE and MAE over windows x horizon x channels, as `<prefix>/mse` and `<prefix>/mae`."""
    return MetricCollection({"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}, prefix=f"{prefix}/")


def build_forecaster(config: ForecastConfig, num_channels: int) -> Forecaster:
    """The model that a configuration describes, freshly initialised."""
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
        centre=model.centre,
    )


class ForecastingTask(Task):
    """A `Forecaster` with its loss, metrics (MSE and MAE on z-scores) and optimiser.

    Args:
        config: see `Task`.
        num_channels: C, the series' variables.
    """

    config: ForecastConfig
    model: Forecaster
    monitor = "val/mse"

    def __init__(self, config: dict[str, Any], num_channels: int) -> None:
        super().__init__(config)
        self.save_hyperparameters(logger=False)
        assert isinstance(self.config, ForecastConfig)
        self.model = build_forecaster(self.config, num_channels)
        self.loss = _LOSSES[self.config.task.loss]
        self.val_metrics = forecast_metrics("val")
        self.test_metrics = forecast_metrics("test")

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to the forecast (B, H, C), both z-scored."""
        forecast: Tensor = self.model(context)
        return forecast

    def training_step(self, batch: ForecastBatch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(self(batch.context), batch.target)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.start))
        return loss

    def validation_step(self, batch: ForecastBatch, batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self._measure(self.val_metrics, batch)

    def test_step(self, batch: ForecastBatch, batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self._measure(self.test_metrics, batch)

    def predict_step(self, batch: ForecastBatch, batch_idx: int) -> Tensor:
        """The forecast of a batch, z-scored."""
        forecast: Tensor = self(batch.context)
        return forecast

    def _measure(self, metrics: MetricCollection, batch: ForecastBatch) -> None:
        metrics.update(self(batch.context).contiguous(), batch.target.contiguous())
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.start))
