"""Split-conformal intervals around any forecast (Vovk et al., 2005; with quantiles: Romano et al., NeurIPS 2019).

n windows, H steps, C channels, Q quantiles; all z-scored. Each step and channel has its own margins, from the
validation windows of all series. If windows are exchangeable, an interval contains the truth at least with its nominal
probability, however good or bad the model is.
"""

import json
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.common.digest import digest_of_file
from titans_seq.errors import InputError
from titans_seq.system.files import write_atomically
from titans_seq.tasks.quantiles import central_pairs

FILE = "conformal.json"
_Array = NDArray[np.float64]


class Calibration(NamedTuple):
    """Margins that turn forecasts, or their quantiles, into intervals."""

    coverages: list[float]  # nominal, ascending
    margins: _Array  # (coverages, H, C)
    quantiles: list[float]  # quantile levels of the calibrated forecasts; empty for point forecasts
    windows: int  # number of windows of the calibration

    def for_steps(self, steps: int) -> "Calibration":
        """Return the calibration for `steps` steps: margins are cut, or NaN for steps beyond the calibrated ones."""
        beyond = max(0, steps - self.margins.shape[1])
        padded = np.pad(self.margins[:, :steps], ((0, 0), (0, beyond), (0, 0)), constant_values=np.nan)
        return self._replace(margins=padded)

    def intervals(self, forecasts: NDArray[Any]) -> tuple[_Array, _Array]:
        """Lower and upper bounds (coverages, ..., H, C) for forecasts (..., H, C, Q); the intervals are nested."""
        middle = forecasts[..., self.quantiles.index(0.5) if self.quantiles else 0].astype(np.float64)
        lower, upper = [middle], [middle]
        for coverage, margin in zip(self.coverages, self.margins, strict=True):
            low, high = _base(forecasts, self.quantiles, coverage)
            # A margin may be negative; the interval must still contain the median and all narrower intervals.
            lower.append(np.minimum(low - margin, lower[-1]))
            upper.append(np.maximum(high + margin, upper[-1]))
        return np.stack(lower[1:]), np.stack(upper[1:])


def conformal_scores(
    forecasts: NDArray[Any], truth: NDArray[Any], quantiles: Sequence[float], coverages: Sequence[float]
) -> NDArray[np.float32]:
    """Signed distance (coverages, n, H, C) of the truth (n, H, C) outside each uncalibrated interval."""
    scores = []
    for coverage in coverages:
        low, high = _base(forecasts, quantiles, coverage)
        scores.append(np.maximum(low - truth, truth - high).astype(np.float32))
    return np.stack(scores)


def calibrate(scores: NDArray[Any], quantiles: Sequence[float], coverages: Sequence[float]) -> Calibration:
    """Margins from `conformal_scores`: the ceil((n + 1) coverage)-th smallest of n.

    Coverages for which n windows are too few, since that rank exceeds n, are left out.
    """
    count = scores.shape[1]
    kept, margins = [], []
    for coverage, score in zip(coverages, scores, strict=True):
        rank = ceil((count + 1) * coverage - 1e-9)  # 0.8 of 10 must be 8 despite rounding errors
        if rank <= count:
            kept.append(coverage)
            margins.append(np.partition(score, rank - 1, axis=0)[rank - 1].astype(np.float64))
    shape = scores.shape[2:]
    return Calibration(kept, np.stack(margins) if kept else np.empty((0, *shape)), list(quantiles), count)


def save_calibration(calibration: Calibration, folder: Path, checkpoint: Path) -> Path:
    """Write `conformal.json`, calibrated for `checkpoint`, into the folder of its run; returns the path."""
    content = {
        "checkpoint_sha256": digest_of_file(checkpoint),
        "windows": calibration.windows,
        "quantiles": calibration.quantiles,
        "coverages": calibration.coverages,
        "margins": [[[float(f"{m:.7g}") for m in step] for step in level] for level in calibration.margins],
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
        margins = np.array(content["margins"], dtype=np.float64)
        coverages = [float(value) for value in content["coverages"]]
        calibration = Calibration(coverages, margins, [float(q) for q in content["quantiles"]], int(content["windows"]))
        if coverages and (margins.ndim != 3 or len(margins) != len(coverages) or not np.isfinite(margins).all()):
            raise ValueError("margins do not match the coverages")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged: {error}; delete it to continue without intervals") from None
    return calibration if coverages else None


def _base(forecasts: NDArray[Any], quantiles: Sequence[float], coverage: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """The quantiles that margins are added to: the central pair of the coverage, else the point forecast twice."""
    low, high = central_pairs(quantiles).get(round(coverage, 9), (None, None))
    if low is None or high is None:
        low = high = list(quantiles).index(0.5) if quantiles else 0
    return forecasts[..., low], forecasts[..., high]
