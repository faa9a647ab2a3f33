"""Conformal intervals of a run, and the file that keeps their margins.

n windows, H steps, C channels, Q quantiles; all z-scored. An interval reaches from the forecast, the median, down and
up by a margin times the model's own spread on that side (Kivaranovic et al., AISTATS 2020): the distance to the lower
and to the upper quantile of the widest central pair, and 1 for point forecasts. Each step, channel and series of the
validation windows has its own margins, see `margins`; other series have those of all series together.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.common.digest import digest_of_file
from titans_seq.errors import InputError
from titans_seq.system.files import write_atomically
from titans_seq.tasks.quantiles import central_pairs

FILE = "conformal.json"
_RELATIVE = "spread"  # the file's entry `unit`; files written before margins were relative have none
_LEAST_SIDE = 0.01  # of the width of the central pair: least spread on one side, for medians at an end of it
_LEAST_SPREAD = 1e-9
_Array = NDArray[np.float64]


class Calibration(NamedTuple):
    """Margins that turn forecasts, or their quantiles, into intervals."""

    coverages: list[float]  # nominal, ascending
    margins: _Array  # (coverages, H, C), or (coverages, n, H, C) for n windows; of series without their own
    quantiles: list[float]  # quantile levels of the calibrated forecasts; empty for point forecasts
    windows: int  # number of windows of the calibration
    series: Mapping[str, _Array] = MappingProxyType({})  # margins (coverages, H, C) by name of the series
    relative: bool = True  # margins are in units of the model's spread; False: z-scores, of older runs

    def for_series(self, name: str) -> "Calibration":
        """Return the calibration of one series."""
        return self._replace(margins=self.series.get(name, self.margins), series={})

    def for_windows(self, names: Sequence[str]) -> "Calibration":
        """Return the calibration of windows (n,) of the series `names`."""
        margins = [self.series.get(name, self.margins) for name in names]
        return self._replace(margins=np.stack(margins, axis=1), series={})

    def for_steps(self, steps: int) -> "Calibration":
        """Return the calibration for `steps` steps: margins are cut, or NaN for steps beyond the calibrated ones.

        Only for one series, see `for_series`.
        """
        beyond = max(0, steps - self.margins.shape[1])
        padded = np.pad(self.margins[:, :steps], ((0, 0), (0, beyond), (0, 0)), constant_values=np.nan)
        return self._replace(margins=padded, series={})

    def intervals(self, forecasts: NDArray[Any]) -> tuple[_Array, _Array]:
        """Lower and upper bounds (coverages, ..., H, C) for forecasts (..., H, C, Q); the intervals are nested."""
        if not self.relative:
            return self._additive_intervals(forecasts)
        middle, below, above = spreads(forecasts, self.quantiles)
        lower, upper = (
            [middle + sign * margin * side for margin in self.margins] for sign, side in ((-1, below), (1, above))
        )
        return np.stack(lower), np.stack(upper)

    def _additive_intervals(self, forecasts: NDArray[Any]) -> tuple[_Array, _Array]:
        """Intervals of older runs: margins are added to the quantiles of a coverage, or to the point forecast."""
        middle = _median(forecasts, self.quantiles)
        lower, upper = [middle], [middle]
        for coverage, margin in zip(self.coverages, self.margins, strict=True):
            point = self.quantiles.index(0.5) if self.quantiles else 0
            low, high = central_pairs(self.quantiles).get(round(coverage, 9), (point, point))
            # A margin may be negative; the interval must still contain the median and all narrower intervals.
            lower.append(np.minimum(forecasts[..., low] - margin, lower[-1]))
            upper.append(np.maximum(forecasts[..., high] + margin, upper[-1]))
        return np.stack(lower[1:]), np.stack(upper[1:])


def spreads(forecasts: NDArray[Any], quantiles: Sequence[float]) -> tuple[_Array, _Array, _Array]:
    """Return the median and the model's spread below and above it, (..., H, C) each, of forecasts (..., H, C, Q)."""
    middle = _median(forecasts, quantiles)
    pairs = central_pairs(quantiles)
    if not pairs:
        return middle, np.ones_like(middle), np.ones_like(middle)
    low, high = (forecasts[..., end].astype(np.float64) for end in pairs[max(pairs)])
    least = np.maximum(_LEAST_SIDE * (high - low), _LEAST_SPREAD)
    return middle, np.maximum(middle - low, least), np.maximum(high - middle, least)


def save_calibration(calibration: Calibration, folder: Path, checkpoint: Path) -> Path:
    """Write `conformal.json`, calibrated for `checkpoint`, into the folder of its run; returns the path."""
    content = {
        "checkpoint_sha256": digest_of_file(checkpoint),
        "windows": calibration.windows,
        "quantiles": calibration.quantiles,
        "coverages": calibration.coverages,
        "margins": _rounded(calibration.margins),
        "series": {name: _rounded(margins) for name, margins in calibration.series.items()},
        **({"unit": _RELATIVE} if calibration.relative else {}),
    }
    write_atomically(folder / FILE, json.dumps(content) + "\n")
    return folder / FILE


def load_calibration(checkpoint: Path) -> Calibration | None:
    """Load the calibration of a checkpoint from its run's folder; None if there is none for exactly this checkpoint.

    Raises InputError when the file is damaged.
    """
    path = checkpoint.resolve().parent.parent / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content["checkpoint_sha256"] != digest_of_file(checkpoint):
            return None
        calibration = _from_content(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error}; delete it to continue without intervals") from None
    return calibration if calibration.coverages else None


def _from_content(content: dict[str, Any]) -> Calibration:
    """Calibration of a file's content; raises ValueError, KeyError, TypeError or AttributeError for a damaged one."""
    coverages = [float(value) for value in content["coverages"]]
    margins = np.array(content["margins"], dtype=np.float64)
    series = {name: np.array(own, dtype=np.float64) for name, own in content.get("series", {}).items()}
    if coverages and (margins.ndim != 3 or len(margins) != len(coverages)):
        raise ValueError("margins do not match the coverages")
    for own in (margins, *series.values()):
        if own.shape != margins.shape or not np.isfinite(own).all():
            raise ValueError("margins must be finite, and of one shape for all series")
    unit = content.get("unit")
    if unit not in (None, _RELATIVE):
        raise ValueError(f"unknown unit {unit!r}")
    levels = [float(level) for level in content["quantiles"]]
    return Calibration(coverages, margins, levels, int(content["windows"]), series, relative=unit == _RELATIVE)


def _rounded(margins: _Array) -> list[Any]:
    return [[[float(f"{m:.7g}") for m in step] for step in level] for level in margins]


def _median(forecasts: NDArray[Any], quantiles: Sequence[float]) -> _Array:
    """The median, or the point forecast."""
    return forecasts[..., list(quantiles).index(0.5) if quantiles else 0].astype(np.float64)
