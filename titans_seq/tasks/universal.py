"""Lightning task of the universal forecaster: quantile loss at every token of simulated series.

Shapes: B series, M pairs of a token and a lead, P steps of a patch, Q quantiles.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from titans_seq.batch import SeriesBatch
from titans_seq.models.universal.context import Context, take
from titans_seq.models.universal.forecaster import LEVELS, Quantiles, UniversalForecaster, build_universal_forecaster
from titans_seq.schema import PATCH, UniversalConfig
from titans_seq.tasks.base import Task
from titans_seq.tasks.batches import series_batch
from titans_seq.tasks.quantiles import pinball

_LINEAR = 4.0  # errors beyond it, in units of the scale, count by their logarithm: spikes do not dominate the loss
_MIN_OBSERVED = 8  # observed steps up to a token's end that its forecasts need to be trained and scored
_LOW, _MEDIAN, _HIGH = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))


class Pairs(NamedTuple):
    """Forecasts to score: tokens, leads in patches, and the true values."""

    token: Tensor  # (B, M)
    lead: Tensor  # (B, M)
    target: Tensor  # (B, M, P), in the context's units
    scored: Tensor  # (B, M, P) bool: observed, with enough steps before


def forecast_pairs(context: Context, random_leads: int, max_lead: int, seed: int | None = None) -> Pairs:
    """Return the next patch of every token but the last, and `random_leads` later ones of each.

    Leads are log-uniform from 0 to max_lead - 1 or to the series' end, drawn from `seed`, or from torch's global
    generator if it is None.
    """
    batch, tokens = len(context.values), len(context.ends)
    token = torch.arange(tokens - 1).expand(batch, -1)
    largest = (tokens - 2 - token).clamp_max(max_lead - 1)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    leads = [torch.zeros_like(token)]
    for _ in range(random_leads):
        drawn = torch.rand(token.shape, generator=generator)
        leads.append(torch.minimum(((largest + 2.0) ** drawn - 1).long(), largest))
    device = context.values.device
    token, lead = token.repeat(1, len(leads)).to(device), torch.cat(leads, dim=1).to(device)
    steps = (context.ends[token] + lead * PATCH).unsqueeze(-1) + torch.arange(PATCH, device=device)
    scored = take(context.observed, steps) & (take(context.count, token) >= _MIN_OBSERVED).unsqueeze(-1)
    return Pairs(token, lead, take(context.values, steps), scored)


class UniversalTask(Task):
    """A `UniversalForecaster` with its loss, metrics and optimiser.

    Values and quantiles are scaled and then compressed (`compress`), a monotone function, which quantiles follow. The
    loss is the pinball loss, averaged over nine quantiles. Metrics, for the splits val and test, are `<split>/loss`,
    `mae` (absolute error of the median) and `coverage` (of the central 80 % interval).

    Args:
        config: see `Task`.
    """

    config: UniversalConfig
    model: UniversalForecaster
    levels: Tensor
    monitor = "val/loss"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.save_hyperparameters()
        assert isinstance(self.config, UniversalConfig)
        self.model = build_universal_forecaster(self.config.model)
        self.register_buffer("levels", torch.tensor(LEVELS), persistent=False)
        self.loss_metric, self.mae, self.coverage = MeanMetric(), MeanMetric(), MeanMetric()

    def forward(self, batch: SeriesBatch, seed: int | None = None) -> tuple[Pairs, Quantiles]:
        """Return the pairs to score and their forecasts."""
        context = Context(batch.values.double(), batch.period)
        encoded, _ = self.model.encode(context)
        pairs = forecast_pairs(context, self.config.task.random_leads, self.config.task.max_lead, seed)
        forecast: Quantiles = self.model.decode(context, encoded, pairs.token, pairs.lead)
        return pairs, forecast

    def as_batch(self, batch: Any, *, with_targets: bool = True) -> SeriesBatch:
        """Return a `SeriesBatch`; also accepts values and, if known, period."""
        return series_batch(batch, type(self).__name__, cast(torch.dtype, self.dtype))

    def training_step(self, batch: SeriesBatch, batch_idx: int) -> Tensor:
        """Return the training loss of a batch."""
        pairs, forecast = self(batch)
        losses = self._losses(pairs, forecast)
        loss: Tensor = (losses * pairs.scored).sum() / pairs.scored.sum().clamp_min(1)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.values))
        return loss

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._measure(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_metrics("val")

    def test_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        self._measure(batch, batch_idx)

    def predict_step(self, batch: SeriesBatch, batch_idx: int) -> tuple[Pairs, Quantiles]:
        """Return pairs of a batch, whose leads are the same at every call, and their forecasts."""
        pairs, forecast = self(batch, batch_idx)
        return pairs, forecast

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def _losses(self, pairs: Pairs, forecast: Quantiles) -> Tensor:
        """Return the loss of every step, (B, M, P)."""
        target = (pairs.target - forecast.centre.unsqueeze(-1)) / forecast.scale.unsqueeze(-1)
        losses = pinball(compress(forecast.quantiles), compress(target), self.levels)
        return 2 * losses.mean(-1)

    def _measure(self, batch: SeriesBatch, seed: int) -> None:
        pairs, forecast = self(batch, seed)
        count = int(pairs.scored.sum())
        if not count:
            return
        target = ((pairs.target - forecast.centre.unsqueeze(-1)) / forecast.scale.unsqueeze(-1))[pairs.scored]
        quantiles = forecast.quantiles[pairs.scored]
        inside = (quantiles[:, _LOW] <= target) & (target <= quantiles[:, _HIGH])
        self.loss_metric.update(self._losses(pairs, forecast)[pairs.scored].mean(), count)
        self.mae.update((compress(target) - compress(quantiles[:, _MEDIAN])).abs().mean(), count)
        self.coverage.update(inside.float().mean(), count)

    def _log_metrics(self, split: str) -> None:
        for name, metric in (("loss", self.loss_metric), ("mae", self.mae), ("coverage", self.coverage)):
            self.log(f"{split}/{name}", metric.compute(), prog_bar=name == "loss")
            metric.reset()


def compress(x: Tensor) -> Tensor:
    """Return x where it is small, and about its logarithm beyond some units."""
    return _LINEAR * torch.asinh(x / _LINEAR)
