"""Splits of a table by rows or horizons from the end of each series."""

from titans_seq.config import load_config
from titans_seq.experiment.forecasting.data import build_table
from titans_seq.schema import ForecastingConfig


def test_horizons_from_the_end_are_rows() -> None:
    words = ["data.name=table", "data.path=x.csv", "data.horizon=7", "data.train_end=-4 horizons"]
    config = load_config((), [*words, "data.validation_end=-1horizon"])
    assert isinstance(config, ForecastingConfig)
    assert build_table(config.data).split == (-28, -7)
