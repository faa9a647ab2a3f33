"""The linear baseline of a panel is solved over the training windows of all its series."""

import numpy as np
import pytest

from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.experiment.forecasting.baselines import best_linear, measure_baselines

LENGTH, HORIZON = 6, 2


class Panel:
    """A source of two series of different lengths and levels."""

    seasonal_period = 3
    simulated = True

    def prepare(self) -> None: ...

    def load(self) -> list[Series]:
        panel = []
        for name, rows, level in (("a", 90, 0.0), ("b", 70, 1000.0)):
            values = np.random.default_rng(rows).normal(level, 1 + level / 100, size=(rows, 1)).cumsum(axis=0)
            stamps = np.datetime64("2020-01-01T00", "us") + np.arange(rows) * np.timedelta64(1, "h")
            panel.append(Series(name, stamps, ["y"], values, SplitBoundaries(rows // 2, rows * 3 // 4, rows)))
        return panel


def windows(split: str) -> np.ndarray:
    """All windows of a split (n, L + H), z-scored, minus their last context value."""
    found = []
    for series in Panel().load():
        y, (train, validation, test) = series.values[:, 0], series.boundaries
        z = (y - y[:train].mean()) / y[:train].std()
        spans = {"train": (0, train), "validation": (train - LENGTH, validation), "test": (validation - LENGTH, test)}
        first, end = spans[split]
        rows = range(first, end - LENGTH - HORIZON + 1)
        found += [z[row : row + LENGTH + HORIZON] - z[row + LENGTH - 1] for row in rows]
    return np.array(found)


def test_linear_map_of_a_panel() -> None:
    data = ForecastingDataModule(Panel(), context_length=LENGTH, horizon=HORIZON)
    data.setup()
    train, validation, test = (windows(split) for split in ("train", "validation", "test"))
    x, y = train[:, :LENGTH], train[:, LENGTH:]
    design = np.column_stack([x, np.ones(len(x))])
    scale = np.square(design).sum(0)[:LENGTH].mean()
    candidates = []
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0):
        ridge = np.diag([penalty * scale] * LENGTH + [0.0])
        found = np.linalg.lstsq(design.T @ design + ridge, design.T @ y, rcond=None)[0]
        held = np.column_stack([validation[:, :LENGTH], np.ones(len(validation))]) @ found - validation[:, LENGTH:]
        candidates.append((np.square(held).mean(), found))
    best = min(candidates, key=lambda pair: pair[0])[1]

    linear = best_linear(data, "shared")
    np.testing.assert_allclose(linear.weight.detach().numpy(), best[:LENGTH], atol=1e-4)
    np.testing.assert_allclose(linear.bias.detach().numpy(), best[LENGTH], atol=1e-4)
    scores = measure_baselines(data, linear, len(test))
    error = np.column_stack([test[:, :LENGTH], np.ones(len(test))]) @ best - test[:, LENGTH:]
    assert scores["linear (least squares)"]["test/mse"] == pytest.approx(np.square(error).mean(), rel=1e-3)
    assert scores["last value"]["test/mse"] == pytest.approx(np.square(test[:, LENGTH:]).mean(), rel=1e-4)


def test_linear_map_is_cached_for_the_same_rows_and_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from titans_seq.experiment.forecasting import baselines

    def data(length: int, source: Panel) -> ForecastingDataModule:
        module = ForecastingDataModule(source, context_length=length, horizon=HORIZON)
        module.setup()
        return module

    class Other(Panel):
        """A panel with one changed training value."""

        def load(self) -> list[Series]:
            panel = super().load()
            panel[1].values[3, 0] += 1
            return panel

    monkeypatch.setattr(baselines, "_CACHE", {})
    first = best_linear(data(LENGTH, Panel()), "shared")
    assert best_linear(data(LENGTH, Panel()), "shared") is first
    others = [
        best_linear(data(LENGTH, Other()), "shared"),
        best_linear(data(LENGTH + 1, Panel()), "shared"),
        best_linear(data(LENGTH, Panel()), "channels"),
        best_linear(data(LENGTH, Panel()), "shared", "mae"),
    ]
    assert all(other is not first for other in others)
    assert len(baselines._CACHE) == 4  # at most four entries are kept; the first one was the oldest
