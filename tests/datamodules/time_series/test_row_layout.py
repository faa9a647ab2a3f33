"""Tables in M4's layout: one row per series, without times."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datasets.table import SplitPoints, Table
from titans_seq.errors import InputError


def write(path: Path, lengths: dict[str, int]) -> Path:
    """Write series of the given lengths, with empty cells after their last values, as M4's files have them."""
    width = max(lengths.values())
    lines = [",".join(f'"V{i + 1}"' for i in range(width + 1))]
    for k, (name, length) in enumerate(lengths.items()):
        cells = [str(100 * k + i) for i in range(length)] + [""] * (width - length)
        lines.append(",".join([f'"{name}"', *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_row_is_a_series_without_its_empty_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "Hourly-train.csv", {"H1": 30, "H2": 45, "H10": 31})
    table = Table(path, ColumnRoles(id="V1"), split=SplitPoints(-10, -5), seasonal_period=24)
    panel = {series.name: series for series in table.load()}
    assert {name: len(series.values) for name, series in panel.items()} == {"H1": 30, "H2": 45, "H10": 31}
    np.testing.assert_array_equal(panel["H2"].values[:, 0], 100 + np.arange(45))
    np.testing.assert_array_equal(panel["H2"].timestamps, np.arange(1, 46))
    assert panel["H10"].boundaries == (21, 26, 31)
    assert table.seasonal_period == 24
    assert "one row per series, without times: values are numbered from 1; data.season sets" in table.notes[0]


def test_layout_and_text_format_go_together(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    header = ";".join(f"V{i + 1}" for i in range(21))
    path.write_text("\n".join([header, *(";".join([name, *(f"{i},25" for i in range(20))]) for name in "ab")]))
    for roles, infer in ((ColumnRoles(id="V1"), False), (ColumnRoles(), True)):
        table = Table(path, roles, infer_roles=infer)
        for series in table.read():
            np.testing.assert_array_equal(series.values[:, 0], np.arange(20) + 0.25)
        assert len(table.notes) == 3  # separator, decimal mark, layout


def test_roles_of_the_layout(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", {"H1": 30, "H2": 45})
    (first, _) = Table(path, infer_roles=True).read()
    assert (first.name, len(first.values)) == ("H1", 30)
    with pytest.raises(InputError, match=r"m.csv: one row per series, without times, as in M4\? Set data.id=V1."):
        Table(path).read()
    with pytest.raises(InputError, match=r"no columns for data.target, past, known or static"):
        Table(path, ColumnRoles(id="V1", known=("V3",))).read()


def test_missing_values_within_a_series_are_reported(tmp_path: Path) -> None:
    frame = pl.DataFrame({"V1": ["a", "b"], **{f"V{i}": [1.0, None if i == 5 else 2.0] for i in range(2, 20)}})
    with pytest.raises(InputError, match=r"column value: 1 empty cells, first in row \d+ \(4\)"):
        Table(frame, ColumnRoles(id="V1")).read()
