"""Evaluation on real series of public packages: yearly to hourly, with rolling forecast origins.

The series are read from one NPZ file, which `package_series.py` writes. They are divided into two halves: `develop`,
for use while a forecaster is improved, and `judge`, for one evaluation at the end.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_seq.errors import InputError

from .forecaster import MEDIAN, Forecaster
from .metrics import coverage, geometric_mean, mase, seasonal_scale, weighted_quantile_loss

PERIODS = {"yearly": 1, "quarterly": 4, "monthly": 12, "weekly": 52, "daily": 7, "hourly": 24}
HORIZONS = {"yearly": 6, "quarterly": 8, "monthly": 18, "weekly": 13, "daily": 28, "hourly": 48}
HALVES = ("develop", "judge")
CONTEXT = 2048  # longest context that a forecaster is given
ORIGINS = 3
FILE_VARIABLE = "TITANS_SEQ_SHORT_SERIES"


class ShortSeries(NamedTuple):
    """One real series, whose last rows are forecast."""

    name: str
    group: str  # series of one group are related and belong to the same half
    frequency: str  # a key of HORIZONS
    period: int  # nominal seasonal period, rows
    source: str  # package, file and column
    values: NDArray[np.float64]  # (T,), NaN where missing

    @property
    def horizon(self) -> int:
        """Rows to forecast."""
        return HORIZONS[self.frequency]

    def facts(self) -> dict[str, Any]:
        """Return what identifies the series; the digest is that of its values."""
        digest = hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:16]
        return {
            "frequency": self.frequency,
            "period": self.period,
            "rows": len(self.values),
            "source": self.source,
            "sha256": digest,
        }

    def origins(self) -> list[int]:
        """Return the forecast origins (first rows of the targets), latest first.

        Three origins at a distance of a tenth of the series, at least one horizon; only the last one if the earliest
        would have too short a history.
        """
        rows, horizon = len(self.values), self.horizon
        step = max(horizon, rows // 10)
        origins = [rows - horizon - number * step for number in range(ORIGINS)]
        return origins if origins[-1] >= max(3 * self.period, 4 * horizon, 30) else origins[:1]


class Case(NamedTuple):
    """A series at one forecast origin."""

    series: ShortSeries
    origin: int

    @property
    def history(self) -> NDArray[np.float64]:
        """All rows before the origin."""
        return self.series.values[: self.origin]

    @property
    def context(self) -> NDArray[np.float32]:
        """Rows before the origin that a forecaster may see."""
        return self.history[-CONTEXT:].astype(np.float32)

    @property
    def target(self) -> NDArray[np.float64]:
        """Rows to forecast."""
        return self.series.values[self.origin : self.origin + self.series.horizon]


def split_halves(series: Iterable[ShortSeries]) -> dict[str, list[ShortSeries]]:
    """Divide series into halves of about equal size within every frequency, by the hash of their group's name."""
    halves: dict[str, list[ShortSeries]] = {half: [] for half in HALVES}
    side: dict[str, str] = {}
    by_frequency: dict[str, dict[str, list[ShortSeries]]] = {frequency: {} for frequency in HORIZONS}
    for one in series:
        by_frequency[one.frequency].setdefault(one.group, []).append(one)
    for groups in by_frequency.values():
        count = dict.fromkeys(HALVES, 0)
        # Groups that another frequency has placed first, so that the others can level the halves.
        for group in sorted(groups, key=lambda name: (name not in side, hashlib.sha256(name.encode()).hexdigest())):
            half = side.setdefault(group, min(HALVES, key=lambda name: count[name]))
            count[half] += len(groups[group])
            halves[half] += groups[group]
    return halves


def write_series(path: Path, series: Sequence[ShortSeries]) -> None:
    """Write series to an NPZ file."""
    facts = [one._asdict() | {"values": None} for one in series]
    arrays = {f"values{number}": one.values for number, one in enumerate(series)}
    np.savez_compressed(path, catalogue=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]


def read_half(half: str, *, judge: bool = False, path: str | Path | None = None) -> list[ShortSeries]:
    """Read one half of the series.

    Args:
        half: "develop" or "judge".
        judge: must be True to read the half kept for the final evaluation.
        path: the NPZ file; None uses $TITANS_SEQ_SHORT_SERIES.

    Raises InputError when the judge half is asked for without `judge`, or the file is missing.
    """
    if half not in HALVES:
        raise InputError(f"half must be one of {', '.join(HALVES)}; got {half!r}")
    if half == "judge" and not judge:
        raise InputError("the judge half is for one evaluation at the end; pass --judge to use it")
    found = path or os.environ.get(FILE_VARIABLE)
    if not found or not Path(found).is_file():
        raise InputError(f"short series not found ({found or FILE_VARIABLE + ' is unset'}); run zeroshot.py extract")
    with np.load(found) as stored:
        facts = json.loads(str(stored["catalogue"]))
        series = [ShortSeries(**(fact | {"values": stored[f"values{number}"]})) for number, fact in enumerate(facts)]
    return split_halves(series)[half]


def evaluate(forecaster: Forecaster, series: Sequence[ShortSeries]) -> dict[str, dict[str, float]]:
    """Forecast every series at all origins; return the metrics of each by name.

    `seconds` is CPU time, which other programs on the machine hardly change: that of all forecasts of a frequency,
    divided equally among them.
    """
    results: dict[str, dict[str, float]] = {}
    for frequency, horizon in HORIZONS.items():
        cases = [Case(one, origin) for one in series if one.frequency == frequency for origin in one.origins()]
        if not cases:
            continue
        contexts, periods = [case.context for case in cases], [case.series.period for case in cases]
        started = time.process_time()
        forecasts = forecaster.predict_arrays(contexts, horizon, periods)
        seconds = (time.process_time() - started) / len(cases)
        if forecasts.shape[:2] != (len(cases), horizon) or not np.isfinite(forecasts).all():
            raise ValueError(f"{frequency}: forecasts of shape {forecasts.shape}, or not finite")
        results |= score(cases, forecasts, seconds)
    return results


def score(cases: Sequence[Case], forecasts: NDArray[np.floating], seconds: float) -> dict[str, dict[str, float]]:
    """Return the metrics of each series, its origins taken together; MASE is scaled by each origin's own history."""
    rows: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        rows.setdefault(case.series.name, []).append(row)
    results = {}
    for name, own in rows.items():
        targets = np.stack([cases[row].target for row in own])
        quantiles = forecasts[own]
        errors = [
            mase(quantiles[at][:, MEDIAN], targets[at], seasonal_scale(cases[row].history, cases[row].series.period))
            for at, row in enumerate(own)
        ]
        results[name] = {
            "mase": float(np.mean(errors)),
            "wql": weighted_quantile_loss(quantiles, targets),
            "coverage": coverage(quantiles, targets),
            "origins": len(own),
            "seconds": seconds * len(own),
        }
    return results


def summarise(
    series: Sequence[ShortSeries], results: dict[str, dict[str, float]], reference: dict[str, dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """Return, per frequency and over all, geometric means of the ratios to `reference`, coverage and time."""
    groups = {frequency: [one.name for one in series if one.frequency == frequency] for frequency in HORIZONS}
    groups["all"] = [one.name for one in series]
    return {
        group: {
            "series": len(names),
            "mase_ratio": geometric_mean(results[name]["mase"] / reference[name]["mase"] for name in names),
            "wql_ratio": geometric_mean(results[name]["wql"] / reference[name]["wql"] for name in names),
            "mase": float(np.mean([results[name]["mase"] for name in names])),
            "coverage": float(np.mean([results[name]["coverage"] for name in names])),
            "milliseconds_a_forecast": 1000
            * sum(results[name]["seconds"] for name in names)
            / sum(results[name]["origins"] for name in names),
        }
        for group, names in groups.items()
        if names
    }
