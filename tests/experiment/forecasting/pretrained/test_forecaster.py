"""The pre-trained forecaster: arrays, data frames, streams and the commands without a run."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

import titans_seq
from tests.helpers import refusal, run_cli
from titans_seq.errors import InputError
from titans_seq.experiment import PretrainedForecaster, load_forecaster
from titans_seq.experiment.forecasting.pretrained.forecaster import FALLBACK, MODEL

START = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def forecaster() -> PretrainedForecaster:
    return load_forecaster()


def daily(rows: int, seed: int = 0) -> NDArray[np.float64]:
    """A week's pattern with noise, around 100."""
    rng = np.random.default_rng(seed)
    return np.asarray(100 + 20 * np.sin(2 * np.pi * np.arange(rows) / 7) + rng.normal(0, 2, rows))


def days(rows: int) -> list[datetime]:
    return [START + timedelta(days=i) for i in range(rows)]


def long_table(lengths: dict[str, int]) -> pl.DataFrame:
    parts = [
        pl.DataFrame({"date": days(rows), "store": [name] * rows, "sales": daily(rows, index)})
        for index, (name, rows) in enumerate(lengths.items())
    ]
    return pl.concat(parts)


def test_a_weekly_pattern_is_forecast_far_better_than_by_its_last_value(forecaster: PretrainedForecaster) -> None:
    series = daily(228)
    quantiles = forecaster.predict_arrays([series[:200]], 28, [7])
    error = np.abs(quantiles[0, :, 4] - series[200:]).mean()
    assert error < 0.3 * np.abs(series[199] - series[200:]).mean()
    inside = (quantiles[0, :, 0] <= series[200:]) & (series[200:] <= quantiles[0, :, 8])
    assert 0.5 < inside.mean() <= 1


def test_quantiles_ascend_and_follow_shift_and_scale(forecaster: PretrainedForecaster) -> None:
    series = daily(150)
    quantiles = forecaster.predict_arrays([series], 40, [7])
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    moved = forecaster.predict_arrays([1e6 * series + 1e7], 40, [7])
    np.testing.assert_allclose((moved - 1e7) / 1e6, quantiles, rtol=1e-4)


def test_series_of_any_length_are_forecast_as_if_alone(forecaster: PretrainedForecaster) -> None:
    lengths = (16, 17, 40, 200, 2048, 5000, 33, 16)
    series = [daily(length, seed) for seed, length in enumerate(lengths)]
    periods = [7, 0, 7, 7, 0, 7, 7, 0]
    together = forecaster.predict_arrays(series, 20, periods)
    for row, period, expected in zip(series, periods, together, strict=True):
        np.testing.assert_allclose(forecaster.predict_arrays([row], 20, [period])[0], expected, rtol=1e-4)
    assert np.isfinite(together).all()


def test_only_the_last_rows_of_a_long_series_are_read(forecaster: PretrainedForecaster) -> None:
    series = daily(4000)
    changed = series.copy()
    changed[: 4000 - forecaster.context_length] = 1e6
    both = forecaster.predict_arrays([series, changed], 10, [7, 7])
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)


def test_a_long_horizon_begins_like_a_short_one_and_widens(forecaster: PretrainedForecaster) -> None:
    short, long = (forecaster.predict_arrays([daily(300)], horizon, [7])[0] for horizon in (720, 1000))
    np.testing.assert_allclose(long[:720], short, rtol=1e-6)
    assert np.isfinite(long).all()
    width = long[:, 8] - long[:, 0]
    assert width[720:].min() >= (1 - 1e-6) * width[719]


def test_missing_constant_short_and_empty_series_harm_no_other(forecaster: PretrainedForecaster) -> None:
    good, gaps = daily(100), daily(100)
    gaps[20:30] = np.nan
    gaps[-3:] = np.nan
    series = [good, gaps, np.full(50, 3.0), daily(15), np.full(30, np.nan), np.array([])]
    quantiles = forecaster.predict_arrays(series, 10, [7] * 6)
    np.testing.assert_allclose(quantiles[0], forecaster.predict_arrays([good], 10, [7])[0], rtol=1e-4)
    assert np.isfinite(quantiles[:3]).all()
    np.testing.assert_allclose(quantiles[2], 3.0, rtol=1e-6)
    assert (quantiles[3, :, 4] == series[3][-1]).all()
    assert np.isnan(quantiles[3, :, 0]).all()
    assert np.isnan(quantiles[4:]).all()


def test_a_series_that_ended_long_ago_repeats_its_last_value(forecaster: PretrainedForecaster) -> None:
    ended = np.concatenate([daily(100), np.full(forecaster.context_length, np.nan)])
    quantiles = forecaster.predict_arrays([ended, daily(60)], 5, [7, 7])
    assert (quantiles[0, :, 4] == ended[99]).all()
    assert np.isnan(quantiles[0, :, 0]).all()
    assert np.isfinite(quantiles[1]).all()


def test_a_series_that_was_never_negative_gets_no_negative_forecast(forecaster: PretrainedForecaster) -> None:
    demand = np.random.default_rng(0).poisson(0.4, 200).astype(float)
    assert forecaster.predict_arrays([demand], 30).min() >= 0
    assert forecaster.predict_arrays([demand - 1], 30).min() < 0


def test_an_absurd_value_is_read_as_missing(forecaster: PretrainedForecaster) -> None:
    series, wrong = daily(150), daily(150)
    series[70], wrong[70] = np.nan, 1e12
    both = forecaster.predict_arrays([series, wrong], 10, [7, 7])
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)
    rare = np.zeros(100)
    rare[::33] = 1e9  # most values are equal: no measure of what is usual
    assert np.isfinite(forecaster.predict_arrays([rare], 10)).all()


@pytest.mark.parametrize(
    ("contexts", "horizon", "periods"),
    [
        ([np.zeros((20, 2))], 5, [0]),
        ([np.array([1.0, np.inf] * 10)], 5, [0]),
        ([daily(20)], 0, [0]),
        ([daily(20)], 5, []),
        ([daily(20)], 5, [-7]),
    ],
)
def test_invalid_arrays_are_refused(
    forecaster: PretrainedForecaster, contexts: Sequence[NDArray[np.float64]], horizon: int, periods: Sequence[int]
) -> None:
    with pytest.raises(InputError, match="expected"):
        forecaster.predict_arrays(contexts, horizon, periods)


def test_a_wide_frame_gives_a_row_for_each_step_and_channel(forecaster: PretrainedForecaster) -> None:
    frame = pl.DataFrame({"day": days(120), "a": daily(120), "b": 5 * daily(120, 1), "note": ["text"] * 120})
    table = forecaster.predict(frame, 14)
    assert table["channel"].unique().sort().to_list() == ["a", "b"]
    assert table["timestamp"].unique().sort().to_list() == [START + timedelta(days=120 + i) for i in range(14)]
    expected = forecaster.predict_arrays([frame["a"].to_numpy()], 14, [7])[0]
    part = table.filter(channel="a")
    np.testing.assert_allclose(part["forecast"].to_numpy(), expected[:, 4], rtol=1e-4)
    np.testing.assert_allclose(part.select("lower_80", "upper_80").to_numpy(), expected[:, [0, 8]], rtol=1e-4)


def test_a_long_frame_with_gaps_keeps_every_series(forecaster: PretrainedForecaster) -> None:
    frame = long_table({"north": 100, "south": 60, "new": 5})
    frame = frame.filter(~((pl.col("store") == "north") & pl.col("date").is_between(days(50)[40], days(50)[44])))
    frame = frame.with_columns(pl.when(pl.col("sales") > 118).then(None).otherwise(pl.col("sales")).alias("sales"))
    table = forecaster.predict(frame, 7)
    assert table["series"].unique().sort().to_list() == ["new", "north", "south"]
    models = dict(table.select("series", "model").unique().iter_rows())
    assert models == {"north": MODEL, "south": MODEL, "new": FALLBACK}
    assert table.filter(series="new")["q0.1"].is_null().all()
    assert table["forecast"].is_not_null().all()
    last = dict(table.group_by("series").agg(pl.col("origin").first()).iter_rows())
    assert last["south"] == days(60)[-1]


def test_a_frame_that_leaves_a_choice_is_refused(forecaster: PretrainedForecaster) -> None:
    with pytest.raises(InputError, match="no column of timestamps"):
        forecaster.predict(pl.DataFrame({"a": [1.0] * 20}), 5)
    with pytest.raises(InputError, match="no column of numbers"):
        forecaster.predict(pl.DataFrame({"day": days(20), "note": ["x"] * 20}), 5)
    with pytest.raises(InputError, match="polars or pandas"):
        forecaster.predict([1.0, 2.0], 5)


@pytest.mark.parametrize("pieces", [[200], [1] * 40 + [160], [7, 100, 5, 88]])
def test_a_stream_forecasts_what_arrays_do_at_every_patch(
    forecaster: PretrainedForecaster, tmp_path: Path, pieces: Sequence[int]
) -> None:
    series = np.stack([daily(200), -daily(200, 1)])
    series[0, 50:60] = np.nan
    stream, done = forecaster.stream(2, period=7), 0
    for rows in pieces:
        found = stream.append(series[:, done : done + rows], 20)
        finished = (done + rows) // 16
        assert (found is None) == (finished == done // 16)
        done += rows
        assert stream.rows == done
        if found is not None:
            expected = forecaster.predict_arrays(list(series[:, : 16 * finished]), 20, [7, 7])
            np.testing.assert_allclose(found, expected, rtol=2e-4)
        stream.save(tmp_path / "state.safetensors")
        stream = forecaster.load_stream(tmp_path / "state.safetensors")


def test_a_stream_of_ten_thousand_rows_has_a_state_of_the_same_size(
    forecaster: PretrainedForecaster, tmp_path: Path
) -> None:
    stream, sizes = forecaster.stream(period=7), []
    for part in np.split(daily(10_000), 5):
        stream.append(part, 5)
        stream.save(tmp_path / "state.safetensors")
        sizes.append((tmp_path / "state.safetensors").stat().st_size)
    assert max(sizes) - min(sizes) < 1000  # rows of an unfinished patch


def test_files_that_are_no_state_are_refused(forecaster: PretrainedForecaster, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no state")
    with pytest.raises(InputError, match="not the state of a stream"):
        forecaster.load_stream(tmp_path / "text")
    with pytest.raises(InputError, match="not the state of a stream"):
        forecaster.load_stream(tmp_path / "absent")


def test_the_package_loads_the_forecaster() -> None:
    assert isinstance(titans_seq.load_forecaster(), PretrainedForecaster)
    with pytest.raises(InputError):
        titans_seq.load_forecaster("absent")


def test_forecast_without_a_run_needs_a_table_and_a_horizon(forecaster: PretrainedForecaster, tmp_path: Path) -> None:
    frame = long_table({"north": 100, "south": 60, "new": 5})
    frame.write_csv(tmp_path / "sales.csv")
    command = ["forecast", "--data", "sales.csv", "--horizon", "7", "--out", "f.csv", "--plot", "f.png"]
    answer = run_cli(*command, cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert "Note: new, sales: fewer than 16 values" in answer.out
    assert (tmp_path / "f.png").stat().st_size > 10_000
    written = pl.read_csv(tmp_path / "f.csv", try_parse_dates=True)
    expected = forecaster.predict(frame, 7)
    assert written["series"].equals(expected["series"])
    np.testing.assert_allclose(written["forecast"].to_numpy(), expected["forecast"].to_numpy(), rtol=1e-6)


def test_backtest_without_a_run_scores_beside_the_seasonal_naive_forecast(tmp_path: Path) -> None:
    long_table({"north": 200, "south": 180, "new": 30}).write_csv(tmp_path / "sales.csv")
    answer = run_cli("backtest", "--data", "sales.csv", "--horizon", "7", "--windows", "5", cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert "Note: new: too few rows for the windows" in answer.out
    table = pl.read_csv(tmp_path / "backtest.csv")
    assert table["channel"].to_list() == ["sales", "sales", "all", "seasonal naive"]
    scores = dict(zip(table["channel"], table["mase"], strict=True))
    assert scores["all"] < scores["seasonal naive"]
    assert 0.4 < table["interval_80"][2] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a trained run, or a table"),
        (["--data", "sales.csv"], "--horizon: the number of steps"),
        (["--data", "sales.csv", "--horizon", "0"], "--horizon 0: must be at least 1"),
        (["--data", "absent.csv", "--horizon", "3"], "no such file"),
        (["model.dim=8", "--data", "sales.csv", "--horizon", "3"], "model.dim: has no effect without a trained run"),
        (["--data", "sales.csv", "--horizon", "3", "--future", "sales.csv"], "uses no covariates"),
    ],
)
def test_forecast_without_a_run_refuses_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    long_table({"north": 40, "south": 40}).write_csv(tmp_path / "sales.csv")
    assert message in refusal(run_cli("forecast", *arguments, cwd=tmp_path))


def test_the_shipped_weights_are_small_and_finite() -> None:
    forecaster = load_forecaster()
    assert all(torch.isfinite(x).all() for x in forecaster.model.parameters())
    folder = Path(titans_seq.__file__).parent / "weights" / "universal"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000


def test_the_shipped_configuration_names_no_folder_of_a_machine() -> None:
    folder = Path(titans_seq.__file__).parent / "weights" / "universal"
    config = json.loads((folder / "config.json").read_text())["hyperparameters"]["config"]
    assert config["run"]["dir"] is None
    assert config["data"]["root"] is None
