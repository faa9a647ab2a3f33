"""Calibration on the validation windows of a task, and the coverage of its intervals on the test windows."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.config import load_config, to_container
from titans_seq.experiment.forecasting.conformal.windows import (
    MeasuredCoverage,
    calibrate_on_validation,
    forecast_windows,
    measure_coverage,
)
from titans_seq.tasks import ForecastingTask

SMALL = ["data.context_length=16", "data.horizon=4", "model.patch_length=8", "model.stride=8", "model.dim=4"]


class Noise:
    """Moving-average noise of order 1: one series, or a panel whose series grow wild after the training rows.

    Args:
        sizes: standard deviations of the panel's series after the training rows, where it is 1; empty: one series.
        rows: ends of the splits.
    """

    seasonal_period = 4
    simulated = True

    def __init__(
        self, sizes: Sequence[float] | np.ndarray = (), rows: tuple[int, int, int] = (1000, 5000, 9000)
    ) -> None:
        self.sizes, self.rows = np.array(sizes), SplitBoundaries(*rows)

    def prepare(self) -> None: ...

    def load(self) -> Series | list[Series]:
        stamps = np.datetime64("2020-01-01T00", "h") + np.arange(self.rows.test).astype("timedelta64[h]")
        noise = np.random.default_rng(5).normal(size=(max(1, len(self.sizes)), self.rows.test + 1, 2))
        values = noise[:, 1:] + 0.5 * noise[:, :-1]
        if not len(self.sizes):
            return Series("noise", stamps, ["a", "b"], values[0], self.rows)
        values[:, self.rows.train :] *= self.sizes[:, None, None]
        return [Series(f"s{i}", stamps, ["a"], each[:, :1], self.rows) for i, each in enumerate(values)]


def untrained(head: str, source: Noise, batch_size: int = 500) -> tuple[ForecastingDataModule, ForecastingTask]:
    config = load_config([], [*SMALL, f"model.head={head}", "model.num_layers=1", "model.memory.num_heads=1"])
    data = ForecastingDataModule(source, context_length=16, horizon=4, batch_size=batch_size)
    data.setup()
    return data, ForecastingTask(to_container(config), len(data.encoder.channels))


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_coverage_on_the_test_windows_of_a_task(head: str) -> None:
    data, task = untrained(head, Noise())
    found = calibrate_on_validation(data, task, [0.8, 0.95])
    assert found.windows == 2000
    measured = measure_coverage(data, task, found)
    assert measured.all == pytest.approx([0.8, 0.95], abs=0.02)
    assert measured.series == 2


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_intervals_hold_in_every_tenth_of_a_panel_that_grows_wild(head: str) -> None:
    data, task = untrained(head, Noise(np.logspace(0, 2.5, 100), (100, 300, 600)))
    found = calibrate_on_validation(data, task, [0.8, 0.95])
    index = np.arange(len(data.windows("test")))
    batch = data.windows("test")[index]
    with torch.inference_mode():
        forecasts, truth = task.predict_step(batch, 0).numpy(), batch.target.numpy()
    series, _ = data.locate_windows("test", index)
    lower, upper = found.for_windows([f"s{i}" for i in series]).intervals(forecasts)
    held = ((lower <= truth) & (truth <= upper)).reshape(2, 10, -1).mean(axis=2)  # by tenth
    np.testing.assert_allclose(held.T, np.broadcast_to([0.8, 0.95], (10, 2)), atol=0.03)
    measured = measure_coverage(data, task, found)
    assert measured.all == pytest.approx(held.mean(axis=1), abs=0.01)
    assert measured.series == 100
    assert all(w < a for w, a in zip(measured.worst, measured.all, strict=True))


def test_every_series_of_a_large_panel_is_calibrated() -> None:
    data, task = untrained("point", Noise(np.ones(150), (40, 100, 160)))
    series = np.concatenate(
        [data.locate_windows("validation", index)[0] for index, *_ in forecast_windows(data, task, "validation")]
    )
    assert (np.bincount(series, minlength=150) == 57).all()  # of 60 rows
    assert len(calibrate_on_validation(data, task, [0.8]).series) == 150
    # The first batch holds windows of the first nine series.
    assert len(calibrate_on_validation(data, task, [0.8], limit_batches=1).series) == 9


def test_coverage_in_words() -> None:
    both = "79.0 % (nominal 80 %), 96.0 % (nominal 95 %)"
    assert MeasuredCoverage([0.8, 0.95], [0.79, 0.96], [0.5, 0.625], 1).text() == both
    text = MeasuredCoverage([0.8, 0.95], [0.79, 0.96], [0.5, 0.625], 1200).text()
    assert text == f"{both}; in the worst tenth of 1,200 series: 50.0 %, 62.5 %"
