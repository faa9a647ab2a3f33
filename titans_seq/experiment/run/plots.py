"""The training curve of a run, from the rows of metrics.csv."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import Panel, plot_panels

_LOSSES = {"train/loss": "training", "val/loss": "validation"}
_GATES = ("lr", "momentum", "forget")
_Line = tuple[NDArray[Any], NDArray[Any]]


def plot_training(path: Path, rows: Sequence[Mapping[str, str]], monitor: str, mode: str) -> bool:
    """Plot loss, validation metric, learning rate and the memory's gates, as far as they were logged, against steps.

    `monitor` is the metric that selects the checkpoint; its best value (`mode`: min or max) is marked. Returns False,
    and draws nothing, for a run without training steps, such as that of an untrained baseline.
    """
    rates = [name for row in rows for name in row if name.startswith("lr-")]
    losses = {label: line for key, label in _LOSSES.items() if (line := _line(rows, key))}
    rate = _line(rows, rates[0]) if rates else None
    if rate is None and "training" not in losses:
        return False
    panels = [Panel("loss" if len(losses) > 1 else f"{next(iter(losses))} loss", losses)] if losses else []
    if metric := _line(rows, monitor):
        steps, values = metric
        best = int(values.argmin() if mode == "min" else values.argmax())
        panels.append(Panel(monitor, {monitor: metric}, {f"best {values[best]:.4g}": steps[best]}, markers=True))
    if rate is not None:
        panels.append(Panel("learning rate", {"learning rate": rate}))
    gates = {gate: line for gate in _GATES if (line := _mean_over_layers(rows, gate))}
    if gates:
        panels.append(Panel("gates\n(mean over layers)", gates, logarithmic=all(min(y) > 0 for _, y in gates.values())))
    plot_panels(path, panels, title="Training", xlabel="optimiser step")
    return True


def _line(rows: Sequence[Mapping[str, str]], name: str) -> _Line | None:
    """Steps and finite values of a column; None without any."""
    points = [(int(row["step"]), float(row[name])) for row in rows if name in row]
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    return np.array(steps), np.array(values)


def _mean_over_layers(rows: Sequence[Mapping[str, str]], gate: str) -> _Line | None:
    """Steps and a gate's mean over the memory layers, whose columns are memory/<layer>/<gate>."""
    means = []
    for row in rows:
        found = [float(x) for name, x in row.items() if name.startswith("memory/") and name.endswith(f"/{gate}")]
        if found:
            means.append({"step": row["step"], gate: str(sum(found) / len(found))})
    return _line(means, gate)
