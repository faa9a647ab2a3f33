"""Real series as a user's CSV files: training with the shipped configuration, and forecasts without training.

Every series is written to a CSV file without its last rows, which are forecast: by `titans-seq fit forecasting/table`
and `forecast`, by `titans-seq fit forecasting/finetune` and `forecast`, and by `forecast` without a run; beside them
the seasonal naive forecast, AutoETS and AutoTheta. The configuration is the shipped one; only what a user has to say is
set: the horizon, a context of at most three seasons and four horizons that fits the table, and splits that end a
horizon or two before the last row. Times are from the CSV file to the forecast, imports included.

The series are those of the develop half of `zeroshot.py`, the longest of every frequency.

    export TITANS_SEQ_SHORT_SERIES=DATA/short_series.npz OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
    python benchmarks/own_tables.py             # resumes: one JSON per series in results/own_tables/
    python benchmarks/own_tables.py --report    # results/own_tables.json and the table in docs/your_csv.md
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from record import RESULTS, record
from zero_shot.metrics import geometric_mean
from zero_shot.short_series import HORIZONS, ShortSeries, read_half

from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.experiment.forecasting.metrics import mase, weighted_quantile_loss
from titans_seq.experiment.forecasting.statistical import statistical_forecasts

FOLDER = RESULTS / "own_tables"
PAGE = Path(__file__).parent.parent / "docs" / "your_csv.md"
MARKS = "<!-- own tables -->\n", "<!-- end of own tables -->\n"
PER_FREQUENCY = 6
LEVELS = (0.1, 0.5, 0.9)
EVERY = {"yearly": "1y", "quarterly": "1q", "monthly": "1mo", "weekly": "1w", "daily": "1d", "hourly": "1h"}
MODELS = {
    "fit forecasting/table": "trained on the table alone",
    "fit forecasting/finetune": "the pre-trained forecaster, fine-tuned on the table",
    "forecast": "the pre-trained forecaster, not trained",
    "seasonal naive": "",
    "AutoETS": "",
    "AutoTheta": "",
}


def choose() -> list[ShortSeries]:
    """Return the longest series of every frequency of the develop half, without missing values, at most 6 of each."""
    found = [one for one in read_half("develop") if np.isfinite(one.values).all()]
    chosen = []
    for frequency in HORIZONS:
        of_it = sorted(
            (one for one in found if one.frequency == frequency), key=lambda one: (-len(one.values), one.name)
        )
        chosen += of_it[:PER_FREQUENCY]
    return chosen


def write_csv(series: ShortSeries, path: Path) -> None:
    """Write all rows but the last horizon with dates of the series' frequency."""
    values = series.values[: -series.horizon]
    start = datetime(1900, 1, 1) if series.frequency == "yearly" else datetime(1990, 1, 1)
    step = EVERY[series.frequency]
    end = pl.Series([start]).dt.offset_by(f"{len(values) - 1}{step[1:]}")[0]
    dates = pl.datetime_range(start, end, step, eager=True)
    pl.DataFrame({"date": dates, "y": values}).write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")


def sizes(series: ShortSeries) -> list[str]:
    """Return the overrides for horizon, context and splits; empty if no window of training fits."""
    horizon, rows = series.horizon, len(series.values) - series.horizon
    patch = min(series.period, 24) if series.period > 1 else 2
    room = rows - 3 * horizon  # of the context: training ends two horizons before the last row
    context = min(max(3 * series.period, 4 * horizon), room // 2) // patch * patch
    if context < patch:
        return []
    return [
        *(f"data.horizon={horizon}", f"data.context_length={context}"),
        *(f"data.train_end={-2 * horizon}", f"data.validation_end={-horizon}", "data.refit=true"),
        *(f"model.patch_length={patch}", f"model.stride={patch}"),
    ]


def trained(series: ShortSeries, folder: Path, name: str) -> NDArray[np.float64] | None:
    """Return quantile forecasts (H, 3) of a model that is trained on the CSV file; None if the file is too short."""
    from titans_seq.config import load_config
    from titans_seq.experiment import fit, forecast

    words = sizes(series)
    if not words:
        return None
    if name == "forecasting/finetune":  # its weights determine the model; quantiles are .1 to .9
        words = [word for word in words if not word.startswith(("model.", "data.refit"))]
    common = [f"data.path={folder / 'table.csv'}", f"run.dir={folder / 'run'}", "logging.wandb=off"]
    words += [*common, "trainer.progress_bar=false", "trainer.num_threads=1", "trainer.accelerator=cpu"]
    fit(load_config([name], words))
    table = forecast(folder / "run", folder / "forecast.csv", ["trainer.accelerator=cpu"])
    return table.select(f"q{level}" for level in LEVELS).to_numpy()


def untrained(series: ShortSeries, folder: Path) -> NDArray[np.float64]:
    """Return quantile forecasts (H, 3) of the pre-trained forecaster."""
    from titans_seq.experiment import forecast

    table = forecast(None, folder / "forecast.csv", data=folder / "table.csv", horizon=series.horizon)
    return table.select(f"q{level}" for level in LEVELS).to_numpy()


def statistical(series: ShortSeries, method: str) -> NDArray[np.float64]:
    """Return quantile forecasts (H, 3) of a statistical method."""
    rows = len(series.values)
    as_series = Series(series.name, np.arange(rows), ["y"], series.values[:, None], SplitBoundaries(1, 2, rows))
    origin = np.array([rows - series.horizon])
    values, _ = statistical_forecasts(
        method, as_series, origin, series.horizon, season=series.period, levels=LEVELS, coverages=[]
    )
    return values[0, :, 0]


def naive(series: ShortSeries) -> NDArray[np.float64]:
    """Return the seasonal naive forecast (H, 3), with the intervals of `zeroshot.py`."""
    from zero_shot.forecaster import SeasonalNaive

    found = SeasonalNaive().predict_arrays([series.values[: -series.horizon]], series.horizon, [series.period])
    return found[0][:, [0, 4, 8]].astype(np.float64)


def score(series: ShortSeries, quantiles: NDArray[np.float64]) -> dict[str, float]:
    """Return MASE, weighted quantile loss and coverage of the 80 % interval."""
    target, history = series.values[-series.horizon :], series.values[: -series.horizon]
    return {
        "mase": mase(target, quantiles[:, 1], history, series.period),
        "wql": weighted_quantile_loss(target, quantiles, LEVELS),
        "coverage": float(((quantiles[:, 0] <= target) & (target <= quantiles[:, 2])).mean()),
    }


def run(series: ShortSeries) -> dict[str, Any]:
    """Return the scores of every model on one series, with seconds from the CSV file to the forecast."""
    makers: dict[str, Callable[[Path], NDArray[np.float64] | None]] = {
        "fit forecasting/table": lambda folder: trained(series, folder, "forecasting/table"),
        "fit forecasting/finetune": lambda folder: trained(series, folder, "forecasting/finetune"),
        "forecast": lambda folder: untrained(series, folder),
        "seasonal naive": lambda folder: naive(series),
        "AutoETS": lambda folder: statistical(series, "AutoETS"),
        "AutoTheta": lambda folder: statistical(series, "AutoTheta"),
    }
    found: dict[str, Any] = {}
    for name, make in makers.items():
        folder = Path(tempfile.mkdtemp())
        write_csv(series, folder / "table.csv")
        started = time.process_time()
        quantiles = make(folder)
        seconds = time.process_time() - started
        shutil.rmtree(folder)
        found[name] = None if quantiles is None else {**score(series, quantiles), "seconds": seconds}
    return {**series.facts(), "models": found}


def report() -> None:
    """Write the summary and the table of the page."""
    results = [json.loads(path.read_text())["figures"] for path in sorted(FOLDER.glob("*.json"))]
    lines = ["| model | MASE | WQL | coverage 80 % | CPU seconds, median | series |", "|---|---|---|---|---|---|"]
    summary: dict[str, Any] = {}
    everywhere = [one["models"] for one in results if all(one["models"].values())]
    for name, what in MODELS.items():
        scores = [models[name] for models in everywhere]
        ratios = {
            key: geometric_mean([models[name][key] / models["seasonal naive"][key] for models in everywhere])
            for key in ("mase", "wql")
        }
        row = {
            **ratios,
            "coverage": statistics.fmean(each["coverage"] for each in scores),
            "seconds": statistics.median(each["seconds"] for each in scores),
        }
        summary[name] = {**row, "series": len(scores)}
        label = f"`titans-seq {name}`, {what}" if what else name
        lines.append(
            f"| {label} | {row['mase']:.3f} | {row['wql']:.3f} | {100 * row['coverage']:.0f} % "
            f"| {row['seconds']:.1f} | {len(scores)} |"
        )
    record("own_tables", {"summary": summary, "series": results})
    page = PAGE.read_text()
    head, rest = page.split(MARKS[0])
    _, tail = rest.split(MARKS[1])
    PAGE.write_text(head + MARKS[0] + "\n" + "\n".join(lines) + "\n\n" + MARKS[1] + tail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    if parser.parse_args().report:
        report()
        return
    for series in choose():
        stem = "".join(letter if letter.isalnum() else "-" for letter in series.name)
        if not (FOLDER / f"{stem}.json").exists():
            figures = run(series)
            print(series.name, {name: each and round(each["mase"], 3) for name, each in figures["models"].items()})
            record(stem, figures, FOLDER)


if __name__ == "__main__":
    main()
