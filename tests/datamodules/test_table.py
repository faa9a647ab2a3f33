"""A user's table: what is read, and the one line that each fault gets (points 1 to 6 of the bad inputs)."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datamodules.table import Fill, Split, Table
from titans_seq.errors import InputError

START = datetime(2024, 3, 1)


def hours(count: int) -> list[datetime]:
    return [START + timedelta(hours=i) for i in range(count)]


def write(path: Path, columns: dict[str, list[object]]) -> Path:
    table = pl.DataFrame(columns, strict=False)
    table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    return path


def wide(path: Path, count: int = 40, **changes: list[object]) -> Path:
    columns: dict[str, list[object]] = {
        "date": list(hours(count)),
        "a": [i * 1.5 for i in range(count)],
        "b": [-i for i in range(count)],
    }
    return write(path, {**columns, **changes})


def fault(table: Table) -> str:
    with pytest.raises(InputError) as caught:
        table.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(table.path))
    return message


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_wide_table(tmp_path: Path, suffix: str) -> None:
    series = Table(wide(tmp_path / f"sales.{suffix}")).load()
    assert series.name == "sales"
    assert series.channels == ["a", "b"]
    assert series.borders == (28, 32, 40)
    np.testing.assert_array_equal(series.values, np.column_stack([np.arange(40) * 1.5, -np.arange(40.0)]))
    np.testing.assert_array_equal(series.timestamps, np.array(hours(40), dtype="datetime64[us]"))


def test_rows_in_any_order_and_columns_by_choice(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    table = Table(path, target=["b"])
    np.testing.assert_array_equal(table.load().values[:, 0], -np.arange(40.0))
    assert table.season == 24


def test_a_long_table_has_a_channel_for_each_series(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"when": [], "store": [], "sales": []}
    for i, stamp in enumerate(hours(30)):
        for store in ("s2", "s1"):
            columns["when"].append(stamp)
            columns["store"].append(store)
            columns["sales"].append(i * (10 if store == "s1" else 1))
    path = write(tmp_path / "long.csv", columns)
    series = Table(path, time="when", id="store", target=["sales"]).load()
    values = dict(zip(series.channels, series.values.T, strict=True))
    np.testing.assert_array_equal(values["s1"], np.arange(30) * 10.0)
    np.testing.assert_array_equal(values["s2"], np.arange(30.0))
    message = fault(Table(path, time="when", target=["sales"]))
    assert "2024-03-01 00:00:00 appears 2 times. Several series? Set data.id=<column>; candidates: store." in message
    assert "needs one column of values" in fault(Table(wide(tmp_path / "w.csv", id=["x"] * 40), id="id"))
    columns["store"] = ["s1"] * 60
    same = write(tmp_path / "same.csv", columns)
    assert "series 's1': 2024-03-01 00:00:00 appears 2 times" in fault(
        Table(same, time="when", id="store", target=["sales"])
    )


def holes(path: Path) -> Path:
    """Two gaps in the times and one empty cell."""
    kept = [i for i in range(40) if i not in (5, 6, 20)]
    values: list[object] = [float(i) for i in kept]
    values[10] = None
    return write(path, {"date": [hours(40)[i] for i in kept], "a": values})


def test_gaps_are_refused_or_filled(tmp_path: Path) -> None:
    path = holes(tmp_path / "gaps.csv")
    assert "1 empty cells, first in row 11 (2024-03-01 12:00:00). Set data.fill" in fault(Table(path))
    only_gaps = write(
        tmp_path / "only.csv",
        {"date": [h for i, h in enumerate(hours(40)) if i not in (5, 6, 20)], "a": list(range(37))},
    )
    message = fault(Table(only_gaps))
    assert "2 gaps at a 1h step, first 2024-03-01 05:00:00 to 2024-03-01 06:00:00. Set data.fill=ffill" in message
    filled: dict[Fill, np.ndarray] = {
        fill: Table(path, fill=fill).load().values[:, 0] for fill in ("ffill", "interpolate")
    }
    np.testing.assert_array_equal(filled["interpolate"], np.arange(40.0))
    expected = np.arange(40.0)
    expected[[5, 6, 20, 12]] = [4, 4, 19, 11]
    np.testing.assert_array_equal(filled["ffill"], expected)


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("n/a", "1 cells are no finite numbers, first 'n/a' in row 4 (2024-03-01 03:00:00)"),
        ("inf", "'inf' in row 4"),
        ("NaN", "'NaN'"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path: Path, cell: str, part: str) -> None:
    values: list[object] = [str(i) for i in range(40)]
    values[3] = cell
    assert part in fault(Table(wide(tmp_path / "t.csv", a=values)))


@pytest.mark.parametrize(
    ("stamps", "time_format", "part"),
    [
        ([f"{d:02}.03.2024" for d in range(1, 31)], None, "'01.03.2024' in row 1 is no time in ISO 8601"),
        ([str(1_700_000_000 + 60 * i) for i in range(30)], None, 'seconds since 1970? Set data.time_format="%s"'),
        ([f"2024-03-{d:02}" for d in range(1, 30)] + ["soon"], None, "'soon' in row 30"),
        ([f"2024-03-{d:02}" for d in range(1, 31)], "%d/%m/%Y", "no time in data.time_format=%d/%m/%Y"),
        ([f"2024-03-{d:02}" for d in range(1, 30)] + ["2024-03-30 07:00"], None, "1 times do not lie on a 1d step"),
    ],
)
def test_times_that_do_not_parse_or_fit(tmp_path: Path, stamps: list[str], time_format: str | None, part: str) -> None:
    path = write(tmp_path / "t.csv", {"date": list(stamps), "a": list(range(30))})
    assert part in fault(Table(path, time_format=time_format))


@pytest.mark.parametrize(
    ("stamps", "time_format", "season"),
    [
        ([f"{d:02}.03.2024" for d in range(1, 31)], "%d.%m.%Y", 7),
        ([f"2024-03-01T{i // 60:02}:{i % 60:02}:00+01:00" for i in range(0, 450, 15)], None, 96),
        ([f"{2020 + i // 12}-{i % 12 + 1:02}-01" for i in range(30)], None, 12),
        ([str(1_700_000_000 + 60 * i) for i in range(30)], "%s", 1440),
    ],
)
def test_times_in_many_hands(tmp_path: Path, stamps: list[str], time_format: str | None, season: int) -> None:
    table = Table(write(tmp_path / "t.csv", {"date": list(stamps), "a": list(range(30))}), time_format=time_format)
    series = table.load()
    assert table.season == season
    assert len(series.timestamps) == 30
    if "T" in stamps[0]:  # in UTC
        assert series.timestamps[0] == np.datetime64("2024-02-29T23:00:00")


def test_splits_by_share_and_by_date(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv")
    assert Table(path, split=Split(0.5, 0.75)).load().borders == (20, 30, 40)
    assert Table(path, split=Split("2024-03-01 10:00", "2024-03-02")).load().borders == (10, 24, 40)
    assert "every split needs rows" in fault(Table(path, split=Split(0.5, 0.5)))


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv")
    assert fault(Table(path, time="time")).endswith("no column 'time'; found date, a, b. Set data.time.")
    assert "no column 'c'; found date, a, b. Set data.target." in fault(Table(path, target=["c"]))
    with pytest.raises(InputError, match=r"no such file; set data\.path"):
        Table(tmp_path / "nothing.csv").prepare()
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    assert "not a readable table" in fault(Table(tmp_path / "bad.parquet"))
    assert "2 distinct times" in fault(Table(wide(tmp_path / "short.csv", 2)))
