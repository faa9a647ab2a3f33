"""What a run says on the console and shows in a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from datamodules.forecasting import ForecastingDataModule
from titans_seq.plots import plot_forecasts
from titans_seq.tasks.forecasting import ForecastingTask

_WINDOWS, _CHANNELS, _HISTORY_SEASONS = 3, 3, 7


def format_table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]) -> str:
    """Rows of named numbers as aligned text; columns map the numbers' keys to their headings."""
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{heading:>12}" for heading in columns.values())]
    for name, numbers in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{numbers[key]:>12.4f}" for key in columns))
    return "\n".join(lines)


@torch.inference_mode()
def draw_forecasts(task: ForecastingTask, data: ForecastingDataModule, path: Path) -> None:
    """Draw a few test windows, evenly spaced, in the source's units; the last channels, OT or oil among them."""
    windows = data.windows("test")
    starts = np.linspace(0, len(windows) - 1, _WINDOWS + 2).astype(np.int64)[1:-1]
    batch = windows[starts]
    task.eval()
    forecast = task(batch.context.to(task.device)).cpu()

    shown = min(data.context_length, _HISTORY_SEASONS * data.source.season)
    first_row = data.rows("test")[0] + data.context_length - shown
    keep = slice(-_CHANNELS, None)
    history, truth, future = (
        data.scaler.inverse(x.double().numpy())[..., keep] for x in (batch.context[:, -shown:], batch.target, forecast)
    )
    source = "simulated data" if data.source.simulated else "test windows"
    plot_forecasts(
        path,
        timestamps=[data.series.timestamps[first_row + s :][: shown + data.horizon] for s in starts],
        history=history,
        truth=truth,
        forecast=future,
        channels=data.series.channels[keep],
        title=f"{data.series.name}, horizon {data.horizon} ({source})",
    )
