"""The pre-trained forecaster: forecasts arrays, tables and streams without training.

Shapes: S series, H steps of the horizon, Q quantiles.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from datamodules.common.frames import in_library_of, to_polars_frame
from datamodules.time_series.columns import ColumnRoles
from datamodules.time_series.datasets.table import Table
from datamodules.time_series.series import Series
from datamodules.time_series.steps import times_after
from titans_seq.errors import InputError
from titans_seq.experiment.forecasting.pretrained.weights import UNIVERSAL, load_universal
from titans_seq.experiment.forecasting.tables import long_table
from titans_seq.models.universal.context import WINDOW
from titans_seq.models.universal.forecaster import LEVELS, UniversalForecaster
from titans_seq.models.universal.stream import SeriesState, read_series
from titans_seq.schema import PATCH
from titans_seq.system.files import replacing

MIN_ROWS = 16  # observed values of a series that the model forecasts; shorter ones repeat their last value
MODEL, FALLBACK = "pretrained", "last value"
_MEDIAN = LEVELS.index(0.5)
_DIRECT = 45  # patches ahead that the model was trained on; later ones follow recursively
_OUTLYING = 1e4  # spreads (from the 5 % to the 95 % quantile) beyond the median: an error of the data, read as missing
_BATCH_STEPS = 1 << 16  # context steps of the series that are forecast together


class TableForecast(NamedTuple):
    """Forecast of one series of a table; C channels."""

    series: Series
    times: pl.Series  # (H,)
    quantiles: NDArray[np.float64]  # (H, C, Q), NaN where the series is too short; the median is its last value then
    models: list[str]  # of each channel, what forecast it: MODEL or FALLBACK
    outliers: list[int]  # of each channel, the number of values read as missing


class PretrainedForecaster:
    """Forecasts of any series by one set of weights, from the series' own past.

    Args:
        model: a trained `UniversalForecaster`.
        context_length: the most steps of the past that forecasts of arrays and tables read.
    """

    levels = LEVELS

    def __init__(self, model: UniversalForecaster, context_length: int = WINDOW) -> None:
        self.model = model.eval()
        self.context_length = context_length

    def predict_arrays(
        self, contexts: Sequence[ArrayLike], horizon: int, periods: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return the quantiles .1 to .9 of the next steps of every series, (S, H, Q), in its own units.

        Args:
            contexts: the past of every series, 1-D, oldest first, NaN where missing. Series of fewer than 16 values
                within the context length repeat their last value, without other quantiles. Values 10,000 times as far
                from the median as most others are read as missing.
            horizon: H; beyond 720 steps forecasts are recursive: the median is fed back as input.
            periods: seasonal period of every series in steps where it is known, such as 24 for hourly data, else 0.

        Raises InputError for an infinite value, or a series of another shape.
        """
        pasts = [without_outliers(_checked(context, index)) for index, context in enumerate(contexts)]
        known = [0] * len(pasts) if periods is None else [int(period) for period in periods]
        if horizon < 1 or len(known) != len(pasts) or min(known, default=0) < 0:
            expected = f"expected at least 1 step, and {len(pasts)} periods of 0 or more"
            raise InputError(f"horizon={horizon}, {len(known)} periods, the least {min(known, default=0)}: {expected}")
        result = np.full((len(pasts), horizon, len(LEVELS)), np.nan)
        long_enough = []
        for index, past in enumerate(pasts):
            observed = past[~np.isnan(past)]
            if self._is_long_enough(past):
                long_enough.append(index)
            elif len(observed):
                result[index, :, _MEDIAN] = observed[-1]
        for rows in self._batches([len(past) for past in pasts], long_enough):
            result[rows] = self._forecast([pasts[row] for row in rows], [known[row] for row in rows], horizon)
        return result

    def predict(
        self,
        data: Any,
        horizon: int,
        *,
        time: str = ColumnRoles().time,
        id: str | None = None,
        target: Sequence[str] = (),
        period: int | None = None,
        timezone: str | None = None,
    ) -> Any:
        """Forecast the steps after the last row of every series of a data frame.

        Args:
            data: a polars or pandas frame, wide (a column per series) or long (a row per series and time). Missing
                cells and rows are allowed.
            horizon: H.
            time: column of the timestamps; by default `date`, else the first column with timestamps.
            id: column with the name of each row's series; by default the only column of text, if times repeat.
            target: columns to forecast; by default all with numbers.
            period: seasonal period in steps; None derives it from the time step.
            timezone: of the timestamps, see `data.timezone`.

        Returns:
            A frame of the same library: `timestamp`, `channel`, `origin`, `step`, `forecast` (the median), `q0.1` to
            `q0.9`, the 80 % interval `lower_80` and `upper_80`, `model`, and `series` for a long table.

        Raises InputError when the frame cannot be read as series.
        """
        frame = to_polars_frame(data)
        table = Table(
            frame,
            ColumnRoles(time, tuple(target), id),
            timezone=timezone,
            fill="missing",
            seasonal_period=period,
            infer_roles=True,
        )
        forecasts = self.forecast(table, horizon)  # which reads the table and resolves its roles
        has_ids = table.resolved_roles.id is not None
        found = pl.concat([to_table(each, has_ids) for each in forecasts])
        return in_library_of(data, found)

    def forecast(self, table: Table, horizon: int) -> list[TableForecast]:
        """Forecast every series of a table; see `predict`."""
        panel = table.read()
        period = table.seasonal_period if table.seasonal_period > 1 else 0
        contexts = [column for series in panel for column in series.values.T]
        quantiles = iter(self.predict_arrays(contexts, horizon, [period] * len(contexts)))
        forecasts = []
        for series in panel:
            values = np.stack([next(quantiles) for _ in series.channels], axis=1)
            read = [without_outliers(column) for column in series.values.T]
            models = [MODEL if self._is_long_enough(column) else FALLBACK for column in read]
            outliers = [int(np.isnan(x).sum() - np.isnan(y).sum()) for x, y in zip(read, series.values.T, strict=True)]
            times = times_after(series.timestamps, table.interval, horizon, series.timezone)
            forecasts.append(TableForecast(series, times, values, models, outliers))
        return forecasts

    def stream(self, series: int = 1, period: int = 0) -> "ForecastStream":
        """Return a stream of parallel series, of which nothing was read yet; `period` is 0 where it is unknown."""
        if series < 1 or period < 0:
            raise InputError(f"series={series}, period={period}: expected at least 1, and 0 or more")
        return ForecastStream(self.model, torch.full((series,), period), None, np.empty((series, 0)))

    def load_stream(self, path: str | Path) -> "ForecastStream":
        """Return the stream that `ForecastStream.save` wrote; raises InputError for another file."""
        try:
            named = load_file(path)
            pending, nominal = named.pop("pending").numpy(), named.pop("period")
            state = SeriesState.from_named_tensors(named, self.model.backbone) if named else None  # type: ignore[arg-type]
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not the state of a stream of this model: {error}") from None
        return ForecastStream(self.model, nominal, state, pending)

    def _is_long_enough(self, past: NDArray[np.float64]) -> bool:
        return int((~np.isnan(past[-self.context_length :])).sum()) >= MIN_ROWS

    def _batches(self, lengths: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
        """Yield rows of nearly equal lengths, which are padded to the longest of them."""
        patches = {row: -(-min(lengths[row], self.context_length) // PATCH) for row in rows}
        batch: list[int] = []
        for row in sorted(rows, key=patches.__getitem__):
            full = (len(batch) + 1) * patches[row] * PATCH > _BATCH_STEPS
            if batch and (full or patches[row] != patches[batch[0]]):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.inference_mode()
    def _forecast(
        self, pasts: Sequence[NDArray[np.float64]], periods: Sequence[int], horizon: int
    ) -> NDArray[np.float64]:
        pasts = [past[-self.context_length :] for past in pasts]
        length = -(-max(map(len, pasts)) // PATCH) * PATCH
        values = torch.full((len(pasts), length), torch.nan, dtype=torch.float64)
        for row, past in enumerate(pasts):
            values[row, length - len(past) :] = torch.tensor(past)
        floor = torch.where((values.nan_to_num(nan=0.0) >= 0).all(1), 0.0, -torch.inf)
        context, encoded, state = read_series(self.model, values, torch.tensor(periods))
        blocks = [self.model.forecast(context, encoded, min(_DIRECT, -(-horizon // PATCH)))]
        while (done := sum(block.shape[1] for block in blocks)) < horizon:
            context, encoded, state = read_series(self.model, blocks[-1][..., _MEDIAN], state.nominal, state)
            block = self.model.forecast(context, encoded, min(_DIRECT, -(-(horizon - done) // PATCH)))
            blocks.append(_wider(block, blocks[-1][:, -1:]))
        # A series that was never negative is taken for one that cannot be: demand, counts, prices.
        return torch.cat(blocks, dim=1)[:, :horizon].clamp_min(floor.view(-1, 1, 1)).numpy()


class ForecastStream:
    """Series that are read as they come; forecasts equal those of a first call with all rows.

    Rows are read in patches of 16; rows of an unfinished patch wait, and count as unread.
    """

    def __init__(
        self, model: UniversalForecaster, period: torch.Tensor, state: SeriesState | None, pending: NDArray[np.float64]
    ) -> None:
        self.model = model
        self.period = period
        self.state = state
        self.pending = pending  # (S, rows of the unfinished patch)

    @property
    def rows(self) -> int:
        """Number of rows given so far."""
        read = self.state.patches * PATCH if self.state else 0
        return read + int(self.pending.shape[1])

    @torch.inference_mode()
    def append(self, values: ArrayLike, horizon: int) -> NDArray[np.float64] | None:
        """Read the next rows (S, rows), or (rows,) of a single series; NaN where missing.

        Returns the quantiles of the next `horizon` steps after the last finished patch, (S, H, Q), or None if the rows
        finish no patch. Raises InputError for rows of another shape, an infinite value, or a horizon beyond 720.
        """
        rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if rows.shape[0] != len(self.period) or rows.ndim != 2 or np.isinf(rows).any():
            raise InputError(
                f"values: expected finite numbers or NaN of shape ({len(self.period)}, rows); got {rows.shape}"
            )
        if not 1 <= horizon <= _DIRECT * PATCH:
            raise InputError(f"horizon={horizon}: expected 1 to {_DIRECT * PATCH} for a stream")
        rows = np.concatenate([self.pending, rows], axis=1)
        whole = rows.shape[1] // PATCH * PATCH
        self.pending = rows[:, whole:]
        if not whole:
            return None
        context, encoded, self.state = read_series(
            self.model, torch.from_numpy(rows[:, :whole]), self.period, self.state
        )
        return self.model.forecast(context, encoded, -(-horizon // PATCH))[:, :horizon].numpy()

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file, for `PretrainedForecaster.load_stream`."""
        named = self.state.named_tensors() if self.state else {}
        own = {"pending": torch.from_numpy(np.ascontiguousarray(self.pending)), "period": self.period}
        with replacing(Path(path)) as partial:
            save_file({**named, **own}, partial)


def load_forecaster(weights: str | Path = UNIVERSAL, context_length: int = WINDOW) -> PretrainedForecaster:
    """Load the pre-trained forecaster.

    Args:
        weights: "universal" is the one that comes with the package; else a run of task.name=universal, a checkpoint, or
            a folder of `titans-seq export`.
        context_length: the most steps of the past that forecasts of arrays and tables read.

    Raises InputError when there are no such weights, or they are of another task.
    """
    return PretrainedForecaster(load_universal(str(weights)).model, context_length)


def to_table(forecast: TableForecast, has_ids: bool) -> pl.DataFrame:
    """Return the rows of one series: one per step and channel."""
    series, values = forecast.series, forecast.quantiles
    low, high = values[None, ..., 0], values[None, ..., -1]
    times = forecast.times.to_numpy()[None]
    bounds = {0.8: (low, high)}
    table = long_table(
        series.channels, times, series.timestamps[-1:], values[None], LEVELS, bounds, timezone=series.timezone
    )
    models = pl.Series("model", forecast.models * values.shape[0])
    table = table.with_columns(pl.selectors.float().fill_nan(None), models)
    return table.insert_column(0, pl.Series("series", [series.name] * len(table))) if has_ids else table


def without_outliers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values (T,) with NaN in place of those far beyond all usual ones, such as a misplaced decimal point."""
    observed = values[~np.isnan(values)]
    if len(observed) < MIN_ROWS:
        return values
    ranks = [round(level * (len(observed) - 1)) for level in (0.05, 0.5, 0.95)]
    low, median, high = np.partition(observed, ranks)[ranks]  # twenty times as fast as np.quantile
    if low == high:
        return values
    return np.where(np.abs(values - median) > _OUTLYING * (high - low), np.nan, values)


def _wider(block: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Add the spread at the end of the block before, (S, 1, Q): errors of the two are taken for independent."""
    median = block[..., _MEDIAN : _MEDIAN + 1]
    gaps, earlier = block - median, before - before[..., _MEDIAN : _MEDIAN + 1]
    return median + torch.sign(gaps) * (gaps.square() + earlier.square()).sqrt()


def _checked(context: ArrayLike, index: int) -> NDArray[np.float64]:
    values = np.asarray(context, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise InputError(f"contexts[{index}]: expected a 1-D array of finite numbers or NaN; got shape {values.shape}")
    return values
