"""LightningModules: loss, metrics and optimiser around a plain model."""

from titans_seq.tasks.forecasting import ForecastingTask

__all__ = ["ForecastingTask"]
