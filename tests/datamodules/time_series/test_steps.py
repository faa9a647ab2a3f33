"""Time steps: found from the times of a table, gaps on their grids, and the times that follow."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.time_series.columns import ColumnRoles, Fill
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.encoder import FeatureEncoder, interval_of
from datamodules.time_series.series import Series
from datamodules.time_series.steps import times_after
from titans_seq.errors import InputError


def frame(times: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"date": times, "y": [float(i) for i in range(len(times))]}, strict=False)


def read(times: list[object], fill: Fill = "none") -> tuple[Table, Series]:
    table = Table(frame(times), fill=fill)
    (series,) = table.read()
    return table, series


def following(table: Table, series: Series, count: int = 3) -> list[str]:
    return [str(time)[:16] for time in times_after(series.timestamps, table.interval, count)]


def month_start(months: int, day: int = 1) -> str:
    return f"{2015 + months // 12}-{months % 12 + 1:02}-{day:02}"


def month_end(months: int) -> str:
    return str(date.fromisoformat(month_start(months + 1)) - timedelta(days=1))


def business_days(count: int) -> list[object]:
    days = (date(2022, 1, 3) + timedelta(days=i) for i in range(count * 2))
    return [str(day) for day in days if day.weekday() < 5][:count]


@pytest.mark.parametrize(
    ("times", "interval", "season", "after"),
    [
        ([month_start(i) for i in range(40)], "1mo", 12, ["2018-05-01", "2018-06-01", "2018-07-01"]),
        ([month_end(i) for i in range(37)], "1mo", 12, ["2018-02-28", "2018-03-31", "2018-04-30"]),
        ([month_end(i) for i in range(3, 39)], "1mo", 12, ["2018-04-30", "2018-05-31", "2018-06-30"]),
        ([month_start(i, 15) for i in range(0, 40, 2)], "2mo", 6, ["2018-05-15", "2018-07-15", "2018-09-15"]),
        ([month_start(i) for i in range(0, 120, 3)], "3mo", 4, ["2025-01-01", "2025-04-01", "2025-07-01"]),
        ([month_end(i) for i in range(2, 120, 3)], "3mo", 4, ["2025-03-31", "2025-06-30", "2025-09-30"]),
        ([month_end(i) for i in range(0, 24, 3)], "3mo", 4, ["2017-01-31", "2017-04-30", "2017-07-31"]),
        ([f"{year}-01-01" for year in range(1990, 2021)], "12mo", 1, ["2021-01-01", "2022-01-01", "2023-01-01"]),
        ([f"{year}-06-30" for year in range(2001, 2004)], "12mo", 1, ["2004-06-30", "2005-06-30", "2006-06-30"]),
        ([f"{year}-02-28" for year in (2001, 2002, 2003)], "12mo", 1, ["2004-02-29", "2005-02-28", "2006-02-28"]),
        ([date(2024, 1, 3) + timedelta(weeks=i) for i in range(60)], "7d", 52, ["2025-02-26", "2025-03-05"]),
        ([date(2024, 1, 3) + timedelta(weeks=2 * i) for i in range(60)], "14d", 26, ["2026-04-22"]),
        ([date(2024, 1, 3) + timedelta(days=28 * i) for i in range(30)], "28d", 13, ["2026-04-22"]),
        ([date(2024, 1, 3) + timedelta(days=30 * i) for i in range(30)], "30d", 1, ["2026-06-21"]),
        (business_days(30), "1bd", 5, ["2022-02-14", "2022-02-15", "2022-02-16"]),
        (business_days(27), "1bd", 5, ["2022-02-09", "2022-02-10", "2022-02-11", "2022-02-14"]),
        ([date(2022, 1, 3) + timedelta(days=i) for i in range(30)], "1d", 7, ["2022-02-02"]),
        ([datetime(2022, 1, 3) + timedelta(minutes=30 * i) for i in range(30)], "30m", 48, ["2022-01-03 15:00"]),
        ([datetime(2022, 1, 3) + timedelta(hours=6 * i) for i in range(30)], "6h", 4, ["2022-01-10 12:00"]),
        (list(range(30)), "1i", 1, ["30", "31"]),
        ([str(i) for i in range(100, 400, 5)], "5i", 1, ["400", "405"]),
        (list(range(-10, 20, 2)), "2i", 1, ["20", "22"]),
        ([f"{2015 + i // 12}-{i % 12 + 1:02}" for i in range(30)], "1mo", 12, ["2017-07-01"]),
        ([f"{2015 + i // 4}-Q{i % 4 + 1}" for i in range(30)], "3mo", 4, ["2022-07-01"]),
        ([f"{2015 + i // 4}Q{i % 4 + 1}" for i in range(30)], "3mo", 4, ["2022-07-01"]),
    ],
)
def test_a_step_is_found_and_continued(times: list[object], interval: str, season: int, after: list[str]) -> None:
    table, series = read(times)
    assert (table.interval, table.seasonal_period, len(series.values)) == (interval, season, len(times))
    found = following(table, series, len(after))
    assert [text.removesuffix(" 00:00") for text in found] == after
    assert interval_of(series._replace(interval="")) == interval
    shuffled, _ = read(times[::-1])
    assert shuffled.interval == interval


@pytest.mark.parametrize(
    ("every", "left_out"),
    [
        ([month_end(i) for i in range(40)], (5, 6, 20)),
        ([month_start(i) for i in range(0, 120, 3)], (7,)),
        ([str(date(1990 + i, 7, 1)) for i in range(30)], (3, 4)),
        (business_days(60), (11, 14, 15)),  # a Tuesday; a Friday and the Monday after it
        (list(range(0, 200, 5)), (8, 9)),
    ],
)
def test_missing_rows_are_gaps_of_the_grid(every: list[object], left_out: tuple[int, ...]) -> None:
    times = [time for i, time in enumerate(every) if i not in left_out]
    with pytest.raises(InputError, match=r"gaps? at a [\w-]+ step, first .*Set data.fill"):
        read(times)
    _, series = read(times, "ffill")
    assert len(series.values) == len(every)
    assert all(series.values[i, 0] == series.values[i - 1, 0] for i in left_out)
    _, series = read(times, "missing")
    assert np.flatnonzero(np.isnan(series.values[:, 0])).tolist() == list(left_out)


def test_business_days_have_no_weekends() -> None:
    table, series = read(business_days(300), "ffill")
    weekdays = pl.Series(series.timestamps).dt.weekday()
    assert weekdays.max() == 5
    assert times_after(series.timestamps, table.interval, 50).dt.weekday().is_between(1, 5).all()
    # Days with one weekend among them are days.
    days = [*business_days(30), "2022-02-12", "2022-02-13"]
    assert Table(frame(days), fill="ffill").read()[0].interval == "1d"


@pytest.mark.parametrize(
    ("times", "part"),
    [
        ([month_start(i, 15 if i == 7 else 1) for i in range(40)],
         "1 times are not on the 1-month grid from 2015-01-01"),
        ([*range(30), 31], "1 gap at a 1-unit step, first 30."),
        ([*range(0, 90, 3), 91], "1 times are not on the 3-unit grid from 0, first 91"),
        ([*business_days(30), "2022-02-14 07:00"], "1 times are not on the business-day grid"),
        ([20240101 + i for i in range(30)], "'20240101' in row 1 is not a timestamp in ISO 8601, such as 2024-03-10 "
         "01:00; dates? Set data.time_format=%Y%m%d"),
        ([1_700_000_000_000 + i for i in range(30)], "milliseconds since 1970? Convert the column to timestamps"),
        ([*range(29), "x"], "'x' in row 30 is not an integer, as the times of most rows are"),
        ([*range(29), None], "an empty cell in row 30 is not an integer"),
    ],
)  # fmt: skip
def test_error_of_times_off_the_step(times: list[object], part: str) -> None:
    times = times if all(isinstance(t, int) for t in times) else [None if t is None else str(t) for t in times]
    with pytest.raises(InputError) as caught:
        read(times)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("time_format", "texts", "interval"),
    [
        ("%Y%m%d", [f"202401{i:02}" for i in range(1, 31)], "1d"),
        ("%Y%m", [f"{2015 + i // 12}{i % 12 + 1:02}" for i in range(30)], "1mo"),
        ("%b %Y", [f"{date(2015 + i // 12, i % 12 + 1, 1):%b %Y}" for i in range(30)], "1mo"),
        ("%Y", [str(1990 + i) for i in range(30)], "12mo"),
    ],
)
def test_formats_without_a_day_or_a_month(time_format: str, texts: list[str], interval: str) -> None:
    table = Table(frame(list(texts)), time_format=time_format)
    (series,) = table.load()
    assert table.interval == interval
    assert pl.Series(series.timestamps)[0].month == 1


def test_a_series_of_a_panel_has_the_step_of_the_table(tmp_path: Path) -> None:
    rows = [(day, name) for name, days in (("a", business_days(40)), ("b", business_days(4))) for day in days]
    table = pl.DataFrame(
        rows,
        schema=[
            "date",
            "id",
        ],
        orient="row",
    ).with_columns(y=1.0)
    panel = Table(table, ColumnRoles(id="id", target=("y",))).read()
    assert [series.interval for series in panel] == ["1bd", "1bd"]


def test_integers_split_encode_and_restore() -> None:
    table = Table(frame(list(range(100, 400, 5))), split=SplitPoints("300", "350"))
    (series,) = table.load()
    assert series.boundaries == (40, 50, 60)
    assert series.timestamps.dtype == np.int64
    encoder = FeatureEncoder.fit([series], ["day_of_week"], 1)
    assert (encoder.calendar, encoder.interval, encoder.trained_until) == ([], "5i", "295")
    assert encoder.encode(series, encoder.scalers[series.name]).shape == (60, 1)
    with pytest.raises(InputError, match="expected a fraction or a time such as 240, got '2024-01-01'"):
        Table(frame(list(range(100, 400, 5))), split=SplitPoints("2024-01-01", 0.9)).load()


@settings(deadline=None, max_examples=40)
@given(
    first=st.dates(date(1950, 1, 1), date(2050, 1, 1)),
    size=st.sampled_from(["1mo", "2mo", "3mo", "6mo", "12mo", "1d", "3d", "7d", "1bd"]),
    rows=st.integers(24, 60),
    ahead=st.integers(1, 30),
)
def test_times_that_follow_are_those_of_a_longer_table(first: date, size: str, rows: int, ahead: int) -> None:
    """Months counted from their first, so that this is another computation than that of the package."""
    count, unit = int(size.rstrip("abdmo")), size.lstrip("0123456789")
    if unit == "bd":
        every = [d for d in (first + timedelta(days=i) for i in range(2 * (rows + ahead))) if d.weekday() < 5]
    else:
        offsets = pl.Series([f"{i * count}{unit}" for i in range(rows + ahead)])
        every = pl.select(pl.lit(first).dt.offset_by(offsets)).to_series().to_list()
    every = every[: rows + ahead]
    table, series = read(every[:rows])
    assert table.interval == size
    following_days = times_after(series.timestamps, table.interval, ahead).dt.date().to_list()
    is_month_end = all((d + timedelta(days=1)).day == 1 for d in every[:rows])
    if not is_month_end:
        assert following_days == every[rows:]
    else:
        assert [(d.year, d.month) for d in following_days] == [(d.year, d.month) for d in every[rows:]]
        assert all((d + timedelta(days=1)).day == 1 for d in following_days)
