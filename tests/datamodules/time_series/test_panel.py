"""A panel of series with covariates: its windows, splits, scales and features, against polars and plain Python."""

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from datamodules.common.splitting import SPLITS, Split
from datamodules.time_series.calendar import CALENDAR_FEATURES, calendar_features
from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.encoder import FeatureEncoder
from datamodules.time_series.series import Scaler
from titans_seq import schema
from titans_seq.batch import CovariateBatch, ForecastBatch
from titans_seq.errors import InputError

LENGTH, HORIZON = 8, 3
ROWS = {"a": 60, "b": 75, "c": 44}  # rows of each series
ROLES = ColumnRoles(id="store", target=("sales",), past=("temp",), known=("promo", "price"), static=("kind", "size"))


def table() -> pl.DataFrame:
    """Series a, b and c, each starting a week after the last; a value of sales identifies its series and row."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "date": datetime(2023, 12, 20) + timedelta(days=i + 7 * k),
            "store": name,
            "sales": 1000.0 * (k + 1) + i,
            "temp": float(rng.normal()),
            "promo": int(rng.random() < 0.3),
            "price": float(rng.normal(5 + k)),
            "kind": "big" if name == "b" else "small",
            "size": 10 * (k + 1),
        }
        for k, name in enumerate(ROWS)
        for i in range(ROWS[name])
    ]
    return pl.DataFrame(rows)


def module(path: Path, content: pl.DataFrame, roles: ColumnRoles = ROLES, **options: Any) -> ForecastingDataModule:
    content.write_csv(path)
    source = Table(path, roles, split=SplitPoints(0.6, 0.8))
    data = ForecastingDataModule(source, context_length=LENGTH, horizon=HORIZON, batch_size=16, **options)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def data(tmp_path: Path) -> ForecastingDataModule:
    return module(tmp_path / "t.csv", table(), calendar=["day_of_week", "month_of_year"])


def expected_windows(split: Split) -> Iterator[tuple[str, int]]:
    """Yield (series, row of the first forecast step) of every window by the protocol, series by series."""
    for name, rows in ROWS.items():
        train, validation = round(0.6 * rows), round(0.8 * rows)
        first = {"train": LENGTH, "validation": train, "test": validation}[split]
        last = {"train": train, "validation": validation, "test": rows}[split]
        yield from ((name, row) for row in range(first, last - HORIZON + 1))


@pytest.mark.parametrize("split", SPLITS)
def test_windows_never_cross_series(data: ForecastingDataModule, split: Split) -> None:
    windows = data.windows(split)
    wanted = list(expected_windows(split))
    assert len(windows) == len(wanted)
    index = np.arange(len(windows))
    series_numbers, rows = data.locate_windows(split, index)
    assert [(data.scaled_series[m].series.name, row) for m, row in zip(series_numbers, rows, strict=True)] == wanted
    batch = windows[index]
    content = table()
    for i, (name, row) in enumerate(wanted):
        sales = content.filter(pl.col("store") == name)["sales"].to_numpy()
        train = sales[: round(0.6 * len(sales))]
        scaled = (sales - train.mean()) / train.std()
        np.testing.assert_allclose(batch.context[i, :, 0], scaled[row - LENGTH : row], atol=1e-5)
        np.testing.assert_allclose(batch.target[i, :, 0], scaled[row : row + HORIZON], atol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
def test_covariates_are_aligned_with_their_steps(data: ForecastingDataModule, split: Split) -> None:
    content = table()
    train = pl.concat(part.head(round(0.6 * len(part))) for part in content.partition_by("store"))
    mean, std = ({c: f(train[c].to_numpy()) for c in ("temp", "promo", "price")} for f in (np.mean, np.std))
    sizes = np.array([10.0, 20.0, 30.0])
    batch = data.windows(split)[np.arange(len(data.windows(split)))]
    assert isinstance(batch, CovariateBatch)
    past, known, categories, numbers = batch.covariates
    assert (past.shape[2], known.shape[1:], categories.shape[1], numbers.shape[1]) == (1, (LENGTH + HORIZON, 6), 1, 1)
    for i, (name, row) in enumerate(expected_windows(split)):
        part = content.filter(pl.col("store") == name)
        seen, all_steps = slice(row - LENGTH, row), slice(row - LENGTH, row + HORIZON)
        z = {c: (part[c].to_numpy() - mean[c]) / std[c] for c in mean}
        np.testing.assert_allclose(past[i, :, 0], z["temp"][seen], atol=1e-5)
        np.testing.assert_allclose(known[i, :, 0], z["promo"][all_steps], atol=1e-5)
        np.testing.assert_allclose(known[i, :, 1], z["price"][all_steps], atol=1e-5)
        days = [2 * math.pi * stamp.weekday() / 7 for stamp in part["date"][all_steps]]
        np.testing.assert_allclose(known[i, :, 2], np.sin(days), atol=1e-6)
        np.testing.assert_allclose(known[i, :, 3], np.cos(days), atol=1e-6)
        assert categories[i].item() == ["big", "small"].index(part["kind"][0])
        assert numbers[i].item() == pytest.approx((part["size"][0] - sizes.mean()) / sizes.std())


def test_statistics_use_training_rows_only(tmp_path: Path, data: ForecastingDataModule) -> None:
    content = table().with_row_index().with_columns(pl.int_range(pl.len()).over("store").alias("row"))
    later = pl.col("row") >= (0.6 * pl.len().over("store")).round()
    changed = content.with_columns(
        pl.when(later).then(pl.col(c) * 7 + 100).otherwise(pl.col(c)).alias(c) for c in ("sales", "temp", "price")
    )
    other = module(tmp_path / "u.csv", changed.select(table().columns), calendar=["day_of_week", "month_of_year"])
    assert json.dumps(data.encoder.to_container()) == json.dumps(other.encoder.to_container())
    for ours, theirs in zip(data.train_dataloader(), other.train_dataloader(), strict=True):
        assert torch.equal(ours.context, theirs.context)
        assert torch.equal(ours.target, theirs.target)
    # Changing a training row does change the statistics, so the comparison above can fail.
    touched = content.with_columns(pl.when(pl.col("row") == 3).then(0.0).otherwise(pl.col("sales")).alias("sales"))
    third = module(tmp_path / "v.csv", touched.select(table().columns))
    assert data.encoder.scalers["a"].mean != third.encoder.scalers["a"].mean


def test_a_panel_without_covariates_gives_plain_batches(tmp_path: Path) -> None:
    data = module(tmp_path / "t.csv", table().select("date", "store", "sales"), ColumnRoles(id="store"))
    batches = list(data.train_dataloader())
    assert all(isinstance(batch, ForecastBatch) for batch in batches)
    assert sum(len(batch.start) for batch in batches) == len(list(expected_windows("train")))
    starts = torch.cat([batch.start for batch in batches])
    assert len(starts.unique()) == len(starts)


def test_feature_encoder_is_restored_from_plain_containers(data: ForecastingDataModule) -> None:
    container = json.loads(json.dumps(data.encoder.to_container()))
    again = FeatureEncoder.from_container(container)
    assert again.to_container() == data.encoder.to_container()
    series = data.scaled_series[1].series
    np.testing.assert_array_equal(again.encode(series, again.scalers["b"]), data.scaled_series[1].scaled)
    assert (again.interval, again.season, again.trained_until) == ("1d", 7, "2024-02-09T00:00:00.000000")
    unseen = series._replace(covariates=series.covariates._replace(static={"kind": "tiny", "size": "1"}))
    line = "series 'b': unknown value 'tiny' of static column kind; expected one of the training data: big, small"
    with pytest.raises(InputError, match=line):
        again.static(unseen)
    unseen = series._replace(covariates=series.covariates._replace(static={"kind": "big", "size": "x"}))
    assert again.static(unseen)[1].tolist() == [0]  # the mean
    assert again.unreadable_numbers(unseen) == ["size=x"]


def test_calendar_features_equal_python_datetime() -> None:
    times = [datetime(2024, 2, 29, 23, 45), datetime(2023, 12, 31), datetime(2024, 1, 1, 6, 30, 30)]
    days_in_month = [29, 31, 31]
    fractions = {
        "minute_of_hour": [(t.minute + t.second / 60) / 60 for t in times],
        "hour_of_day": [(t.hour + t.minute / 60) / 24 for t in times],
        "day_of_week": [t.weekday() / 7 for t in times],
        "day_of_month": [(t.day - 1) / n for t, n in zip(times, days_in_month, strict=True)],
        "day_of_year": [(t.timetuple().tm_yday - 1) / 366 for t in times],
        "month_of_year": [(t.month - 1) / 12 for t in times],
    }
    assert tuple(fractions) == tuple(CALENDAR_FEATURES) == schema.CALENDAR
    for unit in ("us", "ns", "s"):
        found = calendar_features(np.array(times, dtype=f"datetime64[{unit}]"), list(fractions))
        for i, name in enumerate(fractions):
            angles = 2 * np.pi * np.array(fractions[name])
            np.testing.assert_allclose(found[:, 2 * i], np.sin(angles), atol=1e-12, err_msg=name)
            np.testing.assert_allclose(found[:, 2 * i + 1], np.cos(angles), atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("rows", "horizon", "split", "part"),
    [
        (15, 3, "train", "train: 9 rows are too few for one window of 11 (data.context_length=8 + data.horizon=3); the "
         "series has 15 rows. For all splits data.context_length=6 would fit"),
        (21, 5, "validation", "validation: 12 rows are too few for one window of 13 (data.context_length=8 + "
         "data.horizon=5); the series has 21 rows. For all splits data.horizon=4 would fit"),
    ],
)  # fmt: skip
def test_error_of_a_short_series_suggests_lengths_that_fit(
    tmp_path: Path, rows: int, horizon: int, split: Split, part: str
) -> None:
    content = table().select("date", "store", "sales")
    content = pl.concat([content.head(rows), content.filter(pl.col("store") == "b")])
    data = module(tmp_path / "t.csv", content, ColumnRoles(id="store"))
    data.horizon = horizon
    with pytest.raises(InputError) as caught:
        data.windows(split)
    assert str(caught.value) == f"series 'a', {part}"


def test_categories_of_covariates_are_indicators_less_their_mean(tmp_path: Path) -> None:
    content = table()
    day = pl.int_range(pl.len()).over("store")
    holiday = pl.when(day % 10 == 0).then(pl.lit("feast")).when(day == 58).then(pl.lit("new")).otherwise(pl.lit("none"))
    content = content.with_columns(holiday.alias("holiday"))
    roles = ROLES._replace(past=("holiday",), known=("price",))
    data = module(tmp_path / "t.csv", content, roles)
    train = pl.concat(part.head(round(0.6 * len(part))) for part in content.partition_by("store"))["holiday"]
    share = float((train == "feast").mean())  # type: ignore[arg-type]
    encoder = data.encoder
    assert encoder.levels == {"holiday": ["feast", "none"]}
    assert (encoder.sizes()["past"], encoder.sizes()["known"]) == (2, 1)
    codes = {"feast": [1 - share, share - 1], "none": [-share, share], "new": [0, 0]}
    for each in data.scaled_series:
        found = each.scaled[:, 1:3]
        wanted = [codes[name] for name in each.series.covariates.past["holiday"]]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    batch = data.windows("train")[np.arange(3)]
    assert isinstance(batch, CovariateBatch)
    np.testing.assert_allclose(batch.covariates.past[0], data.scaled_series[0].scaled[:LENGTH, 1:3])
    notes = encoder.unknown_levels_notes(each.series.covariates.timed() for each in data.scaled_series)
    assert notes == [
        "holiday: 1 of its categories unknown from the training rows, read as the mean of those known: 'new'"
    ]
    restored = FeatureEncoder.from_container(json.loads(json.dumps(encoder.to_container())))
    np.testing.assert_array_equal(restored.encode(each.series, each.scaler), each.scaled)
    before = {name: value for name, value in data.encoder.to_container().items() if name != "levels"}
    assert FeatureEncoder.from_container(before).levels == {}


def test_rare_categories_are_unknown(tmp_path: Path) -> None:
    content = table()
    content = content.with_columns(pl.Series("holiday", [f"{i}x" for i in range(len(content))]))
    roles = ROLES._replace(past=(), known=("holiday",))
    data = module(tmp_path / "t.csv", content, roles)
    assert len(data.encoder.levels["holiday"]) == 64
    assert np.isfinite(data.scaled_series[0].scaled).all()


def test_a_floor_in_the_units_of_each_series(tmp_path: Path) -> None:
    for content, roles in ((table(), ROLES), (table().filter(store="a"), ColumnRoles(target=("sales", "price")))):
        data = module(tmp_path / "t.csv", content, roles, floor=2.0)
        windows = data.windows("test")
        batch = windows[np.arange(len(windows))]
        members, _ = data.locate_windows("test", np.arange(len(windows)))
        assert batch.floor is not None
        channels = len(data.encoder.channels)
        assert batch.floor.shape == (len(windows), 1, channels)
        for floor, member in zip(batch.floor, members, strict=True):
            scaler = data.scaled_series[member].scaler
            np.testing.assert_allclose(scaler.inverse(floor[0].double().numpy()), [2.0] * channels, atol=1e-3)
        low = data.scaled_series[0].restore(np.full((2, channels), -1e6))
        assert (low == 2).all()
        np.testing.assert_array_equal(data.scaled_series[0].restore(np.zeros(channels)), data.scaler.mean)
    plain = module(tmp_path / "t.csv", table())
    assert plain.windows("test")[np.arange(2)].floor is None
    assert plain.scaled_series[0].restore(np.array([-1e6]))[0] < 0


def test_robust_scaling_ignores_single_cells(tmp_path: Path) -> None:
    content = table()
    wild = content.with_columns(pl.when(pl.int_range(pl.len()) == 5).then(1e9).otherwise("sales").alias("sales"))
    plain, robust = (module(tmp_path / "t.csv", content, robust=r).encoder.scalers["a"] for r in (False, True))
    far = module(tmp_path / "t.csv", wild, robust=True).encoder.scalers["a"]
    rows = content.filter(store="a")["sales"].head(36)
    assert robust.mean[0] == rows.median()
    low, high = rows.quantile(0.25, "linear"), rows.quantile(0.75, "linear")
    assert low is not None
    assert high is not None
    assert robust.std[0] == pytest.approx((high - low) / 1.3489795)
    assert plain.std[0] == pytest.approx(rows.std(ddof=0))
    np.testing.assert_allclose(far.std, robust.std, rtol=0.1)
    mostly = Scaler.fit(np.array([[0.0]] * 9 + [[10.0]]), robust=True)
    assert (mostly.mean[0], mostly.std[0]) == (0, 3)
    assert Scaler.fit(np.full((9, 1), 7.0), robust=True) == (7, 1)
