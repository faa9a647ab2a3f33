"""The experiment of training the universal forecaster."""

from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import torch
from lightning.pytorch import Trainer

from datamodules.time_series.simulated_series import SimulatedDataModule
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.base import Description, Experiment, Scores
from titans_seq.experiment.run.trainer import train_batches
from titans_seq.experiment.universal.baselines import measure_naive_forecasts
from titans_seq.experiment.universal.plots import plot_universal_forecasts
from titans_seq.models.universal.context import Context
from titans_seq.schema import PATCH, UniversalConfig
from titans_seq.tasks.universal import UniversalTask

_NO_PREDICTION = "predict: is not supported for task.name=universal; forecast a table with `titans-seq forecast`"
_DRAWN, _DRAWN_SHARE = 9, 4  # series in the plot, and the part of each that is forecast: one of four


class UniversalExperiment(Experiment[UniversalTask]):
    """Training of the universal forecaster on simulated series."""

    config: UniversalConfig
    config_class = UniversalConfig
    plot_name = "forecasts"
    columns: Mapping[str, str] = {
        "test/loss": "quantile loss",
        "test/mae": "scaled MAE",
        "test/coverage": "coverage 80 %",
    }

    @cached_property
    def data(self) -> SimulatedDataModule:
        """Simulated series."""
        options = self.config.data
        return SimulatedDataModule(
            options.lengths,
            options.shares,
            batch_size=options.batch_size,
            epoch_batches=train_batches(self.config.trainer),
            held_out_batches=options.held_out_batches,
            seed=self.config.seed,
        )

    def new_task(self) -> tuple[UniversalTask, str]:
        """The task, randomly initialised."""
        return UniversalTask(to_container(self.config)), ""

    def restored_task(self, hyperparameters: Mapping[str, Any]) -> UniversalTask:
        """The checkpoint's task, before its weights are loaded."""
        return UniversalTask(to_container(self.config))

    def check_data(self, task: UniversalTask, source: str) -> None:
        """Accept the simulated series."""

    def describe(self) -> Description:
        """The variant and the simulated series."""
        options = self.config.data
        series = options.batch_size * max(options.lengths)
        lengths = ", ".join(map(str, options.lengths))
        return Description(
            self.config.model.variant.upper(),
            f"simulated series of {lengths} steps, {series:,} steps a batch, "
            f"{self.data.epoch_batches:,} new batches an epoch",
            "Test scores on simulated series",
        )

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the simulated series."""
        return self.data.fingerprint()

    def metadata(self) -> dict[str, Any]:
        """Entries of results.json about the data."""
        return {"data": "simulated series", "simulated": True, "families": list(self.data.families)}

    def baselines(self) -> dict[str, Scores]:
        """Test scores of simple forecasts."""
        limit = self.config.trainer.limit_batches or None
        task = self.config.task
        return measure_naive_forecasts(islice(self.data.test_dataloader(), limit), task.random_leads, task.max_lead)

    def draw(self, task: UniversalTask, path: Path) -> None:
        """Plot forecasts of the last quarter of some series of the test split."""
        lengths = sorted(self.config.data.lengths)
        length = lengths[len(lengths) // 2]
        loader = self.data.test_dataloader()
        plan = next(plan for plan in loader.plan() if plan.length == length)
        batch = loader.batch(plan)
        values, periods = batch.values[:_DRAWN].double(), batch.period[:_DRAWN]
        patches = max(1, length // PATCH // _DRAWN_SHARE)
        start = length - patches * PATCH
        task.eval()
        with torch.no_grad():
            context = Context(values[:, :start].to(task.device), periods.to(task.device))
            forecast = task.model.forecast(context, task.model.encode(context)[0], patches).cpu()
        plot_universal_forecasts(
            path,
            pasts=list(values[:, :start].numpy()),
            futures=list(values[:, start:].numpy()),
            forecasts=list(forecast[..., [0, 4, 8]].numpy()),
            names=[f"period {period}" if period else "no period given" for period in periods.tolist()],
            title="Simulated series of the test split",
        )

    def predict_test(self, task: UniversalTask, trainer: Trainer) -> pl.DataFrame:
        """Raise InputError: the test series are simulated."""
        raise InputError(_NO_PREDICTION)

    def predict_file(self, task: UniversalTask, trainer: Trainer, path: Path) -> pl.DataFrame:
        """Raise InputError: tables are forecast by a command of their own."""
        raise InputError(_NO_PREDICTION)
