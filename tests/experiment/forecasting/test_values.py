"""Runs on tables as people have them: semicolons and decimal commas, holiday names, a wrong cell, demand near zero."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers import TWO_STEPS, run_cli

ROWS, HORIZON = 150, 7
SMALL = ["data.context_length=28", f"data.horizon={HORIZON}", "model.dim=8", *TWO_STEPS]
DAYS = [date(2022, 1, 1) + timedelta(days=i) for i in range(ROWS + HORIZON)]
WAVE = 100 + 20 * np.sin(np.arange(ROWS) * 2 * np.pi / 7) + np.random.default_rng(0).normal(size=ROWS)
CPU = "trainer.accelerator=cpu"


def fit(folder: Path, *words: str) -> str:
    """Train on t.csv; return what was printed."""
    answer = run_cli("fit", "forecasting/table", "data.path=t.csv", *SMALL, *words, cwd=folder)
    assert answer.status == 0, answer.err
    return answer.out


def command(folder: Path, *words: str) -> tuple[pl.DataFrame, str]:
    """Run `forecast` or `backtest`; return the table and what was printed."""
    answer = run_cli(*words, "--out", "out.csv", cwd=folder)
    assert answer.status == 0, answer.err
    return pl.read_csv(folder / "out.csv"), answer.out


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    numbers = [f"{value:.2f}".replace(".", ",") for value in WAVE]
    rows = [f"{day:%d.%m.%Y};{number}" for day, number in zip(DAYS, numbers, strict=False)]
    (tmp_path / "t.csv").write_bytes("\r\n".join(["Datum;Menge", *rows]).encode("utf-8-sig"))
    times = ["data.time=Datum", "data.time_format=%d.%m.%Y"]
    notes = ("columns are separated by ';'", "read with a decimal ','")
    assert all(note in fit(tmp_path, *times) for note in notes)
    named = ["data.separator=;", "data.decimal=,", "data.encoding=utf-8-sig"]
    for words in (times, [*times, *named]):
        for verb, more in (("forecast", []), ("backtest", ["--windows", "2"])):
            _, trained = command(tmp_path, verb, "runs/table/last", "--data", "t.csv", *words, CPU, *more)
            _, untrained = command(tmp_path, verb, "--data", "t.csv", "--horizon", "7", *words, *more)
            for printed in (trained, untrained):
                assert all((note in printed) == (words is times) for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.separator=ab"], "data.separator: must be one character, tab or pipe; got 'ab'"),
        (["data.decimal=;"], "data.decimal: must be . or , ; got ';'"),
        (["data.thousands=x"], "data.thousands: must be one of , . space apostrophe; got 'x'"),
        (["data.thousands=,", "data.decimal=,"], "data.thousands: , is the decimal mark, too"),
        (["data.encoding=klingon"], "data.encoding: unknown 'klingon'; expected a name such as utf-8"),
        (["data.encoding=base64"], "data.encoding: unknown 'base64'"),
        (["data.path=t.parquet", "data.separator=pipe"], "data.separator: has no effect on a Parquet file"),
    ],
)
def test_keys_that_cannot_be(words: list[str], message: str) -> None:
    answer = run_cli("fit", "data.name=table", "data.path=t.csv", *words)
    assert answer.status == 2
    assert message in answer.err


def test_only_tables_are_text() -> None:
    answer = run_cli("fit", "data.name=ETTh1", "data.decimal=,")
    assert (answer.status, "data.decimal: only applies to data.name=table" in answer.err) == (2, True)


def test_holidays_by_name(tmp_path: Path) -> None:
    names = [("", "Easter", "May Day")[0 if i % 9 else 1 + i // 9 % 2] for i in range(ROWS + HORIZON)]
    names[ROWS] = "Jubilee"
    table = pl.DataFrame({"date": DAYS, "holiday": names})
    table.head(ROWS).with_columns(pl.Series("y", WAVE)).write_csv(tmp_path / "t.csv")
    out = fit(tmp_path, "data.target=[y]", "data.known=[holiday]")
    assert "column holiday: 133 empty cells are a category of their own" in out
    forecast = ["forecast", "runs/table/last", "--data", "t.csv", CPU, "--future", "plans.csv"]
    found = []
    for first in ("Jubilee", "Easter", "Festival"):
        names[ROWS] = first
        pl.DataFrame({"date": DAYS, "holiday": names})[ROWS:].write_csv(tmp_path / "plans.csv")
        result, printed = command(tmp_path, *forecast)
        unknown = (
            f"holiday: 1 of its categories unknown from the training rows, read as the mean of those known: {first!r}"
        )
        assert (unknown in printed) == (first != "Easter")
        found.append(result["forecast"].to_list())
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[0][1:] == found[1][1:]
    table, _ = command(tmp_path, "explain", "runs/table/last", CPU, "--windows", "4")
    holiday = table.filter(covariate="holiday")
    assert (holiday.height, holiday["effect"].null_count()) == (HORIZON, HORIZON)
    assert (holiday["mae"] != holiday["mae_permuted"]).any()
    assert set(table["covariate"]) == {"holiday", "day_of_week", "month_of_year"}
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("May Day", "Ascension"))
    result, printed = command(tmp_path, "backtest", "runs/table/last", "--data", "t.csv", CPU, "--windows", "3")
    assert "read as the mean of those known: 'Ascension'" in printed
    assert result["mae"].is_finite().all()


def test_one_wrong_cell(tmp_path: Path) -> None:
    values = WAVE.copy()
    values[50] = 1e12
    pl.DataFrame({"date": DAYS[:ROWS], "y": values}).write_csv(tmp_path / "t.csv")
    note = "t.csv: y is 1e+12 at 2022-02-20, more than 1000 times as far from the median as usual values"
    assert note in fit(tmp_path)
    table, printed = command(tmp_path, "forecast", "runs/table/last", "--data", "t.csv", CPU)
    assert note in printed
    assert table["forecast"].is_between(50, 150).all()
    assert note not in fit(tmp_path, "data.outliers=null", "data.scaling=robust")


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_no_forecast_is_below_the_floor(tmp_path: Path, head: str) -> None:
    rng = np.random.default_rng(1)
    fading = rng.poisson(np.linspace(12, 0.3, ROWS))
    parts = [pl.DataFrame({"date": DAYS[:ROWS], "sku": s, "y": k * fading}) for k, s in ((1, "A"), (50, "B"))]
    pl.concat(parts).write_csv(tmp_path / "t.csv")
    fit(tmp_path, "data.id=sku", "data.target=[y]", f"model.head={head}", "model.floor=0")
    longer = ["forecast", "runs/table/last", "--data", "t.csv", CPU, "--horizon", "20"]
    bounded, _ = command(tmp_path, *longer)
    free, _ = command(tmp_path, *longer, "model.floor=null")
    columns = [name for name in bounded.columns if name == "forecast" or name.startswith(("q", "lower", "upper"))]
    assert len(columns) >= 3
    assert min(free[name].min() for name in columns) < 0  # type: ignore[type-var]
    assert min(bounded[name].min() for name in columns) == 0  # type: ignore[type-var]
    first = pl.col("step") <= HORIZON  # later steps are fed with earlier ones
    for name in (name for name in columns if name == "forecast" or name.startswith("q")):
        wanted = free.filter(first)[name].clip(0)
        np.testing.assert_allclose(bounded.filter(first)[name].drop_nulls(), wanted.drop_nulls(), rtol=1e-4, atol=1e-5)
