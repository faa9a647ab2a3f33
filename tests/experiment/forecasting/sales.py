"""A panel of simulated sales, a run on it, and an independent computation of its forecasts."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from tests.helpers import TWO_STEPS
from titans_seq.batch import CovariateInputs
from titans_seq.tasks import ForecastingTask

LENGTH, HORIZON, START = 28, 7, datetime(2022, 1, 1)
ROWS = {"a": 200, "b": 260, "c": 230}
QUANTILES = [0.1, 0.5, 0.9]
KINDS = {"a": "big", "b": "small", "c": "big"}
OVERRIDES = [
    *(
        "data.id=store",
        "data.target=[sales]",
        "data.known=[promo]",
        "data.static=[kind]",
        "data.calendar=[day_of_week]",
    ),
    *(f"data.context_length={LENGTH}", f"data.horizon={HORIZON}", f"task.quantiles={QUANTILES}", "model.dim=8"),
    *("model.num_layers=1", "model.memory.num_heads=2", *TWO_STEPS),
]


def sales(extra: int = 0) -> pl.DataFrame:
    """Sales of three stores from START on, `extra` more days of each; earlier rows do not depend on `extra`."""
    parts = []
    for k, (store, count) in enumerate(ROWS.items()):
        rng = np.random.default_rng(k)
        promo, noise = rng.random(400) < 0.3, rng.normal(size=400)
        days = np.arange(count + extra)
        values = 100 * (k + 1) + 9 * np.sin(2 * np.pi * days / 7) + 7 * promo[days] + noise[days]
        stamps = [f"{START + timedelta(days=int(day)):%Y-%m-%d}" for day in days]
        content = {"date": stamps, "store": store, "sales": values, "promo": promo[days].astype(int)}
        parts.append(pl.DataFrame({**content, "kind": KINDS[store]}))
    return pl.concat(parts)


class Panel(NamedTuple):
    """A run on the panel of sales, with its files."""

    folder: Path
    table: Path
    plans: Path  # table of the known covariates of the next three weeks
    checkpoint: Path


def expected_forecast(panel: Panel, store: str, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecast after a store's first `rows`, in its units: quantiles (H, Q), lower and upper interval bounds (2, H)."""
    trained = {name: sales().filter(store=name).head(round(0.7 * count)) for name, count in ROWS.items()}
    mean, std = trained[store]["sales"].mean(), trained[store]["sales"].std(ddof=0)
    promos = pl.concat(trained.values())["promo"]
    part = sales(30).filter(store=store)[rows - LENGTH : rows + HORIZON]
    promo = (part["promo"].to_numpy() - promos.mean()) / promos.std(ddof=0)
    angles = [2 * np.pi * datetime.fromisoformat(day).weekday() / 7 for day in part["date"]]
    known = torch.tensor(np.column_stack([promo, np.sin(angles), np.cos(angles)]), dtype=torch.float32)[None]
    context = torch.tensor((part["sales"].to_numpy()[:LENGTH] - mean) / std, dtype=torch.float32)[None, :, None]
    code = torch.tensor([[["big", "small"].index(KINDS[store])]])
    covariates = CovariateInputs(torch.empty(1, LENGTH, 0), known, code, torch.empty(1, 0))
    task = ForecastingTask.load_from_checkpoint(panel.checkpoint, map_location="cpu", weights_only=True).eval()
    with torch.inference_mode():
        quantiles = task.model.quantiles(context, covariates)[0, :, 0].double().numpy()
    kept = json.loads((panel.folder / "run" / "conformal.json").read_text())
    assert kept["coverages"] == [0.8, 0.95]
    narrow, wide = np.array(kept["series"][store])[..., 0]
    low, middle, high = quantiles.T
    lowers = np.stack([middle - margin * (middle - low) for margin in (narrow, wide)])
    uppers = np.stack([middle + margin * (high - middle) for margin in (narrow, wide)])
    return quantiles * std + mean, lowers * std + mean, uppers * std + mean
