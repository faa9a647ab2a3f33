"""Cells that are errors of the data."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datamodules.time_series.columns import ColumnRoles, Fill
from datamodules.time_series.datasets.table import Table
from datamodules.time_series.outliers import remove_outliers

RNG = np.random.default_rng(0)
WAVE = 100 + 20 * np.sin(np.arange(300) * 2 * np.pi / 7) + RNG.normal(size=300)


def outlying(values: np.ndarray, ratio: float = 1000) -> list[int]:
    rows, found = remove_outliers(pl.DataFrame({"y": values}), ["y"], ratio)
    assert rows["y"].is_null().to_numpy().nonzero()[0].tolist() == [each.row for each in found]
    return [each.row for each in found]


def with_cells(values: np.ndarray, **cells: float) -> np.ndarray:
    changed = values.astype(np.float64)
    for row, value in cells.items():
        changed[int(row[1:])] = value
    return changed


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        (with_cells(WAVE, r50=1e12, r70=-1e6), [50, 70]),
        (with_cells(WAVE, r50=2000), []),  # a peak
        (with_cells(WAVE, **{f"r{i}": 1e6 for i in range(4)}), []),  # more than one in a hundred: a pattern
        (np.exp(2 * RNG.normal(size=5000)), []),  # heavy tails
        (np.cumsum(RNG.normal(size=2000)), []),
        (1.03 ** np.arange(300), []),
        (np.zeros(300), []),
        (with_cells(np.zeros(300), r5=3), []),
        (with_cells(RNG.poisson(0.04, 300), r5=1e9), [5]),  # nearly all zero
        (with_cells(WAVE[:10], r5=1e12), []),  # too few values
    ],
)
def test_cells_far_from_all_others(values: np.ndarray, rows: list[int]) -> None:
    assert outlying(values) == rows


def test_empty_cells_stay_empty() -> None:
    rows, found = remove_outliers(pl.DataFrame({"y": [None, *WAVE[1:], 1e12]}), ["y"], 1000)
    assert rows["y"].is_null().to_numpy().nonzero()[0].tolist() == [0, 300]
    assert [each.row for each in found] == [300]


def test_the_ratio_is_in_widths_between_quantiles() -> None:
    values = np.tile(np.arange(21.0), 20)  # median 10, 5 % quantile 1, 95 % quantile 19
    for distance, rows in ((18 * 50 - 9, []), (18 * 50 + 9, [7])):
        assert outlying(with_cells(values, r7=10 + distance), ratio=50) == rows


@pytest.mark.parametrize("fill", ["none", "ffill"])
def test_a_table_takes_the_value_before_and_names_the_cell(tmp_path: Path, fill: Fill) -> None:
    days = [str(date(2022, 1, 1) + timedelta(days=i)) for i in range(300)]
    parts = [
        pl.DataFrame({"date": days, "sku": sku, "y": values, "note": "none", "price": price})
        for sku, values, price in (
            ("A", WAVE, with_cells(np.tile([1.0, 2.0], 150), r9=4e7)),
            ("B", with_cells(WAVE, r50=1e12), np.tile([1.0, 2.0], 150)),
        )
    ]
    pl.concat(parts).write_csv(tmp_path / "t.csv")
    roles = ColumnRoles(id="sku", target=("y",), known=("price", "note"))
    table = Table(tmp_path / "t.csv", roles, fill=fill, outliers=1000)
    a, b = table.load()
    np.testing.assert_array_equal(a.values[:, 0], WAVE)
    np.testing.assert_array_equal(b.values[:, 0], with_cells(WAVE, r50=WAVE[49]))
    assert a.covariates.known["price"].tolist() == with_cells(np.tile([1.0, 2.0], 150), r9=1).tolist()
    reason = "more than 1000 times as far from the median as usual values: read as missing (data.outliers)"
    assert [note for note in table.notes if "read as missing" in note] == [
        f"{table.path}: series 'A': price is 40000000 at 2022-01-10, {reason}",
        f"{table.path}: series 'B': y is 1e+12 at 2022-02-20, {reason}",
    ]
    kept = Table(tmp_path / "t.csv", roles, fill=fill)
    assert kept.load()[1].values[50, 0] == 1e12


def test_the_first_cell_takes_the_value_after(tmp_path: Path) -> None:
    days = [str(date(2022, 1, 1) + timedelta(days=i)) for i in range(300)]
    pl.DataFrame({"date": days, "y": with_cells(WAVE, r0=-1e9)}).write_csv(tmp_path / "t.csv")
    (series,) = Table(tmp_path / "t.csv", outliers=1000).load()
    assert series.values[:2, 0].tolist() == [WAVE[1], WAVE[1]]
