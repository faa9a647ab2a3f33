"""Series that are short, new, stale, constant or empty: none of them stops the forecasts of the others."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tests.helpers import TWO_STEPS, Refuse, run_cli

START, ROWS, LENGTH, HORIZON = datetime(2022, 1, 3), 120, 21, 7
ENDS = ["q0.05", "q0.95", "lower_80", "upper_80"]
MODEL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "model.category_dropout=0.2"]


def rows(store: str, count: int = ROWS, kind: str = "big", *, skip: int = 0, flat: bool = False) -> pl.DataFrame:
    """Days of a store that ends `skip` days before the last one."""
    rng = np.random.default_rng(len(store))
    days = [START + timedelta(days=ROWS - skip - count + i) for i in range(count)]
    values = [
        3.0 if flat else 50 + 9 * day.weekday() + noise for day, noise in zip(days, rng.normal(size=count), strict=True)
    ]
    return pl.DataFrame({"date": [f"{day:%Y-%m-%d}" for day in days], "store": store, "y": values, "kind": kind})


def void(store: str) -> pl.DataFrame:
    return rows(store).with_columns(y=pl.lit(None, pl.Float64))


LONG = (rows("a"), rows("bb", kind="small"))
LAST = START + timedelta(days=ROWS - 1)


def write(path: Path, *parts: pl.DataFrame) -> Path:
    pl.concat(parts).write_csv(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a panel, some of whose series cannot be trained on."""
    folder = tmp_path_factory.mktemp("panel")
    table = write(folder / "t.csv", *LONG, rows("flat", flat=True), rows("few", 10), void("void"))
    words = [
        f"data.path={table}",
        "data.id=store",
        "data.target=[y]",
        "data.static=[kind]",
        f"run.dir={folder / 'run'}",
    ]
    words += [f"data.context_length={LENGTH}", f"data.horizon={HORIZON}", *MODEL, *TWO_STEPS]
    answer = run_cli("fit", "forecasting/table", *words, cwd=folder)
    assert answer.status == 0, answer.err
    assert "t, 3 series: 21 steps to 7" in answer.out
    notes = [line for line in answer.out.splitlines() if line.startswith("Note: ")]
    assert notes == [
        "Note: 1 series (void): a column has no values: left out of the training",
        "Note: 1 series (few): fewer than 28 training rows: left out of the training",
    ]
    return folder / "run"


def forecast(run: Path, table: Path, *words: str | Path) -> tuple[pl.DataFrame, str]:
    """Return the table of forecasts and what the command prints."""
    out = table.with_suffix(".parquet")
    answer = run_cli("forecast", run, "--data", table, "--out", out, "trainer.accelerator=cpu", *words)
    assert answer.status == 0, answer.err
    return pl.read_parquet(out), answer.out


@pytest.fixture(scope="module")
def alone(run: Path) -> pl.DataFrame:
    """Forecasts of the two long series."""
    return forecast(run, write(run.parent / "long.csv", *LONG))[0]


def test_forecast_of_every_kind_of_series(run: Path, alone: pl.DataFrame, tmp_path: Path) -> None:
    parts = [rows("toys", kind="toys"), rows("few", 10), rows("week", 6), rows("one", 1), rows("flat", flat=True)]
    table, out = forecast(run, write(tmp_path / "t.csv", *LONG, *parts, void("void")))
    assert len(table) == HORIZON * 8
    assert table.filter(pl.col("series").is_in(["a", "bb"])).equals(alone)
    assert table["timestamp"].unique().sort().to_list() == [LAST + timedelta(days=i) for i in range(1, HORIZON + 1)]
    models = dict(table.select("series", "model").unique().iter_rows())
    assert models == {
        **dict.fromkeys(["a", "bb", "flat", "toys"], "lmm"),
        **{"few": "lmm, padded", "week": "last value", "one": "last value", "void": "none"},
    }
    for store in ("a", "bb", "flat", "toys", "few"):
        assert table.filter(series=store).select("forecast", *ENDS).null_count().row(0) == (0, 0, 0, 0, 0), store
    for store in ("week", "one", "void"):
        assert table.filter(series=store).select(ENDS).null_count().row(0) == (HORIZON,) * 4, store
    assert table.filter(series="week")["forecast"].to_list() == pytest.approx([rows("week", 6)["y"][-1]] * HORIZON)
    assert table.filter(series="void")["forecast"].null_count() == HORIZON
    assert table.filter(series="flat")["forecast"].to_list() == pytest.approx([3.0] * HORIZON, abs=1.0)
    for line in (
        "Note: 1 series (toys): kind=toys not in training; read as an unknown category",
        "Note: 1 series (few): fewer than 21 rows: their first season is repeated before them",
        "Note: 2 series (one, week): fewer than 7 rows: the forecast is naive",
        "Note: 1 series (void): a column has no values: the forecast is naive",
    ):
        assert line in out


def test_a_padded_forecast_is_that_of_the_padded_rows(run: Path, tmp_path: Path) -> None:
    few = rows("few", 10)
    table, _ = forecast(run, write(tmp_path / "t.csv", few))
    earlier = [few["y"][i % 7] for i in range(-11, 0)]
    padded = rows("few", LENGTH).with_columns(y=pl.Series([*earlier, *few["y"]]))
    whole, _ = forecast(run, write(tmp_path / "u.csv", padded))
    np.testing.assert_allclose(table["forecast"], whole["forecast"], rtol=1e-4)  # scaled by other statistics
    high, _ = forecast(run, tmp_path / "t.csv", "model.floor=1000")
    assert high["forecast"].to_list() == [1000.0] * HORIZON


def test_short_series_are_dropped_or_refused(run: Path, alone: pl.DataFrame, tmp_path: Path, refuse: Refuse) -> None:
    path = write(tmp_path / "t.csv", *LONG, rows("few", 10))
    table, out = forecast(run, path, "data.short=drop")
    assert table.equals(alone)
    assert "Note: 1 series (few): fewer than 21 rows: left out, data.short=drop" in out
    line = refuse("forecast", run, "--data", path, "data.short=refuse")
    assert "series 'few': 10 rows before the first step to forecast" in line
    only = write(tmp_path / "u.csv", rows("few", 10))
    assert "no series has the 21 rows" in refuse("forecast", run, "--data", only, "data.short=drop")


def test_series_that_end_early(run: Path, alone: pl.DataFrame, tmp_path: Path) -> None:
    late, stale = rows("late", 100, skip=3), rows("stale", 60, skip=60)
    path = write(tmp_path / "t.csv", *LONG, late, stale)
    table, out = forecast(run, path)
    assert table.filter(pl.col("series").is_in(["a", "bb"])).equals(alone)
    assert table.filter(series="late")["timestamp"].min() == LAST - timedelta(days=2)
    assert "Note: 2 series (late: 2022-04-29, stale: 2022-03-03): end before the last time, 2022-05-02; " in out
    one, out = forecast(run, path, "--origin", "last")
    assert set(one["origin"]) == {LAST}
    assert one["timestamp"].unique().sort().to_list() == [LAST + timedelta(days=i) for i in range(1, HORIZON + 1)]
    assert one.filter(pl.col("series").is_in(["a", "bb"])).equals(alone)
    longer, _ = forecast(run, path, "--horizon", str(HORIZON + 3))
    part = one.filter(series="late")
    assert set(part["model"]) == {"lmm"}
    assert part["step"].to_list() == list(range(1, HORIZON + 1))
    assert part["forecast"].to_list() == longer.filter(series="late")["forecast"].to_list()[3:]
    assert part["q0.05"].null_count() == part["lower_80"].null_count() == 3
    assert set(one.filter(series="stale")["model"]) == {"seasonal naive"}
    naive = [stale["y"][-7:][(60 + i) % 7] for i in range(HORIZON)]
    assert one.filter(series="stale")["forecast"].to_list() == pytest.approx(naive)
    assert "Note: 1 series (late: 2022-04-29): end before the origin, 2022-05-02: the steps between are forecast" in out
    assert "Note: 1 series (stale: 2022-03-03): end before the origin, 2022-05-02: the forecast is naive" in out


def test_a_given_origin_uses_only_the_rows_up_to_it(run: Path, tmp_path: Path) -> None:
    whole = write(tmp_path / "t.csv", *LONG, rows("new", 10))
    cut = write(tmp_path / "u.csv", *(part.head(100) for part in LONG))
    table, out = forecast(
        run, whole, "--origin", f"{START + timedelta(days=99):%Y-%m-%d}", "--plot", tmp_path / "p.png"
    )
    assert table.equals(forecast(run, cut)[0])
    assert "Note: 1 series (new): start after the origin, 2022-04-12: left out" in out


def test_backtest_of_series_with_fewer_rows(run: Path, tmp_path: Path, refuse: Refuse) -> None:
    path = write(tmp_path / "t.csv", *LONG, rows("short", 30, "toys"), rows("few", 10), void("void"))
    words = ["backtest", run, "--data", path, "--windows", "6", "--out", tmp_path / "b.csv", "trainer.accelerator=cpu"]
    answer = run_cli(*words)
    assert answer.status == 0, answer.err
    scores = pl.read_csv(tmp_path / "b.csv")
    assert scores["series"].to_list() == ["a", "bb", "short", None, None]
    assert scores["windows"].to_list() == [6, 6, 3, 15, 15]
    assert scores.select("mae", "wql").null_count().row(0) == (0, 1)
    answer = run_cli("backtest", run, "--data", write(tmp_path / "l.csv", *LONG), *words[4:])
    assert pl.read_csv(tmp_path / "b.csv")[:2].equals(scores[:2])
    refused = [*words[:3], write(tmp_path / "r.csv", *LONG, rows("few", 10)), *words[4:], "data.short=refuse"]
    assert "series 'few': 10 rows; 6 windows" in refuse(*refused)


def test_a_checkpoint_without_a_code_for_unknown_categories(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    parameters, weights = content["hyper_parameters"], content["state_dict"]
    (name,) = [key for key in weights if key.startswith("model.static.tables")]
    weights[name] = weights[name][:-1]
    del parameters["layout"]["unknown"], parameters["covariates"]["unknown"], parameters["config"]["data"]["short"]
    del parameters["config"]["model"]["category_dropout"]
    parameters["covariates"]["categories"] = [2]
    torch.save(content, tmp_path / "old.ckpt")
    path = write(tmp_path / "t.csv", *LONG, rows("toys", kind="toys"))
    table, out = forecast(tmp_path / "old.ckpt", path)
    assert dict(table.select("series", "model").unique().iter_rows()) == {
        **{"a": "lmm", "bb": "lmm", "toys": "seasonal naive"}
    }
    assert "Note: 1 series (toys): categories not in training, which this checkpoint has no code for" in out


def test_evaluation_with_new_series_and_categories(run: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", *LONG, rows("toys", kind="toys"), rows("few", 10))
    answer = run_cli("test", run, f"data.path={path}", "trainer.accelerator=cpu")
    assert answer.status == 0, answer.err
    assert "note: 1 series (toys: kind=toys): not in training; read as an unknown category" in answer.err
    assert "note: 1 series (few): fewer than 28 training rows: left out of the training" in answer.err
