"""Future covariates: reading, error messages for faulty files, and the timestamps of future steps."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.future_covariates import read_future
from datamodules.time_series.steps import times_after
from datamodules.time_series.timestamps import span_text, timestamp_text
from titans_seq.errors import InputError

ROLES = ColumnRoles(time="when", id="store", target=("sales",), known=("promo", "price"))
TIMES = pl.Series([datetime(2024, 3, 1, 22) + timedelta(hours=i) for i in range(4)])


def write_known(path: Path, rows: int = 6, **changes: object) -> Path:
    """Write known covariates of stores s1 and s2 from two hours before the first requested time on; return the path."""
    stamps = [datetime(2024, 3, 1, 20) + timedelta(hours=i) for i in range(rows)]
    promo = [i % 2 for i in range(rows)]
    parts = [
        {"when": stamps, "store": [s] * rows, "promo": promo, "price": [k + i / 4 for i in range(rows)]}
        for k, s in enumerate(("s1", "s2"))
    ]
    table = pl.concat(pl.DataFrame(part) for part in parts)
    table.with_columns(pl.Series(k, v, strict=False) for k, v in changes.items()).write_csv(path)
    return path


def test_covariates_of_every_series_at_the_requested_times(tmp_path: Path) -> None:
    found = read_future(write_known(tmp_path / "known.csv"), ROLES, None, ["s2", "s1"], [TIMES, TIMES[:2]])
    columns = [{name: values.tolist() for name, values in each.items()} for each in found]
    assert columns[0] == {"promo": [0, 1, 0, 1], "price": [1.5, 1.75, 2.0, 2.25]}
    assert columns[1] == {"promo": [0, 1], "price": [0.5, 0.75]}


def test_future_table_as_it_is_written(tmp_path: Path) -> None:
    promos = ["none", "", " spring", ""]
    lines = [f"2024-03-01 2{i}:00;s1;{promo};{i},25" for i, promo in enumerate(promos)]
    path = tmp_path / "known.csv"
    path.write_text("\n".join(["when;store;promo;price", *lines]))
    (found,) = read_future(path, ROLES, None, ["s1"], [TIMES[:2]], categories={"promo"})
    assert found["promo"].tolist() == ["spring", ""]
    assert found["price"].tolist() == [2.25, 3.25]
    frame = pl.read_csv(path, separator=";", infer_schema=False)
    (of_frame,) = read_future(frame, ROLES, None, ["s1"], [TIMES[:2]], categories={"promo"})
    assert {name: values.tolist() for name, values in of_frame.items()} == {
        name: values.tolist() for name, values in found.items()
    }
    (fault,) = read_future(frame, ROLES, None, ["s2"], [TIMES], categories={"promo"})
    assert str(fault).startswith("future: series 's2': promo, price required until 2024-03-02 01:00 (4 steps)")


@pytest.mark.parametrize(
    ("rows", "changes", "part"),
    [
        (4, {}, "known.csv: series 's1': promo, price required until 2024-03-02 01:00 (4 steps); "
         "ends 2024-03-01 23:00. Extend the file, or forecast fewer steps: --horizon 2."),
        (2, {}, "series 's1': promo, price required until 2024-03-02 01:00 (4 steps); missing from 2024-03-01 22:00. "
         "Extend the file."),
        (6, {"store": ["s1"] * 12}, "series 's1': 2024-03-01 20:00 appears more than once"),
        (6, {"store": ["s1"] * 6 + ["s3"] * 6}, "series 's2': promo, price required until 2024-03-02 01:00 (4 steps); "
         "the file has no rows of this series"),
        (6, {"price": ["1", "2", "3", "", "5", "6"] * 2}, "missing at 2024-03-01 23:00. Fix the file."),
        (6, {"price": ["1", "2", "3", "x", "5", "6"] * 2}, "column price: 2 cells are not finite numbers, first 'x'"),
        (6, {"when": ["1.3.24"] * 12}, "column when: '1.3.24' in row 1 is not a timestamp"),
    ],
)  # fmt: skip
def test_error_of_a_faulty_file(tmp_path: Path, rows: int, changes: dict[str, object], part: str) -> None:
    path = write_known(tmp_path / "known.csv", rows, **changes)
    try:
        found = read_future(path, ROLES, None, ["s1", "s2"], [TIMES, TIMES])
        (error, *_) = (each for each in found if isinstance(each, InputError))  # of the first faulty series
    except InputError as whole:
        error = whole
    assert part in str(error)
    assert "\n" not in str(error)


def test_missing_column_or_file(tmp_path: Path) -> None:
    path = write_known(tmp_path / "known.csv")
    with pytest.raises(InputError, match="no column 'holiday'; found when, store, promo, price"):
        read_future(path, ROLES._replace(known=("holiday",)), None, ["s1"], [TIMES])
    with pytest.raises(InputError, match=r"--future .*nowhere\.csv: no such file"):
        read_future(tmp_path / "nowhere.csv", ROLES, None, ["s1"], [TIMES])


@pytest.mark.parametrize(
    ("times", "interval", "expected"),
    [
        (["2024-02-28T23", "2024-02-29T00"], "1h", ["2024-02-29 01:00:00", "2024-02-29 02:00:00"]),
        (["2024-02-20", "2024-02-28"], "1d", ["2024-02-29 00:00:00", "2024-03-01 00:00:00"]),
        (["2024-01-31", "2024-02-29"], "1mo", ["2024-03-31 00:00:00", "2024-04-30 00:00:00"]),
        (["2024-01-01T00:15"], "15m", ["2024-01-01 00:30:00", "2024-01-01 00:45:00"]),
    ],
)
def test_timestamps_after_the_last(times: list[str], interval: str, expected: list[str]) -> None:
    for unit in ("us", "ns"):
        found = times_after(np.array(times, dtype=f"datetime64[{unit}]"), interval, 2)
        assert [str(time) for time in found] == expected


def test_timestamp_text_is_short() -> None:
    day, hour = datetime(2024, 3, 10), datetime(2024, 3, 10, 4)
    assert [timestamp_text(t) for t in (day, hour, hour.replace(second=5))] == [
        "2024-03-10", "2024-03-10 04:00", "2024-03-10 04:00:05",
    ]  # fmt: skip
    assert span_text(day, hour) == "2024-03-10 00:00 to 04:00"
    assert span_text(hour, hour) == "2024-03-10 04:00"
    assert span_text(hour, datetime(2024, 3, 11, 1)) == "2024-03-10 04:00 to 2024-03-11 01:00"
    assert span_text(day, datetime(2024, 3, 12)) == "2024-03-10 to 2024-03-12"
