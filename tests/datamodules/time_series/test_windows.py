"""Windows, their order and splits, on series in which every value identifies its row."""

from math import ceil

import numpy as np
import pytest
import torch

from datamodules.common.splitting import Split
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.series import Scaler, Series, SplitBoundaries
from datamodules.time_series.windows import WindowLoader, Windows
from titans_seq.batch import ForecastBatch
from titans_seq.errors import InputError

CHANNELS = 3


def counting(rows: int) -> np.ndarray:
    """Values (rows, channels): 10 r + c in row r and channel c, exact in float32."""
    return 10.0 * np.arange(rows)[:, None] + np.arange(CHANNELS)


class Counting:
    """A source of 100 rows of `counting`; the last five are in no split."""

    seasonal_period = 4
    simulated = True

    def prepare(self) -> None: ...

    def load(self) -> Series:
        stamps = np.datetime64("2020-01-01T00", "h") + np.arange(100).astype("timedelta64[h]")
        return Series(
            "counting", stamps, ["a", "b", "c"], counting(100), SplitBoundaries(train=60, validation=75, test=95)
        )


def data_module(context_length: int, horizon: int, batch_size: int = 4) -> ForecastingDataModule:
    data = ForecastingDataModule(
        Counting(), context_length=context_length, horizon=horizon, batch_size=batch_size, seed=3
    )
    data.prepare_data()
    data.setup()
    return data


def joined(loader: WindowLoader) -> ForecastBatch:
    return ForecastBatch(*(torch.cat(parts) for parts in list(zip(*loader, strict=True))[:3]))


@pytest.mark.parametrize(("length", "horizon"), [(1, 1), (5, 3), (1, 19), (20, 1)])
def test_window_is_its_context_rows_and_the_rows_after_them(length: int, horizon: int) -> None:
    values = counting(21)
    windows = Windows(values, length, horizon)
    assert len(windows) == 21 - length - horizon + 1
    batch = windows[np.arange(len(windows))]
    for i in range(len(windows)):
        torch.testing.assert_close(batch.context[i], torch.tensor(values[i : i + length]).float(), rtol=0, atol=0)
        after = values[i + length : i + length + horizon]
        torch.testing.assert_close(batch.target[i], torch.tensor(after).float(), rtol=0, atol=0)
        assert batch.start[i] == i


def test_batch_is_a_writable_copy() -> None:
    values = counting(10).astype(np.float32)
    windows = Windows(values, 3, 2)
    windows[np.array([0, 1])].context.fill_(-1.0)
    assert (values == counting(10)).all()


def test_windows_of_a_column_major_array_are_the_same() -> None:
    index = np.arange(5)
    column_major = Windows(np.asfortranarray(counting(10)), 3, 2)[index]
    assert torch.equal(column_major.context, Windows(counting(10), 3, 2)[index].context)


def test_too_few_rows_for_one_window_is_an_error() -> None:
    assert len(Windows(counting(8), 5, 3)) == 1
    with pytest.raises(InputError, match=r"7 rows.*data\.context_length=5.*data\.horizon=3.*lower"):
        Windows(counting(7), 5, 3)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 16, 100])
def test_loader_yields_every_window_once_including_the_last_partial_batch(batch_size: int, shuffle: bool) -> None:
    windows = Windows(counting(20), 3, 2)  # 16 windows
    loader = WindowLoader(windows, batch_size, shuffle=shuffle, seed=1)
    sizes = [len(batch.start) for batch in loader]
    assert len(loader) == len(sizes) == ceil(16 / batch_size)
    assert set(sizes[:-1]) <= {batch_size}
    assert sum(sizes) == 16
    assert sorted(joined(loader).start.tolist()) == list(range(16))


@pytest.mark.parametrize("shuffle", [False, True])
def test_windows_and_their_order_do_not_depend_on_the_batch_size(shuffle: bool) -> None:
    windows = Windows(counting(50), 6, 2)
    reference = joined(WindowLoader(windows, 1, shuffle=shuffle, seed=1))
    for batch_size in (5, 16, 1000):
        other = joined(WindowLoader(windows, batch_size, shuffle=shuffle, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(reference[:3], other[:3], strict=True))


def epoch_order(seed: int, epoch: int) -> list[int]:
    loader = WindowLoader(Windows(counting(50), 6, 2), 8, shuffle=True, seed=seed)
    loader.sampler.set_epoch(epoch)
    order: list[int] = joined(loader).start.tolist()
    return order


def test_order_depends_on_seed_and_epoch_only() -> None:
    orders = {(seed, epoch): epoch_order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len({tuple(order) for order in orders.values()}) == len(orders), "two epochs or seeds have the same order"
    np.random.seed(0)  # the global generators must not matter
    torch.rand(3)
    assert all(epoch_order(seed, epoch) == order for (seed, epoch), order in orders.items())


def test_order_repeats_until_the_epoch_is_set() -> None:
    loader = WindowLoader(Windows(counting(50), 6, 2), 8, shuffle=True, seed=0)
    assert torch.equal(joined(loader).start, joined(loader).start)


def test_lightning_sets_the_epoch_of_the_loader() -> None:
    from lightning.pytorch import LightningModule, Trainer

    class Recorder(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.orders: dict[int, list[int]] = {}
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: ForecastBatch, batch_idx: int) -> torch.Tensor:
            self.orders.setdefault(self.current_epoch, []).extend(batch.start.tolist())
            return self.weight * 0

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    recorder, data = Recorder(), data_module(8, 4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **quiet).fit(recorder, data)  # type: ignore[arg-type]
    orders = list(recorder.orders.values())
    assert all(sorted(order) == list(range(60 - 8 - 4 + 1)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(("split", "first", "last"), [("train", None, 59), ("validation", 60, 74), ("test", 75, 94)])
@pytest.mark.parametrize("context_length", [1, 8, 40])
def test_targets_start_at_the_split_boundary_and_end_before_the_next(
    split: Split, first: int | None, last: int, context_length: int
) -> None:
    data = data_module(context_length, horizon=5)
    windows = data.windows(split)
    batch = windows[np.arange(len(windows))]
    rows = np.rint((data.scaler.inverse(batch.target.double().numpy())[..., 0]) / 10)
    # No rows precede the training split, so its first context starts at row 0.
    begin = context_length if first is None else first
    assert rows.min() == begin
    assert rows.max() == last
    assert len(windows) == last + 1 - begin - 5 + 1


def test_scaler_statistics_use_training_rows_only() -> None:
    data = data_module(8, 4)
    assert (data.scaler.mean == counting(60).mean(axis=0)).all()
    np.testing.assert_allclose(data.scaler.std, np.sqrt(((counting(60) - data.scaler.mean) ** 2).mean(0)), rtol=1e-15)


def test_scaler_is_invertible_and_finite_for_a_constant_channel() -> None:
    values = np.column_stack([np.full(9, 7.5), np.arange(9.0) ** 2])
    scaler = Scaler.fit(values)
    scaled = scaler.transform(values)
    assert (scaled[:, 0] == 0).all()
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaler.inverse(scaled), values, rtol=0, atol=1e-14)


def test_context_longer_than_the_rows_before_a_split_is_an_error() -> None:
    data = data_module(61, horizon=1)
    with pytest.raises(InputError, match=r"data\.context_length=61 exceeds the 60 rows before validation"):
        data.windows("validation")
