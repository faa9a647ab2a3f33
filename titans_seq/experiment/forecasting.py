"""The recipe of a forecasting run."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from datamodules.ett import ETT
from datamodules.forecasting import ForecastingDataModule
from datamodules.series import SeriesSource
from datamodules.synthetic import Synthetic
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.forecast_baselines import best_linear, measure_baselines
from titans_seq.experiment.recipe import Recipe, Scores
from titans_seq.models.baselines import LinearForecaster
from titans_seq.plots import plot_forecasts
from titans_seq.schema import Config, ForecastConfig, ForecastDataOptions
from titans_seq.tasks import ForecastingTask

_WINDOWS, _CHANNELS, _HISTORY_SEASONS = 3, 3, 7  # what the picture shows


def build_source(options: ForecastDataOptions) -> SeriesSource:
    """Where the series comes from."""
    return Synthetic() if options.name == "synthetic" else ETT(options.name, options.root)


class ForecastRecipe(Recipe[ForecastingTask]):
    """Windows of a series, z-scored, to their next steps."""

    config: ForecastConfig
    columns: ClassVar = {"test/mse": "MSE", "test/mae": "MAE"}
    picture = "forecast"

    def __init__(self, config: Config) -> None:
        assert isinstance(config, ForecastConfig)
        super().__init__(config)

    @cached_property
    def data(self) -> ForecastingDataModule:
        """The windows, read and checked."""
        options = self.config.data
        data = ForecastingDataModule(
            build_source(options),
            context_length=options.context_length,
            horizon=options.horizon,
            batch_size=options.batch_size,
            seed=self.config.seed,
        )
        data.prepare_data()
        data.setup()
        for split in ("train", "validation", "test"):
            data.windows(split)
        return data

    @cached_property
    def _linear(self) -> LinearForecaster:
        return best_linear(self.data)

    def new_task(self) -> ForecastingTask:
        """The task, started at the linear forecast if the configuration says so."""
        task = ForecastingTask(to_container(self.config), num_channels=len(self.data.series.channels))
        if self.config.model.linear_path == "solved":
            task.model.start_from(self._linear)
        return task

    def restored_task(self, hyperparameters: Mapping[str, Any]) -> ForecastingTask:
        """The task as it was, but for the weights."""
        return ForecastingTask(to_container(self.config), hyperparameters["num_channels"])

    def check_data(self, task: ForecastingTask, source: str) -> None:
        """Raise InputError for another number of channels."""
        trained, found = task.hparams["num_channels"], len(self.data.series.channels)
        if found != trained:
            raise InputError(f"{source}: trained on {trained} channels; {self.data.series.name} has {found}")

    def describe(self) -> str:
        """The series and the steps."""
        options = self.config.data
        simulated = " (simulated data, made by this program)" if self.data.source.simulated else ""
        return f"{options.name}{simulated}: {options.context_length} steps to {options.horizon}"

    def fingerprint(self) -> dict[str, Any]:
        """Digests of the data and their splits."""
        return self.data.fingerprint()

    def facts(self) -> dict[str, Any]:
        """What the results say about the series."""
        return {
            "data": self.data.series.name,
            "simulated": self.data.source.simulated,
            "context_length": self.config.data.context_length,
            "horizon": self.config.data.horizon,
            "test_windows": self._test_windows(),
        }

    def baselines(self) -> dict[str, Scores]:
        """Naive and linear forecasts."""
        return measure_baselines(self.data, self._linear, self._test_windows())

    def title(self) -> str:
        """Says on what, and on how much of it."""
        on = "simulated data" if self.data.source.simulated else self.data.series.name
        which = "the first" if self.config.trainer.limit_batches else "all"
        horizon = self.config.data.horizon
        return f"Test error on {on}, z-scored, {which} {self._test_windows()} windows, horizon {horizon}"

    def _test_windows(self) -> int:
        """Windows that the test metrics cover: all there are, unless trainer.limit_batches leaves some out."""
        windows, limit = len(self.data.windows("test")), self.config.trainer.limit_batches
        return min(windows, limit * self.config.data.batch_size) if limit else windows

    def draw(self, task: ForecastingTask, path: Path) -> None:
        """A few test windows, evenly spaced, in the source's units; the last channels, OT or oil among them."""
        data, starts = self.data, self._shown
        batch = data.windows("test")[starts]
        forecast = self._forecast(task)

        shown = min(data.context_length, _HISTORY_SEASONS * data.source.season)
        first_row = data.rows("test")[0] + data.context_length - shown
        keep = slice(-_CHANNELS, None)
        history, truth, future = (
            data.scaler.inverse(x.double().numpy())[..., keep]
            for x in (batch.context[:, -shown:], batch.target, forecast)
        )
        source = "simulated data" if data.source.simulated else "test windows"
        plot_forecasts(
            path,
            timestamps=[data.series.timestamps[first_row + s :][: shown + data.horizon] for s in starts],
            history=history,
            truth=truth,
            forecast=future,
            channels=data.series.channels[keep],
            title=f"{data.series.name}, horizon {data.horizon} ({source})",
        )

    def tables(self, task: ForecastingTask) -> dict[str, pl.DataFrame]:
        """The forecasts that the picture shows, of all channels; see `predict_test`."""
        z_scores = self._forecast(task).double().numpy()
        return {"predictions": _as_table(self.data, self.data.scaler.inverse(z_scores), self._shown)}

    @property
    def _shown(self) -> NDArray[np.int64]:
        """The test windows that are shown, evenly spaced."""
        return np.linspace(0, len(self.data.windows("test")) - 1, _WINDOWS + 2).astype(np.int64)[1:-1]

    @torch.inference_mode()
    def _forecast(self, task: ForecastingTask) -> torch.Tensor:
        """Of the windows that are shown, z-scored, (W, H, C)."""
        batch = self.data.windows("test")[self._shown]
        task.eval()
        forecast: torch.Tensor = task(batch.context.to(task.device)).cpu()
        return forecast

    def predict_test(self, task: ForecastingTask, trainer: Trainer) -> pl.DataFrame:
        """Forecasts of the test split once, horizon after horizon, in the source's units.

        A row per step and channel: `timestamp`, `channel`, `origin` (the last stamp the model saw), `step` (1 to
        horizon), `forecast`, `truth`. Steps after the last whole horizon are left out.
        """
        data, windows = self.data, self.data.windows("test")
        starts = np.arange(0, len(windows), data.horizon)
        parts = np.array_split(starts, -(-len(starts) // data.batch_size))
        loader = (windows[part] for part in parts)  # a list would be taken for several loaders
        batches = trainer.predict(task, dataloaders=loader)
        assert batches is not None
        z_scores = torch.cat([torch.as_tensor(b) for b in batches]).cpu().double().numpy()
        return _as_table(data, data.scaler.inverse(z_scores), starts[: len(z_scores)])  # trainer.limit_batches


def _as_table(data: ForecastingDataModule, forecast: NDArray[np.float64], starts: NDArray[np.int64]) -> pl.DataFrame:
    """Forecasts (W, H, C) of the windows at `starts` beside the truth, in long form."""
    windows, horizon, channels = forecast.shape
    rows = data.rows("test")[0] + data.context_length + starts[:, None] + np.arange(horizon)  # (W, H)
    stamps = data.series.timestamps[rows]
    shape = forecast.shape
    return pl.DataFrame(
        {
            "timestamp": np.broadcast_to(stamps[..., None], shape).ravel(),
            "channel": np.tile(np.array(data.series.channels), windows * horizon),
            "origin": np.broadcast_to(data.series.timestamps[rows[:, :1] - 1][..., None], shape).ravel(),
            "step": np.broadcast_to(np.arange(1, horizon + 1)[:, None], shape).ravel(),
            "forecast": forecast.ravel(),
            "truth": data.series.values[rows].reshape(windows * horizon * channels),
        }
    )
