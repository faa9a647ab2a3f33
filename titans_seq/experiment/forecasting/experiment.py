"""The forecasting task as an `Experiment`."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.table import Table
from datamodules.time_series.datasets.weather import Weather
from titans_seq.batch import CovariateBatch
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.base import Description, Experiment, Report, Scores
from titans_seq.experiment.forecasting.baselines import best_linear, measure_baselines
from titans_seq.experiment.forecasting.calibration import calibrate_on_validation, measure_coverage
from titans_seq.experiment.forecasting.conformal import save_calibration
from titans_seq.experiment.forecasting.data import build_series_source
from titans_seq.experiment.forecasting.plots import plot_forecasts
from titans_seq.experiment.forecasting.tables import forecast_table
from titans_seq.models.baselines import SeasonalNaive
from titans_seq.models.forecaster import Forecaster
from titans_seq.models.linear import LinearForecaster
from titans_seq.schema import Config, ForecastingConfig
from titans_seq.tasks import ForecastingTask
from titans_seq.tasks.quantiles import central_pairs

_WINDOWS, _CHANNELS, _HISTORY_SEASONS = 3, 3, 7  # size of the plot


class ForecastingExperiment(Experiment[ForecastingTask]):
    """Forecasts of the next steps of z-scored windows of a series."""

    config: ForecastingConfig
    config_class = ForecastingConfig
    plot_name = "forecast"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        config = self.config
        self.columns = {"test/mse": "MSE", "test/mae": "MAE"}
        if config.model.head == "quantile":
            coverages = [f"{100 * coverage:g}" for coverage in central_pairs(config.task.quantiles)]
            self.columns |= {"test/crps": "CRPS", **{f"test/coverage_{c}": f"coverage {c} %" for c in coverages}}

    @cached_property
    def data(self) -> ForecastingDataModule:
        """The data module: series read, windows of every split checked."""
        options = self.config.data
        data = ForecastingDataModule(
            build_series_source(options),
            context_length=options.context_length,
            horizon=options.horizon,
            batch_size=options.batch_size,
            seed=self.config.seed,
            calendar=options.calendar,
        )
        data.prepare_data()
        data.setup()
        for split in ("train", "validation", "test"):
            data.windows(split)
        return data

    @cached_property
    def _linear(self) -> LinearForecaster:
        return best_linear(self.data, self.config.model.linear_maps, self.config.model.linear_loss)

    def new_task(self) -> tuple[ForecastingTask, str]:
        """The task, initialised with the linear forecast if so configured."""
        layout = self.data.encoder
        task = ForecastingTask(to_container(self.config), len(layout.channels), layout.sizes(), layout.to_container())
        model = task.model
        if isinstance(model, SeasonalNaive):
            model.season.fill_(self.data.source.seasonal_period)
        elif isinstance(model, LinearForecaster):
            model.load_state_dict(self._linear.state_dict())
        elif isinstance(model, Forecaster) and self.config.model.linear_path in ("solved", "frozen"):
            model.start_from(self._linear)
        return task, ""

    def restored_task(self, hyperparameters: Mapping[str, Any]) -> ForecastingTask:
        """The checkpoint's task, before its weights are loaded."""
        container, channels = to_container(self.config), hyperparameters["num_channels"]
        return ForecastingTask(container, channels, hyperparameters.get("covariates"), hyperparameters.get("layout"))

    def check_data(self, task: ForecastingTask, source: str) -> None:
        """Raise InputError for another number of channels or other covariates."""
        trained, layout = task.hparams["num_channels"], self.data.encoder
        if len(layout.channels) != trained:
            raise InputError(f"{source}: trained on {trained} channels; {self._name()} has {len(layout.channels)}")
        found = layout.to_container()
        kept = task.hparams.get("layout") or {}
        for key in ("past", "known", "calendar", "categories", "numbers"):
            if key in kept and kept[key] != found[key]:
                there, here = (listed(map(str, side[key])) or "nothing" for side in (kept, found))
                raise InputError(f"{source}: trained with {key} {there}; {self._name()} has {here}, or other values")

    def describe(self) -> Description:
        """The model or the baseline that replaces it, the series, and the steps."""
        options, model = self.config.data, self.config.model
        simulated = " (simulated data, made by this program)" if self.data.source.simulated else ""
        members = len(self.data.scaled_series)
        panel = f", {members:,} series" if members > 1 else ""
        data = f"{self._name()}{simulated}{panel}: {options.context_length} steps to {options.horizon}"
        on = "simulated data" if self.data.source.simulated else self._name()
        which = "the first" if self.config.trainer.limit_batches else "all"
        windows = f"{which} {self._test_windows()} windows, horizon {options.horizon}"
        name = model.variant.upper() if model.baseline == "none" else model.baseline
        return Description(name, data, f"Test error on {on}, z-scored, {windows}")

    def notes(self) -> tuple[str, ...]:
        """Messages from reading the data."""
        source = self.data.source
        return tuple(source.notes) if isinstance(source, Table | Weather) else ()

    def _name(self) -> str:
        """Name of the dataset; the series of a panel have their own names."""
        return self.data.source.path.stem if isinstance(self.data.source, Table) else self.data.series.name

    def fingerprint(self) -> dict[str, Any]:
        """Hashes of the data and their splits."""
        return self.data.fingerprint()

    def metadata(self) -> dict[str, Any]:
        """Entries of results.json about the data."""
        return {
            "data": self._name(),
            "simulated": self.data.source.simulated,
            "context_length": self.config.data.context_length,
            "horizon": self.config.data.horizon,
            "test_windows": self._test_windows(),
        }

    def baselines(self) -> dict[str, Scores]:
        """Test scores of naive and linear forecasts."""
        return measure_baselines(self.data, self._linear, self._test_windows(), self.config.model.linear_loss)

    def _test_windows(self) -> int:
        """Number of windows in the test metrics: all, or fewer with trainer.limit_batches."""
        windows, limit = len(self.data.windows("test")), self.config.trainer.limit_batches
        return min(windows, limit * self.config.data.batch_size) if limit else windows

    @torch.inference_mode()
    def draw(self, task: ForecastingTask, path: Path) -> None:
        """Plot a few evenly spaced test windows, of the last channels (OT or oil among them), in the source's units."""
        data, starts = self.data, self._plotted_windows
        batch = data.windows("test")[starts]
        task.eval()
        covariates = batch.covariates if isinstance(batch, CovariateBatch) else None
        forecast = task(*move_data_to_device((batch.context, covariates), task.device)).cpu()

        steps = min(data.context_length, _HISTORY_SEASONS * data.source.seasonal_period)
        keep = slice(-_CHANNELS, None)
        members, rows = data.locate_windows("test", starts)
        scalers = [data.scaled_series[m].scaler for m in members]
        history, truth, future = (
            np.stack([scaler.inverse(x) for scaler, x in zip(scalers, z.double().numpy(), strict=True)])
            for z in (batch.context[:, -steps:], batch.target, forecast)
        )
        source = "simulated data" if data.source.simulated else "test windows"
        if len(data.scaled_series) > 1:
            source += f" of {listed(data.scaled_series[m].series.name for m in members)}"
        plot_forecasts(
            path,
            timestamps=[
                data.scaled_series[m].series.timestamps[row - steps : row + data.horizon]
                for m, row in zip(members, rows, strict=True)
            ],
            history=history[..., keep],
            truth=truth[..., keep],
            forecast=future[..., keep],
            channels=data.series.channels[keep],
            title=f"{self._name()}, horizon {data.horizon} ({source})",
        )

    @torch.inference_mode()
    def tables(self, task: ForecastingTask) -> dict[str, pl.DataFrame]:
        """Forecasts of the plotted windows, of all channels; columns as in `predict_test`."""
        batch = move_data_to_device(self.data.windows("test")[self._plotted_windows], task.device)
        task.eval()
        z_scores = task.predict_step(batch, 0).cpu().double().numpy()
        return {"predictions": self._table(task, self._plotted_windows, z_scores)}

    @property
    def _plotted_windows(self) -> NDArray[np.int64]:
        """Indices of the plotted test windows, evenly spaced."""
        return np.linspace(0, len(self.data.windows("test")) - 1, _WINDOWS + 2).astype(np.int64)[1:-1]

    def predict_test(self, task: ForecastingTask, trainer: Trainer) -> pl.DataFrame:
        """Forecasts of consecutive, non-overlapping horizons of the test split, in the source's units.

        The table has one row per step and channel: `timestamp`, `channel`, `origin` (the last timestamp of the
        context), `step` (1 to horizon), `forecast`, `truth`, quantiles if the model has them (`q0.1`, ...), and
        `series` for a panel. Steps after the last whole horizon are left out.
        """
        data, windows = self.data, self.data.windows("test")
        members, _ = data.locate_windows("test", np.arange(len(windows)))
        within = np.concatenate([np.arange(count) for count in np.bincount(members)])
        starts = np.flatnonzero(within % data.horizon == 0)
        parts = np.array_split(starts, -(-len(starts) // data.batch_size))
        loader = (windows[part] for part in parts)  # Lightning takes a list for several loaders
        batches = trainer.predict(task, dataloaders=loader)
        assert batches is not None
        z_scores = torch.cat([torch.as_tensor(b) for b in batches]).cpu().double().numpy()
        return self._table(task, starts[: len(z_scores)], z_scores)  # fewer with trainer.limit_batches

    def _table(self, task: ForecastingTask, starts: NDArray[np.int64], z_scores: NDArray[np.float64]) -> pl.DataFrame:
        """Table of z-scored forecasts (W, H, C, Q or 1) of the test windows `starts` (W,); see `predict_test`."""
        members, rows = self.data.locate_windows("test", starts)
        tables = []
        for number in np.unique(members):
            of_member = members == number
            member, first = self.data.scaled_series[number], rows[of_member]
            values = np.moveaxis(member.scaler.inverse(np.moveaxis(z_scores[of_member], -1, 0)), 0, -1)
            table = forecast_table(member.series, first, values, task.quantile_levels)
            if self.config.data.id is not None:
                table.insert_column(0, pl.Series("series", [member.series.name] * len(table)))
            tables.append(table)
        return pl.concat(tables)

    def finish(self, task: ForecastingTask, folder: Path, checkpoint: Path) -> Report:
        """Calibrate conformal intervals on validation, write them to the run's folder, and measure them on test."""
        coverages, messages = self.config.task.intervals, []
        if not coverages:
            return Report({})
        batches = self.config.trainer.limit_batches
        calibration = calibrate_on_validation(self.data, task, coverages, batches)
        save_calibration(calibration, folder, checkpoint)
        for coverage in coverages[len(calibration.coverages) :]:
            few = f"{calibration.windows} validation windows are too few for an interval of {100 * coverage:g} %"
            messages.append(f"{few}; lower task.intervals")
        covered = measure_coverage(self.data, task, calibration, batches)
        if covered:
            text = ", ".join(f"{100 * share:.1f} % (nominal {100 * nominal:g} %)" for nominal, share in covered.items())
            messages.append(f"Coverage of the conformal intervals on the test split: {text}")
        results = {f"test/interval_{100 * nominal:g}": share for nominal, share in covered.items()}
        return Report(results, tuple(messages))
