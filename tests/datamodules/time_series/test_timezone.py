"""Local times across daylight saving: days and hours of a time zone, in tables, features and outputs."""

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datamodules.time_series.calendar import calendar_features
from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.future_covariates import read_future
from datamodules.time_series.series import Series
from datamodules.time_series.steps import times_after
from titans_seq.errors import InputError

BERLIN = ZoneInfo("Europe/Berlin")
UTC = ZoneInfo("UTC")


def hours(first: datetime, count: int, minutes: int = 60) -> list[datetime]:
    """Return `count` times that follow one another, by elapsed time, in Berlin."""
    start = first.replace(tzinfo=BERLIN).astimezone(UTC)
    return [(start + timedelta(minutes=minutes * i)).astimezone(BERLIN) for i in range(count)]


def days(first: datetime, count: int, zone: ZoneInfo = BERLIN) -> list[datetime]:
    return [(first + timedelta(days=i)).replace(tzinfo=zone) for i in range(count)]


def texts(times: list[datetime], form: str) -> list[str]:
    if form == "offset":
        return [time.isoformat(sep=" ") for time in times]
    if form == "Z":
        return [time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for time in times]
    return [time.strftime("%Y-%m-%d %H:%M:%S") for time in times]


def read(times: list[str], zone: str | None = "Europe/Berlin") -> tuple[Table, Series]:
    frame = pl.DataFrame({"date": times, "y": [float(i) for i in range(len(times))]})
    table = Table(frame, timezone=zone)
    (series,) = table.load()
    return table, series


@pytest.mark.parametrize("form", ["offset", "Z", "naive"])
@pytest.mark.parametrize(("minutes", "interval"), [(60, "1h"), (15, "15m"), (30, "30m")])
@pytest.mark.parametrize("first", [datetime(2021, 3, 27, 5), datetime(2021, 10, 30, 5)])
def test_hours_across_a_change_are_exact(form: str, minutes: int, interval: str, first: datetime) -> None:
    times = hours(first, 48 * 60 // minutes, minutes)
    table, series = read(texts(times, form))
    assert (table.interval, series.timezone, len(series.values)) == (interval, "Europe/Berlin", len(times))
    np.testing.assert_array_equal(series.values[:, 0], np.arange(len(times)))
    utc = [np.datetime64(time.astimezone(UTC).replace(tzinfo=None)) for time in times]
    np.testing.assert_array_equal(series.timestamps, utc)
    _, same = read(texts(times, form)[::-1])
    np.testing.assert_array_equal(same.timestamps, series.timestamps)
    np.testing.assert_array_equal(same.values[:, 0], np.arange(len(times))[::-1])


@pytest.mark.parametrize("form", ["offset", "Z", "naive"])
def test_days_are_those_of_the_zone(form: str) -> None:
    times = days(datetime(2021, 1, 1), 460)
    table, series = read(texts(times, form))
    assert (table.interval, table.seasonal_period, len(series.values)) == ("1d", 7, 460)
    after = times_after(series.timestamps, "1d", 60, series.timezone)
    assert after.to_list() == [(datetime(2022, 4, 6) + timedelta(days=i)).replace(tzinfo=BERLIN) for i in range(60)]
    clock = series.clock()
    assert (clock == np.datetime64("2021-01-01") + np.arange(460)).all()


def test_months_and_business_days_in_a_zone() -> None:
    months = [datetime(2020 + i // 12, i % 12 + 1, 1, tzinfo=BERLIN) for i in range(30)]
    table, series = read(texts(months, "offset"))
    assert table.interval == "1mo"
    assert times_after(series.timestamps, "1mo", 2, series.timezone).to_list() == [
        datetime(2022, 7, 1, tzinfo=BERLIN), datetime(2022, 8, 1, tzinfo=BERLIN)
    ]  # fmt: skip
    table, _ = read(texts([day for day in days(datetime(2021, 1, 4), 200) if day.weekday() < 5], "Z"))
    assert table.interval == "1bd"


@pytest.mark.parametrize("size", [6, 12])
def test_several_hours_at_the_same_hours_every_day(size: int) -> None:
    first = datetime(2021, 3, 20)
    times = [(first + timedelta(hours=size * i)).replace(tzinfo=BERLIN) for i in range(60)]
    table, series = read(texts(times[:50], "offset"))
    assert (table.interval, table.seasonal_period, len(series.values)) == (f"{size}h", 24 // size, 50)
    assert times_after(series.timestamps, table.interval, 10, series.timezone).to_list() == times[50:]
    # Elapsed time otherwise: the hours of the day move with daylight saving.
    elapsed = hours(first, 60 * size)[::size]
    table, series = read(texts(elapsed[:50], "offset"))
    assert (table.interval, len(series.values)) == (f"{size}h", 50)
    assert times_after(series.timestamps, table.interval, 10, series.timezone).to_list() == elapsed[50:]


@settings(deadline=None, max_examples=60)
@given(
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo"]
    ),
    first=st.datetimes(datetime(2015, 1, 1), datetime(2023, 1, 1)),
    minutes=st.sampled_from([15, 30, 60]),
    form=st.sampled_from(["offset", "Z", "naive"]),
)
def test_any_zone_has_no_gaps_and_no_duplicates(zone: str, first: datetime, minutes: int, form: str) -> None:
    """Steps of elapsed time, and days, are read as they were written."""
    start = first.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)
    count = 1500
    times = [(start + timedelta(minutes=minutes * i)).astimezone(ZoneInfo(zone)) for i in range(count)]
    # Without offsets, an hour that occurs twice and is given once is the earlier one.
    names = texts(times, "naive")
    assume(form != "naive" or all(names.count(names[i]) == 2 for i, time in enumerate(times) if time.fold))
    _, series = read(texts(times, form), zone)
    utc = [np.datetime64(time.astimezone(UTC).replace(tzinfo=None)) for time in times]
    np.testing.assert_array_equal(series.timestamps, utc)
    dates = [str(first.date() + timedelta(days=i)) for i in range(300)]
    _, series = read(dates, zone)
    assert series.clock().astype("datetime64[D]").astype(str).tolist() == dates
    after = times_after(series.timestamps[:150], "1d", 150, zone).to_numpy()
    np.testing.assert_array_equal(after, series.timestamps[150:])


def test_a_day_may_begin_at_a_skipped_midnight() -> None:
    """In Santiago clocks go forward at midnight: 2021-09-05 begins at 01:00."""
    zone = ZoneInfo("America/Santiago")
    dates = [str(datetime(2021, 8, 20) + timedelta(days=i))[:10] for i in range(30)]
    table, series = read(dates, "America/Santiago")
    assert (table.interval, len(series.values)) == ("1d", 30)
    assert str(series.clock()[16]) == "2021-09-05T01:00:00.000000"
    assert str(series.clock()[17]) == "2021-09-06T00:00:00.000000"
    until = times_after(series.timestamps[:17], "1d", 2, series.timezone).to_list()
    assert until == [datetime(2021, 9, 6, tzinfo=zone), datetime(2021, 9, 7, tzinfo=zone)]
    before = times_after(series.timestamps[:16], "1d", 2, series.timezone)
    np.testing.assert_array_equal(before.to_numpy(), series.timestamps[16:18])


def test_errors_name_the_key() -> None:
    daily = texts(days(datetime(2021, 1, 1), 300), "offset")
    for form in ("offset", "Z"):
        with pytest.raises(InputError, match=r"grid from .*Set data\.timezone to their zone, such as data\.timezone="):
            read(texts(days(datetime(2021, 1, 1), 300), form), None)
    hourly = texts(hours(datetime(2021, 10, 30, 5), 480), "naive")
    with pytest.raises(InputError, match=r"2021-10-31 02:00 appears 2 times\. Local times, where clocks go back"):
        read(hourly, None)
    skipped = [str(datetime(2021, 3, 27, 5) + timedelta(hours=i)) for i in range(48)]
    with pytest.raises(InputError, match=r"2021-03-28 02:00 in row 22 does not exist in data\.timezone=Europe/Berlin"):
        read(skipped)
    with pytest.raises(InputError, match=r"data\.timezone=Berlin: unknown time zone"):
        read(daily, "Berlin")
    with pytest.raises(InputError, match=r"data\.timezone=Europe/Berlin does not apply to integers"):
        read([str(i) for i in range(30)])


def test_a_missing_hour_of_a_change_is_a_gap_in_local_time() -> None:
    times = texts(hours(datetime(2021, 10, 30, 5), 48), "offset")
    with pytest.raises(InputError, match=r"1 gap at a 1h step, first 2021-10-31 02:00\. Set data\.fill"):
        read([time for time in times if time != "2021-10-31 02:00:00+01:00"])


def test_the_hours_of_each_series_of_a_panel() -> None:
    times = texts(hours(datetime(2021, 10, 30, 5), 48), "naive")
    frame = pl.DataFrame({"date": times * 2, "id": ["a"] * 48 + ["b"] * 48, "y": [float(i) for i in range(96)]})
    panel = Table(frame, ColumnRoles(id="id", target=("y",)), timezone="Europe/Berlin").read()
    for series, first in zip(panel, (0, 48), strict=True):
        np.testing.assert_array_equal(series.values[:, 0], np.arange(first, first + 48))


def test_a_parquet_column_keeps_its_zone(tmp_path: Path) -> None:
    times = pl.Series(days(datetime(2021, 1, 1), 300)).dt.convert_time_zone("Europe/Berlin")
    for unit in ("ms", "ns"):
        frame = pl.DataFrame({"date": times.dt.cast_time_unit(unit), "y": [1.0] * 300})  # type: ignore[arg-type]
        frame.write_parquet(tmp_path / "t.parquet")
        (series,) = Table(tmp_path / "t.parquet").read()
        assert (series.timezone, series.interval) == ("Europe/Berlin", "1d")


def test_splits_and_calendar_are_those_of_the_zone() -> None:
    times = texts(hours(datetime(2021, 10, 30, 5), 48), "offset")
    frame = pl.DataFrame({"date": times, "y": [1.0] * 48})
    split = SplitPoints("2021-10-31 00:00", "2021-10-31T03:00:00+01:00")
    (series,) = Table(frame, timezone="Europe/Berlin", split=split).load()
    assert series.boundaries == (19, 23, 48)
    local = calendar_features(series.timestamps, ["hour_of_day"], series.timezone)
    angle = 2 * np.pi * np.array([int(time[11:13]) for time in times]) / 24
    np.testing.assert_allclose(local, np.column_stack([np.sin(angle), np.cos(angle)]), atol=1e-12)


def test_future_covariates_are_matched_by_the_hour(tmp_path: Path) -> None:
    roles = ColumnRoles(target=("y",), known=("promo",))
    past = np.array(["2021-10-30T22:00"], dtype="datetime64[us]")  # midnight in Berlin, in UTC
    wanted = times_after(past, "1h", 5, "Europe/Berlin")
    for form in ("offset", "naive"):
        rows = texts(hours(datetime(2021, 10, 31, 1), 5), form)
        pl.DataFrame({"date": rows, "promo": [0, 1, 2, 3, 4]}).write_csv(tmp_path / "plans.csv")
        (found,) = read_future(tmp_path / "plans.csv", roles, None, ["t"], [wanted], "Europe/Berlin")
        assert isinstance(found, dict)
        assert found["promo"].tolist() == [0, 1, 2, 3, 4]
