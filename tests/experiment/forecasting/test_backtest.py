"""Backtests of a user's table against an independent computation."""

import numpy as np
import polars as pl
import pytest

from tests.experiment.forecasting.sales import HORIZON, QUANTILES, ROWS, Panel, expected_forecast, sales
from tests.helpers import run_cli


def test_backtest_equals_an_independent_computation(panel: Panel) -> None:
    out, windows, step = panel.folder / "b.csv", 4, 5
    common = ["--data", panel.table, "--windows", str(windows), "--step", str(step), "--out", out]
    answer = run_cli("backtest", panel.checkpoint, *common, "trainer.accelerator=cpu")
    assert answer.status == 0, answer.err
    assert answer.err == ""  # no progress bar in a file
    rows = {row["series"] or row["channel"]: row for row in pl.read_csv(out).to_dicts()}
    scores: dict[str, list[float]] = {key: [] for key in ("mase", "smape", "mse", "mae", "wql")}
    naive_mae = []
    for store, count in ROWS.items():
        y = sales().filter(store=store)["sales"].to_numpy()
        origins = [count - HORIZON - i * step for i in reversed(range(windows))]
        truth = np.stack([y[row : row + HORIZON] for row in origins])
        parts = [expected_forecast(panel, store, row) for row in origins]
        quantiles = np.stack([part[0] for part in parts])
        point = quantiles[..., 1]
        error, history = np.abs(truth - point), y[: origins[0]]
        levels, beyond = np.array(QUANTILES), truth[..., None] - quantiles
        loss = np.maximum(levels * beyond, (levels - 1) * beyond)
        wanted = {
            "mase": error.mean() / np.abs(history[7:] - history[:-7]).mean(),
            "smape": (200 * error / (np.abs(truth) + np.abs(point))).mean(),
            "mse": np.square(error).mean(),
            "mae": error.mean(),
            "wql": 2 * loss.sum() / 3 / np.abs(truth).sum(),
        }
        for key, value in wanted.items():
            assert rows[store][key] == pytest.approx(value, rel=1e-4), key
            scores[key].append(value)
        for i, name in enumerate(("interval_80", "interval_95")):
            held = np.mean([(low[i] <= t) & (t <= high[i]) for t, (_, low, high) in zip(truth, parts, strict=True)])
            assert rows[store][name] == pytest.approx(held)
        assert rows[store]["windows"] == windows
        naive_mae.append(np.mean([np.abs(y[r : r + 7] - y[r - 7 : r]).mean() for r in origins]))
    for key, values in scores.items():
        assert rows["all"][key] == pytest.approx(np.mean(values), rel=1e-4), key
    assert rows["seasonal naive"]["mae"] == pytest.approx(np.mean(naive_mae))
    assert rows["all"]["windows"] == windows * len(ROWS)
    assert f"{rows['all']['mase']:.4g}" in answer.out


def test_windows_within_the_training_period_are_reported(panel: Panel) -> None:
    common = ["--data", panel.table, "--windows", "12", "--out", panel.folder / "b.csv", "trainer.accelerator=cpu"]
    # Training ends with store b's row 182; windows begin at rows 116, 123, ... of a, 176 of b, 146 of c.
    assert (
        "windows begin within the training period (until 2022-07-01): their errors are optimistic"
        in run_cli("backtest", panel.checkpoint, *common).out
    )


def test_adaptive_intervals_change_the_coverage_alone(panel: Panel) -> None:
    tables = []
    for option in ([], ["--adaptive"]):
        common = ["--data", panel.table, "--windows", "6", "--out", panel.folder / "b.csv", "trainer.accelerator=cpu"]
        answer = run_cli("backtest", panel.checkpoint, *common, *option)
        assert answer.status == 0, answer.err
        assert "Coverage of the intervals in the worst tenth of 3 series: " in answer.out
        tables.append(pl.read_csv(panel.folder / "b.csv"))
    plain, adaptive = (table.drop("interval_80", "interval_95") for table in tables)
    assert plain.equals(adaptive)
    assert not tables[0].equals(tables[1])
