"""Quick look at a forecaster, for use while it is improved: sampled test windows and the develop half."""

import time
from pathlib import Path
from typing import Any

from . import long_term, short_series
from .forecaster import Forecaster, SeasonalNaive

EVERY = 61


def quick(
    forecaster: Forecaster, *, every: int = EVERY, root: str | None = None, series: str | Path | None = None
) -> dict[str, Any]:
    """Return scores on every 61st window of five long-term datasets and on the develop half of the short series.

    Args:
        forecaster: the forecaster.
        every: distance of the windows' origins.
        root: folder of ETT and Weather; None uses $TITANS_SEQ_DATA.
        series: NPZ file of the short series; None uses $TITANS_SEQ_SHORT_SERIES.

    Returns:
        `long`: per dataset, `mse`, `mae`, `wql` and `coverage` at horizons 96 and 720 and the ratios of MSE and MAE to
        seasonal naive; `long_mean`: their means over datasets; `short`: geometric means of MASE and WQL relative to
        seasonal naive, per frequency and over all; `seconds`.
    """
    started = time.perf_counter()
    long: dict[str, Any] = {}
    for name in long_term.DATASETS:
        data = long_term.read_dataset(name, root)
        found = long_term.evaluate(forecaster, data, every)
        naive = long_term.evaluate(SeasonalNaive(), data, every)
        long[name] = {"forecasts_a_second": found["forecasts_a_second"]}
        for horizon in ("96", "720"):
            ours, reference = found["horizons"][horizon], naive["horizons"][horizon]
            figures = {metric: ours[metric] for metric in ("mse", "mae", "mse_of_mean", "wql", "coverage")}
            figures |= {f"{metric}_ratio": ours[metric] / reference[metric] for metric in ("mse", "mae", "wql")}
            long[name][horizon] = figures
    means = {
        horizon: {
            metric: sum(long[name][horizon][metric] for name in long) / len(long)
            for metric in ("mse", "mae", "mse_ratio", "mae_ratio", "wql_ratio", "coverage")
        }
        for horizon in ("96", "720")
    }
    develop = short_series.read_half("develop", path=series)
    results = short_series.evaluate(forecaster, develop)
    short = short_series.summarise(develop, results, short_series.evaluate(SeasonalNaive(), develop))
    return {"long": long, "long_mean": means, "short": short, "seconds": time.perf_counter() - started}


def describe(figures: dict[str, Any]) -> str:
    """Return the result of `quick` as a text table."""
    lines = [f"{'':10} {'MSE/MAE 96':>13} {'ratio':>11} {'MSE/MAE 720':>13} {'ratio':>11}  cover 96/720"]
    for name, found in {**figures["long"], "mean": figures["long_mean"]}.items():
        cells = [
            f"{found[h]['mse']:6.3f}/{found[h]['mae']:6.3f} {found[h]['mse_ratio']:5.3f}/{found[h]['mae_ratio']:5.3f}"
            for h in ("96", "720")
        ]
        cover = "/".join(f"{found[h]['coverage']:.2f}" for h in ("96", "720"))
        lines.append(f"{name:10} {' '.join(cells)}  {cover}")
    lines.append(f"{'':10} series MASE-ratio WQL-ratio coverage ms/forecast")
    for name, found in figures["short"].items():
        lines.append(
            f"{name:10} {found['series']:6} {found['mase_ratio']:10.3f} {found['wql_ratio']:9.3f} "
            f"{found['coverage']:8.2f} {found['milliseconds_a_forecast']:11.2f}"
        )
    return "\n".join([*lines, f"{figures['seconds']:.0f} s"])
