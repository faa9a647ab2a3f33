"""Time series tables of users: reading, and the error line of each kind of fault."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datamodules.common.text_format import TextFormat
from datamodules.time_series.columns import ColumnRoles, Fill
from datamodules.time_series.datasets.table import SplitPoints, Table
from datamodules.time_series.series import Series
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


def only_series(table: Table) -> Series:
    """Return the only series of a wide table."""
    (series,) = table.load()
    return series


def error_line(table: Table) -> str:
    with pytest.raises(InputError) as caught:
        table.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(table.path))
    return message


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_wide_table(tmp_path: Path, suffix: str) -> None:
    series = only_series(Table(wide(tmp_path / f"sales.{suffix}")))
    assert series.name == "sales"
    assert series.channels == ["a", "b"]
    assert series.boundaries == (28, 32, 40)
    np.testing.assert_array_equal(series.values, np.column_stack([np.arange(40) * 1.5, -np.arange(40.0)]))
    np.testing.assert_array_equal(series.timestamps, np.array(hours(40), dtype="datetime64[us]"))


def test_unsorted_rows_and_selected_columns(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    table = Table(path, ColumnRoles(target=("b",)))
    np.testing.assert_array_equal(only_series(table).values[:, 0], -np.arange(40.0))
    assert table.seasonal_period == 24


def long(path: Path, **changes: list[object]) -> Path:
    """Write series s2 of 30 hours and s1, which begins 6 hours later, with interleaved rows; return the path."""
    columns: dict[str, list[object]] = {name: [] for name in ("when", "store", "sales", "promo", "kind", "size")}
    for i, stamp in enumerate(hours(30)):
        for store in ("s2", "s1")[: 1 + (i >= 6)]:
            row = (stamp, store, i * (10 if store == "s1" else 1), i % 7 == 0, f"k{store}", 3.5)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return write(path, {**columns, **changes})


LONG = ColumnRoles(time="when", id="store", target=("sales",))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_long_table_is_a_panel_of_series(tmp_path: Path, suffix: str) -> None:
    path = long(tmp_path / f"long.{suffix}")
    roles = LONG._replace(past=("promo",), static=("kind", "size"))
    s1, s2 = Table(path, roles, split=SplitPoints(0.5, 0.75)).load()
    assert (s1.name, s2.name, s1.channels, s2.channels) == ("s1", "s2", ["sales"], ["sales"])
    np.testing.assert_array_equal(s1.values[:, 0], np.arange(6, 30) * 10.0)
    np.testing.assert_array_equal(s2.values[:, 0], np.arange(30.0))
    np.testing.assert_array_equal(s1.timestamps, np.array(hours(30)[6:], dtype="datetime64[us]"))
    assert (s1.boundaries, s2.boundaries) == ((12, 18, 24), (15, 22, 30))
    np.testing.assert_array_equal(s1.covariates.past["promo"], [float(i % 7 == 0) for i in range(6, 30)])
    assert s1.covariates.static == {"kind": "ks1", "size": "3.5"}


def test_several_series_in_one_column_require_an_id(tmp_path: Path) -> None:
    path = long(tmp_path / "long.csv")
    message = error_line(Table(path, LONG._replace(id=None)))
    assert "2024-03-01 06:00 appears 2 times. Several series? Set data.id=<column>; candidates: store" in message
    message = error_line(Table(path, LONG._replace(target=())))
    assert "data.id=store requires a target column; set data.target to one or more of sales, promo" in message
    same = long(tmp_path / "same.csv", store=["s1"] * 54)
    assert "series 's1': 2024-03-01 06:00 appears 2 times; data.id=store does not distinguish these rows" in error_line(
        Table(same, LONG)
    )
    some = long(tmp_path / "some.csv", store=[None, *["s1"] * 53])
    assert "column store: 1 empty cells, first in row 1" in error_line(Table(some, LONG))
    message = error_line(Table(long(tmp_path / "k.csv", kind=list("ab" * 27)), LONG._replace(static=("kind",))))
    assert "series 's2': column kind must hold one value in all its rows; found a, b" in message
    assert "data.static needs data.id" in error_line(Table(wide(tmp_path / "w.csv"), ColumnRoles(static=("a",))))
    assert "column 'a' is in data.past and data.known" in error_line(
        Table(wide(tmp_path / "w.csv"), ColumnRoles(past=("a",), known=("a",)))
    )


def test_error_of_a_gap_names_its_series(tmp_path: Path) -> None:
    path = long(tmp_path / "long.csv")
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not (",s1," in line and "T10:" <= line[10:14] < "T14:")]
    path.write_text("\n".join(kept) + "\n")
    message = error_line(Table(path, LONG))
    assert message == (
        f"{path}: series 's1': 1 gap at a 1h step, first 2024-03-01 10:00 to 13:00. "
        "Set data.fill=ffill|interpolate or fix the file."
    )
    table = Table(path, LONG, fill="ffill")
    np.testing.assert_array_equal(table.load()[0].values[3:9, 0], [90, 90, 90, 90, 90, 140])
    assert table.notes == [f"{path}: 4 missing values filled, data.fill=ffill"]


def write_gaps(path: Path) -> Path:
    """Write a table with two gaps in the timestamps and one empty cell; return its path."""
    kept = [i for i in range(40) if i not in (5, 6, 20)]
    values: list[object] = [float(i) for i in kept]
    values[10] = None
    return write(path, {"date": [hours(40)[i] for i in kept], "a": values})


def test_gaps_are_an_error_or_filled(tmp_path: Path) -> None:
    path = write_gaps(tmp_path / "gaps.csv")
    assert "1 empty cells, first in row 11 (2024-03-01 12:00). Set data.fill" in error_line(Table(path))
    only_gaps = write(
        tmp_path / "only.csv",
        {"date": [h for i, h in enumerate(hours(40)) if i not in (5, 6, 20)], "a": list(range(37))},
    )
    message = error_line(Table(only_gaps))
    assert "2 gaps at a 1h step, first 2024-03-01 05:00 to 06:00. Set data.fill=ffill" in message
    filled: dict[Fill, np.ndarray] = {
        fill: only_series(Table(path, fill=fill)).values[:, 0] for fill in ("ffill", "interpolate")
    }
    np.testing.assert_array_equal(filled["interpolate"], np.arange(40.0))
    expected = np.arange(40.0)
    expected[[5, 6, 20, 12]] = [4, 4, 19, 11]
    np.testing.assert_array_equal(filled["ffill"], expected)


@pytest.mark.parametrize("fill", ["ffill", "interpolate"])
def test_leading_missing_cells_start_the_series_later(tmp_path: Path, fill: Fill) -> None:
    late: list[object] = [None] * 12 + [float(i) for i in range(12, 40)]
    path = wide(tmp_path / "t.csv", b=late)
    table = Table(path, fill=fill)
    series = only_series(table)
    assert table.notes == [f"{path}: starts at 2024-03-01 12:00, the first value of b: the 12 rows before are left out"]
    np.testing.assert_array_equal(series.values[:, 1], np.arange(12.0, 40))
    np.testing.assert_array_equal(series.values[:, 0], np.arange(12, 40) * 1.5)
    assert series.timestamps[0] == np.datetime64("2024-03-01T12:00")
    assert series.boundaries == (20, 22, 28)
    # Later values change nothing before them.
    other = only_series(Table(wide(tmp_path / "o.csv", b=[*late[:20], *([999.0] * 20)]), fill="ffill"))
    np.testing.assert_array_equal(other.values[:8], series.values[:8])


def test_trailing_missing_cells_repeat_the_last_value(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv", b=[*[float(i) for i in range(33)], *([None] * 7)])
    table = Table(path, fill="ffill")
    np.testing.assert_array_equal(only_series(table).values[32:, 1], [32.0] * 8)
    assert table.notes == [
        f"{path}: 7 missing values filled, data.fill=ffill",
        f"{path}: b ends at 2024-03-02 08:00: its last value is repeated in the 7 rows after it",
    ]


def test_series_of_a_panel_start_at_their_own_first_values(tmp_path: Path) -> None:
    sales: list[object] = [float(i) for i in range(54)]
    path = long(tmp_path / "long.csv", sales=[None if i < 4 else value for i, value in enumerate(sales)])
    table = Table(path, LONG, fill="ffill")
    s1, s2 = table.load()  # rows 0 to 5 of the table are of s2 alone
    assert (len(s1.values), len(s2.values)) == (24, 26)
    assert table.notes == [
        f"{path}: series 's2': starts at 2024-03-01 04:00, the first value of sales: the 4 rows before are left out"
    ]
    message = error_line(Table(wide(tmp_path / "w.csv", b=[*([None] * 39), 1.0]), fill="ffill"))
    assert "column b has its first value at 2024-03-02 15:00, which leaves 1 rows; a series needs at least 3" in message
    empty = Table(wide(tmp_path / "e.csv", b=[None] * 40), fill="ffill")
    assert "column b is empty; remove it" in error_line(empty)


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("n/a", "1 cells are not finite numbers, first 'n/a' in row 4 (2024-03-01 03:00)"),
        ("inf", "'inf' in row 4"),
        ("NaN", "'NaN'"),
    ],
)
def test_non_numeric_cell_is_an_error(tmp_path: Path, cell: str, part: str) -> None:
    values: list[object] = [str(i) for i in range(40)]
    values[3] = cell
    assert part in error_line(Table(wide(tmp_path / "t.csv", a=values)))


@pytest.mark.parametrize(
    ("stamps", "time_format", "part"),
    [
        ([f"{d:02}.03.2024" for d in range(1, 31)], None, "'01.03.2024' in row 1 is not a timestamp in ISO 8601"),
        ([str(1_700_000_000 + 60 * i) for i in range(30)], None, 'seconds since 1970? Set data.time_format="%s"'),
        ([f"2024-03-{d:02}" for d in range(1, 30)] + ["soon"], None, "'soon' in row 30"),
        ([f"2024-03-{d:02}" for d in range(1, 31)], "%d/%m/%Y", "not a timestamp in data.time_format=%d/%m/%Y"),
        (
            [f"2024-03-{d:02}" for d in range(1, 30)] + ["2024-03-30 07:00"],
            None,
            "1 times are not on the 1d grid from 2024-03-01, first 2024-03-30 07:00",
        ),
    ],
)
def test_invalid_or_irregular_timestamps(tmp_path: Path, stamps: list[str], time_format: str | None, part: str) -> None:
    path = write(tmp_path / "t.csv", {"date": list(stamps), "a": list(range(30))})
    assert part in error_line(Table(path, time_format=time_format))


@pytest.mark.parametrize(
    ("stamps", "time_format", "season"),
    [
        ([f"{d:02}.03.2024" for d in range(1, 31)], "%d.%m.%Y", 7),
        ([f"2024-03-01T{i // 60:02}:{i % 60:02}:00+01:00" for i in range(0, 450, 15)], None, 96),
        ([f"{2020 + i // 12}-{i % 12 + 1:02}-01" for i in range(30)], None, 12),
        ([str(1_700_000_000 + 60 * i) for i in range(30)], "%s", 1440),
    ],
)
def test_timestamp_formats(tmp_path: Path, stamps: list[str], time_format: str | None, season: int) -> None:
    table = Table(write(tmp_path / "t.csv", {"date": list(stamps), "a": list(range(30))}), time_format=time_format)
    series = only_series(table)
    assert table.seasonal_period == season
    assert len(series.timestamps) == 30
    if "T" in stamps[0]:  # in UTC
        assert series.timestamps[0] == np.datetime64("2024-02-29T23:00:00")


def test_splits_by_rows_from_the_end_of_each_series(tmp_path: Path) -> None:
    content = {"date": [*range(40), *range(30)], "s": ["a"] * 40 + ["b"] * 30, "y": [1.0] * 70}
    roles = ColumnRoles(id="s", target=("y",))
    series = Table(pl.DataFrame(content), roles, split=SplitPoints(-12, -5)).load()
    assert [each.boundaries for each in series] == [(28, 35, 40), (18, 25, 30)]
    mixed = Table(pl.DataFrame(content), roles, split=SplitPoints(0.5, -5)).load()
    assert [each.boundaries for each in mixed] == [(20, 35, 40), (15, 25, 30)]
    message = error_line(Table(pl.DataFrame(content), roles, split=SplitPoints(-31, -5)))
    assert "series 'b': 30 rows, 0 to 29, split at 0 and 25; every split needs rows" in message
    kept = Table(pl.DataFrame(content), roles, split=SplitPoints(-31, -5), keep_short=True).load()
    assert [each.boundaries for each in kept] == [(9, 35, 40), (0, 25, 30)]


def test_splits_by_fraction_and_by_date(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv")
    assert Table(path, split=SplitPoints(0.5, 0.75)).load()[0].boundaries == (20, 30, 40)
    assert Table(path, split=SplitPoints("2024-03-01 10:00", "2024-03-02")).load()[0].boundaries == (10, 24, 40)
    with pytest.raises(
        InputError, match=r"data\.train_end and data\.validation_end: expected a fraction or a time.*, got 'May'"
    ):
        Table(path, split=SplitPoints("May", 0.9)).load()
    assert "every split needs rows" in error_line(Table(path, split=SplitPoints(0.5, 0.5)))


def test_missing_columns_and_files(tmp_path: Path) -> None:
    path = wide(tmp_path / "t.csv")
    assert error_line(Table(path, ColumnRoles(time="time"))).endswith(
        "no column 'time'; found date, a, b. Set data.time."
    )
    assert "no column 'c'; found date, a, b. Set data.target." in error_line(Table(path, ColumnRoles(target=("c",))))
    with pytest.raises(InputError, match=r"no such file; set data\.path"):
        Table(tmp_path / "nothing.csv").prepare()
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    assert "not a readable Parquet file" in error_line(Table(tmp_path / "bad.parquet"))
    assert "2 distinct times" in error_line(Table(wide(tmp_path / "short.csv", 2)))


def test_a_table_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{stamp:%Y-%m-%d %H:%M};1.{100 + i},25;{i},5" for i, stamp in enumerate(hours(40))]
    path.write_bytes("\r\n".join(["date;a;b", *rows]).encode("utf-8-sig"))
    table = Table(path)
    series = only_series(table)
    np.testing.assert_array_equal(series.values, np.column_stack([np.arange(1100.25, 1140), np.arange(0.5, 40)]))
    assert table.notes == [
        f"{path}: columns are separated by ';' (data.separator)",
        f"{path}: numbers are read with a decimal ',' and '.' between thousands (data.decimal, data.thousands)",
    ]
    inferred = Table(path, fill="missing", infer_roles=True)
    np.testing.assert_array_equal(only_series(inferred).values, series.values)
    named = Table(path, text_format=TextFormat(";", "utf-8-sig", ",", "."))
    np.testing.assert_array_equal(only_series(named).values, series.values)
    assert named.notes == []
    assert "cells are not finite numbers, first '1.100,25'" in error_line(
        Table(path, text_format=TextFormat(decimal=",", thousands="space"))
    )


def test_a_table_that_is_not_utf8_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{stamp:%Y-%m-%d %H:%M},{i}" for i, stamp in enumerate(hours(40))]
    path.write_bytes("\n".join(["date,Größe", *rows]).encode("cp1252"))
    hint = "; set data.encoding, such as cp1252 (Windows, Western Europe)"
    assert error_line(Table(path)).endswith(f"expected UTF-8 text, got a header with bytes that are not{hint}")
    assert only_series(Table(path, text_format=TextFormat(encoding="cp1252"))).channels == ["Größe"]


def test_text_covariates_are_categories(tmp_path: Path) -> None:
    holidays = [None if i % 3 else "Easter" if i % 2 else " New Year" for i in range(40)]
    path = wide(tmp_path / "t.csv", h=list(holidays), p=[f"{i % 2}" for i in range(40)])
    roles = ColumnRoles(target=("a",), past=("h",), known=("p",))
    table = Table(path, roles)
    covariates = only_series(table).covariates
    assert covariates.past["h"].tolist() == [(name or "").strip() for name in holidays]
    assert covariates.known["p"].tolist() == [i % 2 for i in range(40)]
    assert table.notes == [f"{path}: column h: 26 empty cells are a category of their own"]
    chosen = only_series(Table(path, roles, categories={"h", "p"})).covariates  # as a trained model has it
    assert chosen.known["p"].tolist() == [f"{i % 2}" for i in range(40)]
    few = wide(tmp_path / "f.csv", h=[i if i else "n/a" for i in range(40)])
    assert "column h: 1 cells are not finite numbers, first 'n/a'" in error_line(Table(few, roles._replace(known=())))


@pytest.mark.parametrize("fill", ["ffill", "interpolate"])
def test_a_category_in_a_gap_is_the_one_before(tmp_path: Path, fill: Fill) -> None:
    kept = [i for i in range(40) if i not in (5, 6)]
    columns = {"date": [hours(40)[i] for i in kept], "a": kept, "h": ["x" if i < 5 else "y" for i in kept]}
    roles = ColumnRoles(target=("a",), known=("h",))
    series = only_series(Table(write(tmp_path / "t.csv", columns), roles, fill=fill))
    assert series.covariates.known["h"].tolist() == ["x"] * 7 + ["y"] * 33
    assert series.values[4:8, 0].tolist() == ([4, 4, 4, 7] if fill == "ffill" else [4, 5, 6, 7])
