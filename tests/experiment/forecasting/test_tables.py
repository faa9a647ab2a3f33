"""Tables of forecasts: local times of a zone, integers."""

from pathlib import Path

import numpy as np
import polars as pl

from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datasets.table import Table
from datamodules.time_series.steps import times_after
from titans_seq.experiment.forecasting.tables import long_table
from titans_seq.experiment.run.output import write_table


def test_outputs_are_in_local_time_with_the_offset(tmp_path: Path) -> None:
    last = np.array(["2021-10-30T23:00"], dtype="datetime64[us]")
    times = times_after(last, "1h", 3, "Europe/Berlin").to_numpy()
    table = long_table(["y"], times[None], last, np.zeros((1, 3, 1, 1)), (), timezone="Europe/Berlin")
    write_table(table, tmp_path / "t.csv")
    read_again = pl.read_csv(tmp_path / "t.csv", infer_schema=False)
    assert read_again["timestamp"].to_list() == [
        "2021-10-31 02:00:00+02:00", "2021-10-31 02:00:00+01:00", "2021-10-31 03:00:00+01:00"
    ]  # fmt: skip
    assert read_again["origin"][0] == "2021-10-31 01:00:00+02:00"
    (series,) = Table(tmp_path / "t.csv", ColumnRoles("timestamp", ("step",)), timezone="Europe/Berlin").read()
    np.testing.assert_array_equal(series.timestamps, times)


def test_integers_stay_integers(tmp_path: Path) -> None:
    times = times_after(np.array([0, 5, 10]), "5i", 2).to_numpy()
    table = long_table(["y"], times[None], np.array([10]), np.zeros((1, 2, 1, 1)), ())
    write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["15,y,10,1,0.0", "20,y,10,2,0.0"]
