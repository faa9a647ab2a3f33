"""Several trained forecasters as one: the means of their forecasts, quantiles and interval bounds, in series' units.

The mean of the quantiles of a level (Vincent, 1912) keeps the shape that the members agree on.
"""

from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.inference import TrainedForecaster, load_trained
from titans_seq.experiment.forecasting.plots import ForecastPanel
from titans_seq.experiment.forecasting.scores import SeriesForecasts
from titans_seq.system.run_folders import find_forecasters


class Member(NamedTuple):
    """A forecaster of an ensemble."""

    checkpoint: Path
    forecaster: TrainedForecaster


def load_ensemble(
    checkpoints: str | Path | Sequence[str | Path],
    data: Path | pl.DataFrame | None,
    overrides: Iterable[str],
    *,
    refit: bool,
) -> list[Member]:
    """Load the forecasters of one or more checkpoints, runs or folders of runs, with the data to forecast.

    `refit` prefers the weights that a run has trained again on all rows. Notes that several have are printed once.
    Raises InputError when two do not forecast the same columns and steps.
    """
    given = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    paths = list(dict.fromkeys(found for each in given for found in find_forecasters(each, refit=refit)))
    overrides, said = list(overrides), set[str]()
    members: list[Member] = []
    for path in paths:
        with redirect_stdout(StringIO()) as printed:
            members.append(Member(path, load_trained(path, data, overrides)))
        lines = [line for line in printed.getvalue().splitlines() if line not in said]
        said.update(lines)
        print("".join(f"{line}\n" for line in lines), end="")
        _check_match(members[0], members[-1])
    if len(members) > 1:
        print(f"Note: forecasts are means of {len(members)} checkpoints: {', '.join(map(str, paths))}")
    return members


def average_tables(members: Sequence[Member], tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the first table with the mean of every column of fractions; raises InputError for tables of other rows."""
    first = tables[0]
    keys = [name for name, dtype in first.schema.items() if not dtype.is_float()]
    for member, table in zip(members, tables, strict=True):
        if table.columns != first.columns or not table.select(keys).equals(first.select(keys)):
            raise InputError(f"{member.checkpoint}: forecasts other rows or columns than {members[0].checkpoint}")
    numbers = [name for name in first.columns if name not in keys]
    return first.with_columns(sum((t[name] for t in tables[1:]), start=first[name]) / len(tables) for name in numbers)


def average_panels(panels: Sequence[ForecastPanel]) -> ForecastPanel:
    """Return the panel of a series with the mean forecast and the mean bounds of its bands."""
    bands = {
        nominal: (_mean(p.bands[nominal][0] for p in panels), _mean(p.bands[nominal][1] for p in panels))
        for nominal in panels[0].bands
    }
    return panels[0]._replace(forecast=_mean(p.forecast for p in panels), bands=bands)


def average_forecasts(forecasts: Sequence[SeriesForecasts]) -> SeriesForecasts:
    """Return the mean forecasts of a series, and the mean bounds of its intervals."""
    intervals = {
        nominal: (_mean(f.intervals[nominal][0] for f in forecasts), _mean(f.intervals[nominal][1] for f in forecasts))
        for nominal in forecasts[0].intervals
    }
    return forecasts[0]._replace(values=_mean(f.values for f in forecasts), intervals=intervals)


def _check_match(first: Member, other: Member) -> None:
    """Raise InputError when two forecasters differ in what their forecasts mean."""
    for (key, before), found in zip(_facts(first.forecaster).items(), _facts(other.forecaster).values(), strict=True):
        if found != before:
            raise InputError(
                f"{other.checkpoint}: {key} {found} does not match {before} of {first.checkpoint}; runs that are "
                "forecast together must have the same"
            )


def _facts(forecaster: TrainedForecaster) -> dict[str, Any]:
    config, encoder = forecaster.config, forecaster.encoder
    return {
        "horizon": config.data.horizon,
        "target columns": encoder.channels,
        "past covariates": encoder.past,
        "known covariates": encoder.known,
        "time step": encoder.interval,
        "column of series": config.data.id,
        "quantiles": forecaster.task.quantile_levels,
        "intervals": list(forecaster.calibration.coverages) if forecaster.calibration else [],
    }


def _mean(arrays: Iterable[Any]) -> Any:
    return np.mean(np.stack(list(arrays)), axis=0)
