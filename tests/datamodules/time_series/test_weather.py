"""The Weather dataset against an independent numpy computation, and the handling of its -9999 cells."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.datasets.weather import ROWS, Weather
from titans_seq.errors import InputError

TEST_WINDOWS = {96: 10444, 192: 10348, 336: 10204, 720: 9820}
NOT_MEASURED = {11: 1, 18: 30, 20: 50}  # channels wv, max. PAR and OT: cells of -9999


@pytest.fixture(scope="module")
def raw(data_root: Path) -> np.ndarray:
    path = data_root / "weather" / "weather.csv"
    return np.genfromtxt(path, delimiter=",", skip_header=1, usecols=range(1, 22), dtype=np.float64, encoding="utf-8")


def data_module(root: Path, horizon: int, mask_missing: bool = False) -> ForecastingDataModule:
    data = ForecastingDataModule(Weather(str(root), mask_missing), context_length=96, horizon=horizon, batch_size=512)
    data.setup()
    return data


@pytest.mark.parametrize("horizon", TEST_WINDOWS)
def test_number_of_test_windows(data_root: Path, horizon: int) -> None:
    assert len(data_module(data_root, horizon).windows("test")) == TEST_WINDOWS[horizon]


def test_z_scores_and_splits_equal_an_independent_computation(data_root: Path, raw: np.ndarray) -> None:
    train = raw[:36887]
    z_scores = (raw - train.mean(0)) / np.sqrt(((train - train.mean(0)) ** 2).mean(0))
    data = data_module(data_root, 96)
    for loader, first, end in (
        (data.train_dataloader(), None, None),
        (data.val_dataloader(), 36887 - 96, 42157),
        (data.test_dataloader(), 42157 - 96, 52696),
    ):
        batch = next(iter(loader))
        if first is not None:
            np.testing.assert_allclose(batch.context[3], z_scores[first + 3 : first + 99], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(batch.target[0], z_scores[first + 96 : first + 192], rtol=1e-4, atol=1e-5)
            assert len(loader.windows) == end - first - 191  # type: ignore[operator]


def test_missing_cells_are_kept_or_filled(data_root: Path, raw: np.ndarray) -> None:
    missing = raw == -9999
    assert {c: int(n) for c, n in enumerate(missing.sum(0)) if n} == NOT_MEASURED
    assert missing[36887:].sum() == 0
    kept, filled = (Weather(str(data_root), mask) for mask in (False, True))
    assert np.array_equal(kept.load().values, raw)
    values = filled.load().values
    assert np.array_equal(values[~missing], raw[~missing])
    for row, channel in np.argwhere(missing):
        before = row - 1
        while missing[before, channel]:
            before -= 1
        assert values[row, channel] == raw[before, channel]
    (note,) = kept.notes
    assert "81 training cells of -9999 are kept" in note
    assert "wv (m/s) by 31" in note  # 52.10 over 1.67
    assert "OT by 21" in note  # 383.96 over 18.18
    (note,) = filled.notes
    assert "not comparable with published numbers" in note


def test_file_of_another_dataset_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TITANS_SEQ_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"no direct download.*https://github.com/thuml/Autoformer.*set data.root"):
        Weather().prepare()
    (tmp_path / "weather.csv").write_text("date,a\n2020-01-01 00:10:00,1\n")
    with pytest.raises(InputError, match=f"1 rows of 1 values, Weather has {ROWS} of 21"):
        Weather(str(tmp_path)).load()
