"""Windows per second of the window loader and of a per-sample Dataset in torch's DataLoader, at batch size 32.

Both give shuffled batches of the same content: context, target and the window's position. The peer is the common design
of published repositories: `__getitem__` slices one window out of a numpy array, the default collate stacks them.
"""

import statistics
import time
from collections.abc import Iterable

import numpy as np
import torch
from record import record
from torch.utils.data import DataLoader, Dataset

from datamodules.time_series.windows import WindowLoader, Windows

ROWS, CHANNELS, BATCH = 8640, 7, 32


class PerSample(Dataset):
    """Dataset with one window per item."""

    def __init__(self, values: np.ndarray, context_length: int, horizon: int) -> None:
        self.values, self.context_length, self.horizon = values, context_length, horizon

    def __len__(self) -> int:
        return len(self.values) - self.context_length - self.horizon + 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, int]:
        middle = index + self.context_length
        return self.values[index:middle], self.values[middle : middle + self.horizon], index


def seconds_per_epoch(loader: Iterable) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    values = np.random.default_rng(0).normal(size=(ROWS, CHANNELS)).astype(np.float32)
    figures = []
    for context_length, horizon in ((96, 96), (336, 96), (512, 96), (512, 720)):
        windows = Windows(values, context_length, horizon)
        ours = WindowLoader(windows, BATCH, shuffle=True)
        peer = DataLoader(PerSample(values, context_length, horizon), batch_size=BATCH, shuffle=True)
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(7):
            seconds["ours"].append(seconds_per_epoch(ours))
            seconds["peer"].append(seconds_per_epoch(peer))
        rates = {name: round(len(windows) / statistics.median(s)) for name, s in seconds.items()}
        ratio = round(rates["ours"] / rates["peer"], 1)
        print(
            f"context {context_length}, horizon {horizon}: {rates['ours']:,} windows/s, "
            f"per-sample {rates['peer']:,} windows/s, ratio {ratio}"
        )
        figures.append({"context_length": context_length, "horizon": horizon, **rates, "ratio": ratio})
    record("loader", figures)


if __name__ == "__main__":
    main()
