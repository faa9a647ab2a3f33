"""The forecasting task as an `Experiment`."""

from collections.abc import Mapping, Sequence
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
from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.base import Description, Experiment, Report, Scores
from titans_seq.experiment.forecasting.baselines import best_linear, measure_baselines
from titans_seq.experiment.forecasting.conformal.calibration import Calibration, save_calibration
from titans_seq.experiment.forecasting.conformal.windows import calibrate_on_validation, measure_coverage
from titans_seq.experiment.forecasting.data import build_data_module, build_series_source
from titans_seq.experiment.forecasting.plots import plot_forecasts
from titans_seq.experiment.forecasting.pretrained.weights import fine_tuned
from titans_seq.experiment.forecasting.tables import forecast_table
from titans_seq.models.baselines import SeasonalNaive
from titans_seq.models.forecaster import Forecaster
from titans_seq.models.linear import LinearForecaster
from titans_seq.schema import Config, ForecastingConfig
from titans_seq.tasks import ForecastingTask
from titans_seq.tasks.quantiles import central_pairs

_WINDOWS, _CHANNELS, _HISTORY_SEASONS = 3, 3, 7  # size of the plot
_COMPARED = 256  # test windows on which the model is compared with its linear path, for the plot's title


class ForecastingExperiment(Experiment[ForecastingTask]):
    """Forecasts of the next steps of z-scored windows of a series."""

    config: ForecastingConfig
    config_class = ForecastingConfig
    plot_name = "forecast"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        config = self.config
        self._calibration: Calibration | None = None  # of the finished run, for the plot
        self._layout: Mapping[str, Any] = {}  # of the training data of a restored task
        self._frame: pl.DataFrame | None = None  # the table, where it is not read from a file
        self._selected_on: ForecastingDataModule | None = None  # splits that select the linear map; None: those of data
        self.columns = {"test/mse": "MSE", "test/mae": "MAE"}
        if config.model.head == "quantile":
            coverages = [f"{100 * coverage:g}" for coverage in central_pairs(config.task.quantiles)]
            self.columns |= {"test/crps": "CRPS", **{f"test/coverage_{c}": f"coverage {c} %" for c in coverages}}

    @cached_property
    def data(self) -> ForecastingDataModule:
        """The data module: series read, windows of every split checked."""
        has_code = self.config.model.category_dropout > 0
        data = build_data_module(
            self.config,
            build_series_source(self.config.data, self._frame),
            unknown_categories=self._layout.get("unknown", False) if self._layout else has_code,
            categories=self._layout.get("categories", {}),
        )
        data.prepare_data()
        data.setup()
        for split in ("train", "validation", "test"):
            data.windows(split)
        return data

    def use_frame(self, frame: pl.DataFrame) -> None:
        """Use a data frame as the table, instead of the file of `data.path`."""
        self._frame = frame

    @cached_property
    def _linear(self) -> LinearForecaster:
        model = self.config.model
        return best_linear(self.data, model.linear_maps, model.linear_loss, self._selected_on)

    def on_rows(self, selection: ForecastingDataModule, data: ForecastingDataModule) -> "ForecastingExperiment":
        """The same experiment on the training rows of `data` alone; the splits of `selection` select its linear map."""
        other = ForecastingExperiment(self.config)
        other.data, other._selected_on = data, selection
        return other

    def on_all_rows(self) -> "ForecastingExperiment | None":
        """With `data.refit`, the experiment with all rows as training rows; scales stay those of the training rows."""
        if not self.config.data.refit:
            return None
        lengths = [len(each.series.timestamps) for each in self.data.scaled_series]
        return self.on_rows(self.data, self.data.with_boundaries([SplitBoundaries(n, n, n) for n in lengths]))

    def new_task(self) -> tuple[ForecastingTask, str]:
        """The task, initialised with pre-trained weights or with the linear forecast if so configured."""
        layout = self.data.encoder
        fields = len(layout.channels), layout.sizes(), layout.to_container()
        if self.config.model.pretrained is not None:
            return fine_tuned(self.config, self.config.model.pretrained, *fields)
        task = ForecastingTask(to_container(self.config), *fields)
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
        self._layout = hyperparameters.get("layout") or {}
        container, channels = to_container(self.config), hyperparameters["num_channels"]
        optional = (hyperparameters.get(name) for name in ("covariates", "layout", "universal"))
        return ForecastingTask(container, channels, *optional)

    def check_data(self, task: ForecastingTask, source: str) -> None:
        """Raise InputError for another number of channels or other covariates."""
        trained, layout = task.hparams["num_channels"], self.data.encoder
        if len(layout.channels) != trained:
            raise InputError(f"{source}: trained on {trained} channels; {self._name()} has {len(layout.channels)}")
        found = layout.to_container()
        kept = task.hparams.get("layout") or {}
        for key in ("past", "known", "calendar", "categories", "numbers", "levels"):
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
        if model.pretrained is not None:
            name = "Universal forecaster"
        return Description(name, data, f"Test error on {on}, z-scored, {windows}")

    def notes(self) -> tuple[str, ...]:
        """Messages from reading the data."""
        source = self.data.source
        notes = tuple(source.notes) if isinstance(source, Table | Weather) else ()
        notes += tuple(self.data.notes)
        if len(self.data.encoder.calendar) < len(self.config.data.calendar):
            notes += ("the times are integers: data.calendar has no effect",)
        panel = [each.series for each in self.data.scaled_series]
        notes += tuple(self.data.encoder.unknown_levels_notes(each.covariates.timed() for each in panel))
        if self.config.model.floor is not None:
            notes += _notes_below(self.config.model.floor, panel)
        return notes

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
        """Plot a few evenly spaced test windows, of the last channels (OT or oil among them), in the source's units.

        They show the intervals of `finish`, and the linear path's forecast beside the whole model's.
        """
        data, starts = self.data, self._plotted_windows
        batch = data.windows("test")[starts]
        task.eval()
        z_scores = task.predict_step(move_data_to_device(batch, task.device), 0).float().cpu().numpy()
        steps = min(data.context_length, _HISTORY_SEASONS * data.source.seasonal_period)
        members, rows = data.locate_windows("test", starts)
        drawn = [data.scaled_series[m] for m in members]

        def observed(z: Any) -> NDArray[np.float64]:
            """Values (W, T, channels plotted) in the source's units, of z-scores (W, T, C)."""
            z = np.asarray(z, dtype=np.float64)
            return np.stack([each.scaler.inverse(x) for each, x in zip(drawn, z, strict=True)])[..., -_CHANNELS:]

        def restore(z: Any) -> NDArray[np.float64]:
            """Forecasts, as `observed` does values."""
            z = np.asarray(z, dtype=np.float64)
            return np.stack([each.restore(x) for each, x in zip(drawn, z, strict=True)])[..., -_CHANNELS:]

        bands = {}
        if self._calibration is not None and self._calibration.coverages:
            calibration = self._calibration.for_windows([data.scaled_series[m].series.name for m in members])
            bounds = zip(*calibration.intervals(z_scores), strict=True)
            bands = {
                nominal: (restore(low), restore(high))
                for nominal, (low, high) in zip(calibration.coverages, bounds, strict=True)
            }
        elif task.has_quantiles:
            pairs = central_pairs(task.quantile_levels).items()
            bands = {share: (restore(z_scores[..., low]), restore(z_scores[..., high])) for share, (low, high) in pairs}
        linear = _linear_forecast(task, batch.context)
        source = "simulated data" if data.source.simulated else "test windows"
        names = [data.scaled_series[m].series.name for m in members]
        title = f"{self._name()}, horizon {data.horizon} ({source})"
        if linear is not None:
            title += f"\n{self._gain_over_linear(task)}"
        stamps = [data.scaled_series[m].series.clock() for m in members]
        plot_forecasts(
            path,
            timestamps=[each[row - steps : row + data.horizon] for each, row in zip(stamps, rows, strict=True)],
            history=observed(batch.context[:, -steps:]),
            truth=observed(batch.target),
            forecast=restore(z_scores[..., task.point]),
            linear=None if linear is None else restore(linear.float().cpu()),
            bands=bands,
            channels=data.series.channels[-_CHANNELS:],
            windows=names if len(data.scaled_series) > 1 else (),
            title=title,
        )

    def _gain_over_linear(self, task: ForecastingTask) -> str:
        """How much the rest of the model changes the linear path's error, on evenly spaced test windows, in words."""
        windows, count = self.data.windows("test"), self._test_windows()
        errors = np.zeros(2)
        chosen = np.linspace(0, count - 1, min(count, _COMPARED)).astype(np.int64)
        for part in np.array_split(chosen, -(-len(chosen) // self.data.batch_size)):
            batch = move_data_to_device(windows[part], task.device)
            linear = _linear_forecast(task, batch.context)
            assert linear is not None
            for k, forecast in enumerate((linear, task.predict_step(batch, 0)[..., task.point])):
                errors[k] += float((forecast - batch.target).double().square().sum())
        change = 100 * (errors[1] / errors[0] - 1) if errors[0] else 0.0
        effect = f"{'lowers' if change < 0 else 'raises'} the MSE of its linear path by {abs(change):.1f} %"
        if abs(change) < 0.05:
            effect = "leaves the MSE of its linear path as it is (to 0.1 %)"
        return f"the rest of the model {effect}; z-scores, {len(chosen):,} test windows"

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
            values = np.moveaxis(member.restore(np.moveaxis(z_scores[of_member], -1, 0)), 0, -1)
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
        calibration = self._calibration = calibrate_on_validation(self.data, task, coverages, batches)
        save_calibration(calibration, folder, checkpoint)
        for coverage in coverages[len(calibration.coverages) :]:
            few = f"{calibration.windows} validation windows are too few for an interval of {100 * coverage:g} %"
            messages.append(f"{few}; lower task.intervals")
        if not calibration.coverages:
            return Report({}, tuple(messages))
        covered = measure_coverage(self.data, task, calibration, batches)
        messages.append(f"Coverage of the conformal intervals on the test split: {covered.text()}")
        results: dict[str, float] = {}
        for nominal, share, worst in zip(covered.coverages, covered.all, covered.worst, strict=True):
            results |= {f"test/interval_{100 * nominal:g}": share, f"test/worst_tenth_{100 * nominal:g}": worst}
        return Report(results, tuple(messages))


def _notes_below(floor: float, panel: Sequence[Series]) -> tuple[str, ...]:
    """Return a note if values of the series are below the floor of forecasts."""
    below = [(s.values[s.values < floor], s.name) for s in panel]
    count = sum(len(values) for values, _ in below)
    if not count:
        return ()
    least, name = min((values.min(), name) for values, name in below if len(values))
    return (f"model.floor={floor:g}: {count} values are below it, the least {least:g} in series {name!r}",)


def _linear_forecast(task: ForecastingTask, context: torch.Tensor) -> torch.Tensor | None:
    """Z-scored forecast (W, H, C) of the model's linear path alone; None for a model without one."""
    model = task.model
    if not isinstance(model, Forecaster) or model.linear_path is None:
        return None
    forecast: torch.Tensor = model.linear_path(context.to(task.device))
    return forecast
