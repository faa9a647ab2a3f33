"""The four real ETT datasets against an independent numpy implementation of the standard protocol."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from datamodules.common.splitting import Split
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.ett import ETT
from datamodules.time_series.series import read_csv
from tests.helpers import ETT_CHANNELS, ett_rows, write_ett
from titans_seq.errors import InputError

ETT_DATASETS = ["ETTh1", "ETTh2", "ETTm1", "ETTm2"]
HORIZONS = [96, 192, 336, 720]
# End rows of train, validation and test, and the published numbers of test windows.
BORDERS = {"h": (8640, 11520, 14400), "m": (34560, 46080, 57600)}
TEST_WINDOWS = {"h": (2785, 2689, 2545, 2161), "m": (11425, 11329, 11185, 10801)}


@cache
def raw(path: Path) -> np.ndarray:
    """Columns after `date`, as numpy reads them."""
    return np.genfromtxt(path, delimiter=",", skip_header=1, usecols=range(1, 8), dtype=np.float64)


def data_module(
    root: Path, name: str, context_length: int, horizon: int, batch_size: int = 256
) -> ForecastingDataModule:
    data = ForecastingDataModule(
        ETT(name, str(root)), context_length=context_length, horizon=horizon, batch_size=batch_size
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="module", params=ETT_DATASETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def split_rows(name: str, split: Split, length: int) -> tuple[int, int]:
    train, validation, test = BORDERS[name[3]]
    return {"train": (0, train), "validation": (train - length, validation), "test": (validation - length, test)}[split]


def test_windows_of_all_splits_equal_an_independent_computation(data_root: Path, name: str) -> None:
    length, horizon = 96, 96
    values = raw(data_root / "ETT-small" / f"{name}.csv")
    train = values[: BORDERS[name[3]][0]]
    mean = train.mean(axis=0)
    z_scores = (values - mean) / np.sqrt(((train - mean) ** 2).mean(axis=0))

    data = data_module(data_root, name, length, horizon)
    loaders = {"train": data.train_dataloader(), "validation": data.val_dataloader(), "test": data.test_dataloader()}
    for split, loader in loaders.items():
        first, end = split_rows(name, split, length)  # type: ignore[arg-type]
        expected = sliding_window_view(z_scores[first:end], length + horizon, axis=0).transpose(0, 2, 1)
        seen = 0
        for batch in loader:
            both = np.concatenate([batch.context.numpy(), batch.target.numpy()], axis=1)
            # rtol allows one rounding to float32; atol covers z-scores so near zero that float64 rounding shows.
            np.testing.assert_allclose(both, expected[batch.start.numpy()], rtol=2**-23, atol=1e-13)
            seen += len(both)
        assert seen == len(expected)


@pytest.mark.parametrize("context_length", [96, 512])
def test_window_counts_equal_the_published_ones(data_root: Path, name: str, context_length: int) -> None:
    data = data_module(data_root, name, context_length, horizon=96)
    train, validation, test = BORDERS[name[3]]
    for horizon, published in zip(HORIZONS, TEST_WINDOWS[name[3]], strict=True):
        data.horizon = horizon
        assert len(data.windows("test")) == published == test - validation - horizon + 1
        assert len(data.windows("validation")) == validation - train - horizon + 1
        assert len(data.windows("train")) == train - context_length - horizon + 1
    counted = sum(len(batch.start) for batch in data.test_dataloader())
    assert counted == published, "the loader dropped the last batch"


def test_timestamps_and_channels_equal_the_file(data_root: Path, name: str) -> None:
    path = data_root / "ETT-small" / f"{name}.csv"
    stamps = np.loadtxt(path, delimiter=",", skiprows=1, usecols=0, dtype="datetime64[s]")
    series = ETT(name, str(data_root)).load()
    assert (series.timestamps == stamps).all()
    assert series.channels == path.read_text().partition("\n")[0].split(",")[1:] == ETT_CHANNELS
    assert (series.values == raw(path)).all()


def test_seasonal_period_is_a_day(data_root: Path, name: str) -> None:
    source = ETT(name, str(data_root))
    stamps = source.load().timestamps
    assert stamps[source.seasonal_period] - stamps[0] == np.timedelta64(1, "D")


def test_file_directly_in_the_root_is_found(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "ETTh1.csv").write_bytes((data_root / "ETT-small" / "ETTh1.csv").read_bytes())
    assert (ETT("ETTh1", str(tmp_path)).load().values == raw(data_root / "ETT-small" / "ETTh1.csv")).all()


def test_one_changed_digit_is_an_error(tmp_path: Path, data_root: Path) -> None:
    text = (data_root / "ETT-small" / "ETTh1.csv").read_text()
    head, digit, tail = text[:5000], text[5000], text[5001:]
    assert digit.isdigit()
    write_ett(tmp_path, []).write_text(f"{head}{(int(digit) + 1) % 10}{tail}")
    with pytest.raises(InputError, match=r"ETTh1\.csv: sha256"):
        ETT("ETTh1", str(tmp_path)).load()


def test_dataset_under_another_name_is_an_error(tmp_path: Path, data_root: Path) -> None:
    write_ett(tmp_path, []).write_bytes((data_root / "ETT-small" / "ETTh2.csv").read_bytes())
    with pytest.raises(InputError, match="not ETTh1"):
        ETT("ETTh1", str(tmp_path)).load()


def test_error_of_a_faulty_cell_names_line_timestamp_column_and_count(tmp_path: Path) -> None:
    rows = [row.split(",") for row in ett_rows(9)]
    rows[3][2], rows[7][2] = "n/a", ""
    path = write_ett(tmp_path, [",".join(row) for row in rows])
    with pytest.raises(InputError, match=r"line 5 \(2016-07-01 03:00:00\), column HULL: 'n/a'.*2 such cells"):
        read_csv(path)


def test_invalid_date_is_an_error(tmp_path: Path) -> None:
    rows = ett_rows(9)
    rows[4] = rows[4].replace("2016-07-01", "2016-13-01")
    with pytest.raises(InputError, match=r"line 6, column date: '2016-13-01 04:00:00' is not a timestamp"):
        read_csv(write_ett(tmp_path, rows))
