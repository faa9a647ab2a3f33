"""Series of a panel that are too short for a window: left out or padded, without effect on the others."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from datamodules.common.splitting import SPLITS
from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.origin import cut_at_origin, steps_until
from datamodules.time_series.series import SplitBoundaries
from datamodules.time_series.short_series import pad_series
from datamodules.time_series.steps import times_after, times_before
from titans_seq.batch import CovariateBatch
from titans_seq.errors import InputError

LENGTH, HORIZON = 10, 3
ROLES = ColumnRoles(id="store", target=("y",), static=("kind",))
DAY = datetime(2024, 1, 1)


def rows(store: str, count: int, kind: str = "big", first: int = 0, **columns: Any) -> pl.DataFrame:
    """A series of `count` days from the day `first` on, whose values tell the day of the week and the row."""
    days = [DAY + timedelta(days=first + i) for i in range(count)]
    y = [day.weekday() + i / 1000 for i, day in enumerate(days)]
    return pl.DataFrame({"date": days, "store": store, "y": y, "kind": kind}).with_columns(**columns)


def module(*parts: pl.DataFrame, short: Any = "pad", **options: Any) -> ForecastingDataModule:
    split = options.pop("split", SplitPoints(0.6, 0.8))
    source = Table(pl.concat(parts), ROLES, split=split, keep_short=short != "refuse")
    data = ForecastingDataModule(source, context_length=LENGTH, horizon=HORIZON, short=short, **options)
    data.setup()
    return data


OTHERS = (rows("a", 60), rows("b", 45, "small"))


@pytest.mark.parametrize(
    ("short", "count"),
    [("drop", 20), ("pad", 14), ("pad", 1)],  # 12 and 8 training rows; 13 are needed, padded 7 + 3
)
def test_a_short_series_leaves_the_windows_of_the_others_as_they_are(short: str, count: int) -> None:
    data, alone = module(*OTHERS, rows("new", count), short=short), module(*OTHERS)
    for split in SPLITS:
        index = np.arange(len(alone.windows(split)))
        assert len(data.windows(split)) == len(index)
        ours, theirs = data.windows(split)[index], alone.windows(split)[index]
        assert_array_equal(ours.context, theirs.context)
        assert_array_equal(ours.target, theirs.target)
    assert data.notes == ["1 series (new): fewer than 13 training rows: left out of the training"]
    assert data.encoder.to_container() == alone.encoder.to_container()


def test_a_padded_series_repeats_its_first_season_backwards() -> None:
    data = module(*OTHERS, rows("new", 19, first=2))  # 11 training rows, 4 each of validation and test
    assert data.notes == [
        "1 series (new): fewer than 13 training rows: their first season is repeated before them",
    ]
    counts = {split: len(data.windows(split)) - len(module(*OTHERS).windows(split)) for split in SPLITS}
    assert counts == {"train": 1, "validation": 2, "test": 2}
    index = np.array([len(data.windows("train")) - 1])
    batch = data.windows("train")[index]
    values = rows("new", 19, first=2)["y"].to_numpy()
    scaler = data.encoder.scalers["new"]
    assert_allclose(scaler.mean, values[:11].mean())  # of its own rows alone
    wanted = np.concatenate([values[5:7], values[:11]])  # the rows of the same days of the week
    assert_allclose(scaler.inverse(batch.context[0].numpy()).ravel(), wanted[:LENGTH], atol=1e-5)
    assert_allclose(scaler.inverse(batch.target[0].numpy()).ravel(), wanted[LENGTH:], atol=1e-5)
    series = data.scaled_series[-1].series
    assert np.isnan(series.values[:2]).all()
    assert str(series.timestamps[0])[:10] == "2024-01-01"


def test_calendar_and_static_features_of_padded_rows() -> None:
    data = module(*OTHERS, rows("new", 19, "tiny", first=2), calendar=["day_of_week"])
    batch = data.windows("train")[np.array([len(data.windows("train")) - 1])]
    assert isinstance(batch, CovariateBatch)
    assert_allclose(batch.covariates.known[0, :, 0], np.sin(2 * np.pi * (np.arange(13) % 7) / 7), atol=1e-6)
    assert data.encoder.categories == {"kind": ["big", "small", "tiny"]}


def test_a_series_with_few_test_rows_is_trained_on_but_not_tested() -> None:
    data = module(*OTHERS, rows("new", 50), split=SplitPoints("2024-02-10", "2024-02-15"))
    alone = module(*OTHERS[:1], rows("new", 50), split=SplitPoints("2024-02-10", "2024-02-15"))
    assert "1 series (b): fewer than 3 validation rows" not in " ".join(alone.notes)
    assert data.notes == ["1 series (b): fewer than 3 test rows: not among the test windows"]
    assert len(data.windows("test")) == len(alone.windows("test"))
    members, _ = data.locate_windows("test", np.arange(len(data.windows("test"))))
    assert set(members) == {0, 2}


def test_series_after_the_training_rows_or_without_values() -> None:
    late = rows("late", 20, first=50)
    empty = rows("void", 60, y=pl.lit(None, pl.Float64))
    data = module(*OTHERS, late, empty, split=SplitPoints("2024-01-25", "2024-02-05"))
    assert [each.series.name for each in data.scaled_series] == ["a", "b"]
    assert data.notes == [
        "1 series (void): a column has no values: left out of the training",
        "1 series (late): fewer than 13 training rows: left out of the training",
    ]
    with pytest.raises(InputError, match="60 empty cells"):
        module(*OTHERS, empty, short="refuse")
    some = rows("c", 60).with_columns(pl.when(pl.col("y") < 1).then(None).otherwise("y").alias("y"))
    with pytest.raises(InputError, match="9 empty cells"):
        module(*OTHERS, empty, some)
    with pytest.raises(InputError, match="no series has a value in every column and training rows"):
        module(empty, late, split=SplitPoints("2024-01-25", "2024-02-05"))


def test_a_panel_of_short_series_is_an_error_with_sizes_that_fit_the_longest() -> None:
    data = module(rows("a", 14), rows("b", 12), rows("c", 2))
    with pytest.raises(InputError) as caught:
        data.windows("train")
    assert str(caught.value).startswith("series 'a', train: 8 rows are too few for one window of 13")
    assert str(caught.value).endswith("For all splits data.context_length=5 would fit")
    with pytest.raises(InputError, match=r"series 'new': 3 rows, .*every split needs rows"):
        module(*OTHERS, rows("new", 3), short="refuse")


def test_an_unknown_category_has_a_code_of_its_own() -> None:
    data = module(*OTHERS, unknown_categories=True)
    assert data.encoder.sizes()["categories"] == [3]
    series = data.series._replace(covariates=data.series.covariates._replace(static={"kind": "huge"}))
    assert data.encoder.static(series)[0].tolist() == [2]
    assert data.encoder.unseen_categories(series) == ["kind=huge"]
    kept = {"kind": ["big", "small"]}
    other = module(rows("a", 60), rows("new", 60, "huge"), unknown_categories=True, categories=kept)
    assert other.encoder.categories == kept
    assert other.notes == ["1 series (new: kind=huge): not in training; read as an unknown category"]


@pytest.mark.parametrize(
    ("times", "interval", "zone"),
    [
        (["2024-01-02", "2024-01-03"], "1bd", None),
        (["2024-01-31", "2024-02-29"], "1mo", None),
        (["2024-03-31", "2024-06-30"], "3mo", None),
        (["2024-01-07", "2024-01-14"], "7d", None),
        (["2024-01-01T06:00", "2024-01-01T12:00"], "6h", None),
        (["2024-03-31T22:00", "2024-04-01T22:00"], "1d", "Europe/Berlin"),
        (["2024-03-31T00:30", "2024-03-31T00:45"], "15m", "Europe/Berlin"),
    ],
)
def test_times_before_are_those_that_times_after_continue(times: list[str], interval: str, zone: str | None) -> None:
    given = np.array(times, dtype="datetime64[us]")
    before = times_before(given, interval, 9, zone).to_numpy()
    assert len(before) == 9
    assert_array_equal(times_after(before, interval, 11, zone).to_numpy()[:2], given)
    numbers = np.array([40, 45])
    assert times_before(numbers, "5i", 3).to_list() == [25, 30, 35]


def test_padding_of_a_series_shorter_than_a_season() -> None:
    (series,) = Table(rows("a", 3), ROLES).read()
    assert_array_equal(pad_series(series, 4, 7).values[:4], series.values[[2, 0, 1, 2]])
    assert pad_series(series, 0, 7) is series


def test_one_origin_for_series_that_end_at_different_times() -> None:
    panel = Table(pl.concat([rows("a", 20), rows("b", 12), rows("c", 3, first=16)]), ROLES).read()
    kept, origin = cut_at_origin(panel, "2024-01-15 12:00")
    assert [(series.name, len(series.timestamps)) for series in kept] == [("a", 15), ("b", 12)]
    assert origin == np.datetime64("2024-01-15")
    assert [steps_until(series, origin, "1d") for series in kept] == [0, 3]
    assert cut_at_origin(panel, "last")[1] == np.datetime64("2024-01-20")
    for text, part in (("2024-01-21", "a time from 2024-01-01 to 2024-01-20"), ("7", "a time such as 2024-03-10")):
        with pytest.raises(InputError, match=f"--origin {text}: expected {part}"):
            cut_at_origin(panel, text)


def test_other_splits_keep_scales_padding_and_settings() -> None:
    options: dict[str, Any] = {"unknown_categories": True, "robust": True, "floor": 2.5}
    data = module(*OTHERS, rows("new", 20), **options)
    ends = [SplitBoundaries(*(len(each.series.values),) * 3) for each in data.scaled_series]
    other = data.with_boundaries(ends)
    keys = ("short", "unknown_categories", "categories", "robust", "floor", "context_length", "horizon")
    assert {key: getattr(other, key) for key in keys} == {key: getattr(data, key) for key in keys}
    assert other.encoder.scalers == data.encoder.scalers
    assert len(other.windows("train")) == sum(end.train - LENGTH - HORIZON + 1 for end in ends)
    batch = other.windows("train")[np.array([0])]
    assert_array_equal(batch.floor, data.windows("train")[np.array([0])].floor)
