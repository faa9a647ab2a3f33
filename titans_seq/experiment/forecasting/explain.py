"""`titans-seq explain`: how much each covariate matters to a trained forecaster, and what known covariates do.

W windows, H steps of the horizon, C channels.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.inference import (
    Inputs,
    TrainedForecaster,
    cut_inputs,
    forecast_recursively,
    load_trained,
    restore_units,
    stack_inputs,
)
from titans_seq.experiment.forecasting.panels import check_plot
from titans_seq.experiment.run.console_table import format_table
from titans_seq.experiment.run.output import check_table, refuse_to_overwrite, write_table
from titans_seq.plots import Panel, plot_panels

_PERMUTATIONS = 3  # of the windows, whose errors are averaged
_LOW, _HIGH = 0.1, 0.9  # quantiles of a known covariate between which its effect is measured
_DRAWN = 7  # covariates of the plot, the most important ones
_COLUMNS = {"importance": "rise of MAE, %", "effect": "effect", "low": "from", "high": "to"}


class Covariate(NamedTuple):
    """Columns of the model's inputs that belong to one covariate."""

    name: str
    role: str  # past, known, calendar or static
    part: str  # the field of `Inputs`
    columns: list[int]  # of its last dimension


class _Windows(NamedTuple):
    """Windows to explain: where they begin, their inputs and what happened."""

    members: list[int]  # (W,) number of the series
    inputs: Inputs
    truth: NDArray[np.float64]  # (W, H, C), z-scores


def explain(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    data: Path | None = None,
    windows: int = 200,
    plot: Path | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Measure the importance of every covariate and the effect of the known ones; write the table to `out`.

    The table has one row per covariate, channel and step of the horizon: `covariate`, `role` (past, known, calendar or
    static), `channel`, `step`; `mae`, the mean absolute error in z-scores; `mae_permuted`, the same with the values of
    the covariate exchanged between windows (permutation importance, Breiman, 2001), which keeps their distribution but
    not their relation to the window; `importance`, the rise of the error in percent. For numeric known covariates also
    `low` and `high`, the 10 % and 90 % quantiles of the covariate in the windows, and `effect`: the change of the
    forecast of a step, in the units of the series, when the covariate's values of all future steps are `high` instead
    of `low`, all else equal, mean over windows.

    Both are statements about the model: a covariate can matter to it without being a cause of the series.

    Args:
        checkpoint, overrides, data: see `titans_seq.experiment.forecast`.
        out: CSV by suffix, else Parquet; an existing file is replaced.
        windows: how many windows are read, evenly spaced over the rows after the training rows of all series.
        plot: a .png file for a plot of importance and effect by step.
        seed: of the permutations.

    Raises InputError for a model without covariates and when fewer than two windows fit.
    """
    out = Path(out)
    check_table(out)
    check_plot(plot, ())
    if windows < 2:
        raise InputError(f"--windows {windows}: at least 2, whose covariates are exchanged")
    forecaster = load_trained(Path(checkpoint), data, overrides)
    refuse_to_overwrite(out, forecaster.config, data)
    covariates = find_covariates(forecaster)
    if not covariates:
        raise InputError(
            f"{checkpoint}: the model has no covariates to explain; train it with data.past, data.known, data.static "
            "or data.calendar"
        )
    chosen = _choose_windows(forecaster, windows)
    rng = np.random.default_rng(seed)
    errors = _errors(forecaster, chosen, chosen.inputs)
    parts = []
    for covariate in covariates:
        exchanged = (_exchange(chosen.inputs, covariate, rng) for _ in range(_PERMUTATIONS))
        permuted = np.mean([_errors(forecaster, chosen, inputs) for inputs in exchanged], axis=0)
        parts.append(_rows(forecaster, covariate, errors, permuted, _effect(forecaster, chosen, covariate)))
    table = pl.concat(parts)
    write_table(table, out)
    if plot is not None:
        _draw(
            table, plot, f"{Path(forecaster.source_name).stem}: what the covariates do, {len(chosen.members)} windows"
        )
    return table


def find_covariates(forecaster: TrainedForecaster) -> list[Covariate]:
    """Return the covariates of a forecaster, with the columns of its inputs that each of them has."""
    encoder = forecaster.encoder
    past, ahead = encoder.columns_of(encoder.past), encoder.columns_of(encoder.known)
    known = sum(map(len, ahead.values()))
    return [
        *(Covariate(name, "past", "past", columns) for name, columns in past.items()),
        *(Covariate(name, "known", "known", columns) for name, columns in ahead.items()),
        *(
            Covariate(name, "calendar", "known", [known + 2 * index, known + 2 * index + 1])
            for index, name in enumerate(encoder.calendar)
        ),
        *(Covariate(name, "static", "categories", [index]) for index, name in enumerate(encoder.categories)),
        *(Covariate(name, "static", "numbers", [index]) for index, name in enumerate(encoder.numbers)),
    ]


def _choose_windows(forecaster: TrainedForecaster, count: int) -> _Windows:
    """Choose windows evenly among those that begin after the training rows, of all series."""
    config, encoder = forecaster.config.data, forecaster.encoder
    places: list[tuple[int, int]] = []
    (until,) = forecaster.trained_until
    for number, member in enumerate(forecaster.scaled_series):
        trained = int(np.searchsorted(member.series.timestamps, until, side="right"))
        first = max(config.context_length, trained)
        gaps = np.concatenate([[0], np.cumsum(~np.isfinite(member.scaled).all(axis=1))])
        places += [
            (number, row)
            for row in range(first, len(member.scaled) - config.horizon + 1)
            if gaps[row + config.horizon] == gaps[row - config.context_length]  # a series without values has none
        ]
    if len(places) < 2:
        raise InputError(
            f"{forecaster.source_name}: {len(places)} windows of {config.horizon} steps after the training rows, with "
            f"data.context_length={config.context_length} rows before them; explaining needs at least 2"
        )
    chosen = [places[index] for index in np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))]
    channels = len(encoder.channels)
    cut, truth = [], []
    for number, row in chosen:
        member = forecaster.scaled_series[number]
        future = member.scaled[row : row + config.horizon]
        cut.append(cut_inputs(forecaster, member, row, future[:, channels + encoder.num_past :]))
        truth.append(future[:, :channels].astype(np.float64))
    return _Windows([number for number, _ in chosen], stack_inputs(cut), np.stack(truth))


def _forecasts(forecaster: TrainedForecaster, inputs: Inputs) -> NDArray[np.float64]:
    """Return the point forecasts (W, H, C), z-scores."""
    size, horizon, point = forecaster.config.data.batch_size, forecaster.config.data.horizon, forecaster.task.point
    parts = [
        forecast_recursively(forecaster, Inputs._make(x[begin : begin + size] for x in inputs), horizon)[..., point]
        for begin in range(0, len(inputs.context), size)
    ]
    return np.concatenate(parts)


def _errors(forecaster: TrainedForecaster, chosen: _Windows, inputs: Inputs) -> NDArray[np.float64]:
    """Return the mean absolute errors (H, C) over the windows."""
    errors: NDArray[np.float64] = np.nanmean(np.abs(_forecasts(forecaster, inputs) - chosen.truth), axis=0)
    return errors


def _exchange(inputs: Inputs, covariate: Covariate, rng: np.random.Generator) -> Inputs:
    """Give every window the covariate's values of another one."""
    values = getattr(inputs, covariate.part)
    order = rng.permutation(len(values))
    source = np.empty_like(order)
    source[order] = np.roll(order, 1)  # a cycle through all windows: none keeps its own values
    changed = values.copy()
    changed[..., covariate.columns] = values[source][..., covariate.columns]
    return inputs._replace(**{covariate.part: changed})


class _Effect(NamedTuple):
    """Effect of a known covariate, in the units of the series."""

    low: float  # values of the covariate, in its own units
    high: float
    change: NDArray[np.float64]  # (H, C)


def _effect(forecaster: TrainedForecaster, chosen: _Windows, covariate: Covariate) -> _Effect | None:
    """Return the effect of a known covariate of numbers; None for another one, and where it has one value only."""
    if covariate.role != "known" or covariate.name in forecaster.encoder.levels:
        return None
    (column,), horizon = covariate.columns, forecaster.config.data.horizon
    values = chosen.inputs.known[..., column]
    ends = np.quantile(values, [_LOW, _HIGH])
    if ends[0] == ends[1]:  # a rare promotion: its two values
        ends = np.array([values.min(), values.max()])
    if ends[0] == ends[1]:
        return None
    in_units = []
    for end in ends:
        known = chosen.inputs.known.copy()
        known[:, -horizon:, column] = end
        forecasts = _forecasts(forecaster, chosen.inputs._replace(known=known))
        members = (forecaster.scaled_series[number] for number in chosen.members)
        in_units.append(np.stack([restore_units(m, each) for m, each in zip(members, forecasts, strict=True)]))
    scaler, place = forecaster.encoder.covariates, forecaster.encoder.num_past + column
    digits = 5 - int(np.floor(np.log10(scaler.std[place])))  # inputs are float32
    low, high = (round(float(scaler.mean[place] + scaler.std[place] * end), digits) for end in ends)
    return _Effect(low, high, (in_units[1] - in_units[0]).mean(0))


def _rows(
    forecaster: TrainedForecaster,
    covariate: Covariate,
    errors: NDArray[np.float64],
    permuted: NDArray[np.float64],
    effect: _Effect | None,
) -> pl.DataFrame:
    """Return the table of one covariate: a row per channel and step."""
    horizon, channels = errors.shape
    columns: dict[str, Any] = {
        "covariate": [covariate.name] * errors.size,
        "role": [covariate.role] * errors.size,
        "channel": np.repeat(forecaster.encoder.channels, horizon).tolist(),
        "step": np.tile(np.arange(1, horizon + 1), channels),
        "mae": errors.T.ravel(),
        "mae_permuted": permuted.T.ravel(),
        "importance": (100 * (permuted / np.where(errors > 0, errors, np.nan) - 1)).T.ravel(),
        "low": [None if effect is None else effect.low] * errors.size,
        "high": [None if effect is None else effect.high] * errors.size,
        "effect": [None] * errors.size if effect is None else effect.change.T.ravel(),
    }
    numbers = dict.fromkeys(("low", "high", "effect"), pl.Float64)
    return pl.DataFrame(columns, schema_overrides=numbers).with_columns(pl.col("importance").fill_nan(None))


def explanation_text(table: pl.DataFrame) -> str:
    """Return the importance and effect of every covariate, means over channels and steps, as text."""
    means = _ranked(table)
    rows = {
        f"{row['covariate']} ({row['role']})": {key: row[key] for key in _COLUMNS if row[key] is not None}
        for row in means.to_dicts()
    }
    return format_table(rows, _COLUMNS, spec=".4g")


def _ranked(table: pl.DataFrame) -> pl.DataFrame:
    """Return the means of every covariate, the most important first."""
    groups = table.group_by("covariate", "role", maintain_order=True)
    return groups.agg(pl.col(*_COLUMNS).mean()).sort("importance", descending=True, nulls_last=True)


def _draw(table: pl.DataFrame, path: Path, title: str) -> None:
    """Draw importance and effect by step, of the most important covariates."""
    named = {
        (row["covariate"], row["role"]): f"{row['covariate']} ({row['role']})" for row in _ranked(table).to_dicts()
    }
    by_step = table.group_by("covariate", "role", "step", maintain_order=True).agg(pl.col(*_COLUMNS).mean())

    def lines(keys: Sequence[tuple[str, str]], column: str, label: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        found = {}
        for name, role in keys:
            part = by_step.filter(pl.col("covariate") == name, pl.col("role") == role)
            found[label(part.row(0, named=True))] = part["step"].to_numpy(), part[column].to_numpy()
        return found

    top = list(named)[:_DRAWN]
    panels = [
        Panel(
            "rise of the MAE\nwithout it, %",
            lines(top, "importance", lambda row: named[row["covariate"], row["role"]]),
            markers=True,
        )
    ]
    if with_effect := [
        key for key in top if by_step.filter(covariate=key[0], role=key[1])["effect"].is_not_null().all()
    ]:
        effects = lines(with_effect, "effect", lambda row: f"{row['covariate']}: {row['low']:.4g} to {row['high']:.4g}")
        steps = next(iter(effects.values()))[0]
        effects["no effect"] = steps, np.zeros(len(steps))
        panels.append(Panel("change of the forecast", effects, markers=True))
    plot_panels(path, panels, title=title, xlabel="step of the horizon")
