"""Forecasts of a user's table against an independent computation, and error messages."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure

from datamodules.time_series.datasets.simulated import SimulatedSeries
from tests.experiment.forecasting.sales import HORIZON, ROWS, START, Panel, expected_forecast, sales
from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, Refuse, run_cli
from titans_seq.experiment.forecasting.inference import cut_inputs, forecast_recursively, load_trained
from titans_seq.experiment.forecasting.plots import ForecastPanel, plot_forecast_panels


def run_forecast(panel: Panel, *arguments: str | Path, data: Path | None = None) -> pl.DataFrame:
    """Run `titans-seq forecast` and return the table that it writes."""
    out = panel.folder / "out.parquet"
    common = ["--future", panel.plans, "--out", out, "trainer.accelerator=cpu"]
    answer = run_cli("forecast", panel.checkpoint, "--data", data or panel.table, *common, *arguments)
    assert answer.status == 0, answer.err
    return pl.read_parquet(out)


def test_forecast_equals_an_independent_computation(panel: Panel) -> None:
    table = run_forecast(panel)
    assert table["series"].unique().sort().to_list() == ["a", "b", "c"]
    for store, rows in ROWS.items():
        part = table.filter(series=store)
        last = START + timedelta(days=rows - 1)
        assert part["timestamp"].to_list() == [last + timedelta(days=i) for i in range(1, HORIZON + 1)]
        assert set(part["origin"]) == {last}
        assert part["step"].to_list() == list(range(1, HORIZON + 1))
        quantiles, lower, upper = expected_forecast(panel, store, rows)
        np.testing.assert_allclose(part.select("q0.1", "q0.5", "q0.9").to_numpy(), quantiles, rtol=1e-5)
        assert part["forecast"].equals(part["q0.5"])
        np.testing.assert_allclose(part.select("lower_80", "lower_95").to_numpy().T, lower, rtol=1e-5)
        np.testing.assert_allclose(part.select("upper_80", "upper_95").to_numpy().T, upper, rtol=1e-5)


def test_the_plot_shows_the_chosen_series_from_their_last_row_on(
    panel: Panel, tmp_path: Path, figures: list[Figure]
) -> None:
    run_forecast(panel, "--plot", tmp_path / "all.png")
    run_forecast(panel, "--plot", tmp_path / "two.png", "--series", "a", "--series", "c")
    names = [[axis.get_ylabel() for axis in figure.axes] for figure in figures]
    assert names == [["a\nsales", "b\nsales", "c\nsales"], ["a\nsales", "c\nsales"]]
    for axis, store in zip(figures[1].axes, ("a", "c"), strict=True):
        lines = {str(line.get_label()): line for line in axis.get_lines()}
        last = np.datetime64(START + timedelta(days=ROWS[store] - 1))
        for line, end in ((lines["history"], -1), (lines["forecast"], 0)):
            assert np.asarray(line.get_xdata())[end] == last
        assert lines["history"].get_ydata()[-1] == lines["forecast"].get_ydata()[0]  # type: ignore[index]
        assert len(lines["forecast"].get_xdata()) == HORIZON + 1  # type: ignore[arg-type]
    assert figures[1].axes[-1].get_xlabel() == "time"
    texts = [text.get_text() for text in figures[1].legends[0].get_texts()]
    assert texts == ["history", "forecast", "95 % interval", "80 % interval"]


def test_a_note_says_when_series_are_not_drawn(panel: Panel, tmp_path: Path, figures: list[Figure]) -> None:
    many, plans = (pl.concat([t.with_columns(pl.col("store") + n) for n in "xyz"]) for t in (sales(), sales(7)))
    many.write_csv(tmp_path / "many.csv")
    plans.write_csv(tmp_path / "plans.csv")
    words = ["--data", tmp_path / "many.csv", "--future", tmp_path / "plans.csv", "trainer.accelerator=cpu"]
    words += ["--out", tmp_path / "out.csv", "--plot", tmp_path / "plot.png"]
    answer = run_cli("forecast", panel.checkpoint, *words)
    assert "Note: the plot shows the first 6 of 9 series; select others with --series NAME" in answer.out, answer.err
    answer = run_cli("forecast", panel.checkpoint, *words, "--series", "sales")
    assert "Note: the plot" not in answer.out
    assert [len(figure.axes) for figure in figures] == [6, 9]
    assert [figure.get_suptitle().partition(": ")[2] for figure in figures] == [
        f"the next {HORIZON} steps (6 of 9 series)",
        f"the next {HORIZON} steps",
    ]


def test_long_names_of_a_panel_keep_their_lines(tmp_path: Path, figures: list[Figure]) -> None:
    times, values = np.arange(3).astype("datetime64[D]"), np.zeros(3)
    panel = ForecastPanel("a series whose name is far too long\nsales", times, values, times + 3, values, {})
    plot_forecast_panels(tmp_path / "a.png", [panel], title="t")
    assert figures[0].axes[0].get_ylabel() == "a series whose name is far …\nsales"


def test_forecast_beyond_the_horizon_is_recursive(panel: Panel) -> None:
    table = run_forecast(panel, "--horizon", "12")
    ends = ["q0.1", "q0.9", "lower_80", "upper_95"]
    for store, rows in ROWS.items():
        part = table.filter(series=store)
        assert part["step"].to_list() == list(range(1, 13))
        assert part[HORIZON:].select(ends).null_count().row(0) == (5, 5, 5, 5)
        assert part[:HORIZON].select(ends).null_count().row(0) == (0, 0, 0, 0)
        forecast_rows = (
            sales(HORIZON).filter(store=store)[rows:].with_columns(part["forecast"][:HORIZON].alias("sales"))
        )
        longer = panel.folder / "longer.csv"
        pl.concat([sales().filter(store=store), forecast_rows]).write_csv(longer)
        after = run_forecast(panel, "--horizon", "5", data=longer)
        np.testing.assert_allclose(part["forecast"][HORIZON:], after["forecast"], rtol=1e-5)
        assert part["timestamp"][HORIZON:].equals(after["timestamp"])


def test_forecast_does_not_use_values_after_the_origin(panel: Panel) -> None:
    run = load_trained(panel.checkpoint, panel.table, ["trainer.accelerator=cpu"])
    series, row = run.scaled_series[1], 150
    future = series.scaled[row : row + HORIZON, 1:]
    before = forecast_recursively(run, cut_inputs(run, series, row, future), HORIZON)
    poisoned, touched = series.scaled.copy(), series.scaled.copy()
    poisoned[row:] = np.nan
    touched[row - 1, 0] += 1
    np.testing.assert_array_equal(
        forecast_recursively(run, cut_inputs(run, series._replace(scaled=poisoned), row, future), HORIZON), before
    )
    assert not np.array_equal(
        forecast_recursively(run, cut_inputs(run, series._replace(scaled=touched), row, future), HORIZON), before
    )


def test_changing_later_values_does_not_change_a_forecast(panel: Panel) -> None:
    later = f"{START + timedelta(days=185):%Y-%m-%d}"
    changed = sales().with_columns(pl.when(pl.col("date") >= later).then(pl.col("sales") * 3 + 5).otherwise("sales"))
    changed = changed.select("date", "store", pl.col("sales"), "promo", "kind")
    tables = []
    for name, content in (("before.csv", sales()), ("after.csv", changed)):
        content.write_csv(panel.folder / name)
        arguments = [f"data.path={panel.folder / name}", "--out", panel.folder / "p.parquet", "trainer.accelerator=cpu"]
        answer = run_cli("predict", panel.checkpoint, *arguments)
        assert answer.status == 0, answer.err
        tables.append(pl.read_parquet(panel.folder / "p.parquet"))
    before, after = (t.filter(pl.col("origin") < datetime.fromisoformat(later)) for t in tables)
    numbers = ["forecast", "q0.1", "q0.9"]
    assert len(before) > 20
    assert before.select(numbers).equals(after.select(numbers))
    assert not before["truth"].equals(after["truth"])
    assert not tables[0].select(numbers).equals(tables[1].select(numbers))


def test_series_unseen_in_training(panel: Panel) -> None:
    path = panel.folder / "new.csv"
    sales().with_columns(pl.col("store") + "x").write_csv(path)
    plans = panel.folder / "newplans.csv"
    sales(7).with_columns(pl.col("store") + "x").write_csv(plans)
    out = panel.folder / "new.parquet"
    arguments = ["--data", path, "--future", plans, "--out", out, "trainer.accelerator=cpu"]
    answer = run_cli("forecast", panel.checkpoint, *arguments)
    assert answer.status == 0, answer.err
    assert "3 series unseen in training are scaled by their own statistics: 'ax', 'bx', 'cx'" in answer.out


def test_a_series_without_future_covariates_does_not_stop_the_others(panel: Panel) -> None:
    plans = panel.folder / "plans_without_c.csv"
    pl.read_csv(panel.plans).filter(pl.col("store") != "c").write_csv(plans)
    out = panel.folder / "out.parquet"
    words = ["--data", panel.table, "--future", plans, "--out", out, "trainer.accelerator=cpu"]
    answer = run_cli("forecast", panel.checkpoint, *words)
    assert answer.status == 0, answer.err
    line = "series 'c': promo required until 2022-08-25 (7 steps); the file has no rows of this series"
    assert line in answer.out
    table = pl.read_parquet(out)
    whole = run_forecast(panel)
    assert table.filter(pl.col("series") != "c").equals(whole.filter(pl.col("series") != "c"))
    last = sales().filter(store="c")["sales"].tail(7)
    assert table.filter(series="c")["forecast"].to_list() == pytest.approx(last.to_list())
    assert set(table.filter(series="c")["model"]) == {"seasonal naive"}


def test_forecast_and_backtest_errors(panel: Panel, refuse: Refuse, tmp_path: Path) -> None:
    def table(name: str, content: pl.DataFrame) -> Path:
        content.write_csv(tmp_path / name)
        return tmp_path / name

    checkpoint, future = panel.checkpoint, ["--future", panel.plans]
    short = table("short.csv", sales().filter(pl.col("store") != "a").filter(pl.col("date") < "2022-01-20"))
    soon = table("soon.csv", sales(4).drop("sales"))
    bare = table("bare.csv", sales().drop("sales"))
    cases: list[tuple[str, list[str | Path], str]] = [
        ("forecast", ["--data", tmp_path / "none.csv", *future], "none.csv: no such file"),
        ("forecast", ["--data", bare, *future], "bare.csv: no column 'sales'; found date"),
        (
            "forecast",
            ["--data", short, *future, "data.short=refuse"],
            "short.csv: series 'b': 19 rows before the first step to forecast",
        ),
        ("forecast", [*future, "--origin", "2021-12-31"], "expected a time from 2022-01-01 to 2022-09-17, or last"),
        ("forecast", [*future, "--origin", "soon"], "--origin soon: expected a time such as 2024-03-10 01:00, or last"),
        (
            "forecast",
            ["--data", panel.table],
            "--future: needed until 2022-09-24: a table with the columns date, store",
        ),
        ("forecast", ["--data", panel.table, "--future", soon], "--horizon 4."),
        ("forecast", [*future, "--horizon", "0"], "--horizon 0: must be at least 1"),
        ("forecast", [*future, "--plot", "x.pdf"], "--plot x.pdf: expected a .png file"),
        ("forecast", [*future, "--series", "a"], "--series a: selects what --plot draws; add --plot FILE.png"),
        (
            "forecast",
            ["--data", panel.table, *future, "--plot", tmp_path / "x.png", "--series", "d"],
            "--series d: no such series or channel; available: a, b, c, sales",
        ),
        ("forecast", [*future, "--out", "none/x.csv"], "--out none/x.csv: no such folder none"),
        ("forecast", ["--data", panel.table, *future, "--out", panel.table], "is an input of this command"),
        ("backtest", ["--windows", "0"], "--windows 0"),
        ("backtest", ["--windows", "40"], "before them need 308; use --windows 33 or fewer"),
        ("backtest", ["--windows", "30", "data.short=refuse"], "series 'a': 200 rows"),
    ]
    for command, arguments, part in cases:
        assert part in refuse(command, checkpoint, *arguments), (command, arguments)


def test_checkpoint_without_a_description_of_its_data_is_an_error(panel: Panel, refuse: Refuse, tmp_path: Path) -> None:
    content = torch.load(panel.checkpoint, weights_only=True)
    for layout in (None, {}, {"scalers": {"a": 3}}):
        content["hyper_parameters"]["layout"] = layout
        torch.save(content, tmp_path / "old.ckpt")
        line = refuse("forecast", tmp_path / "old.ckpt", "--data", panel.table)
        assert "old.ckpt: contains no description of its training data; train the model again" in line


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "run"
    overrides = [*SMALL_MODEL, *TWO_STEPS, "model.linear_path=learned", f"run.dir={folder}"]
    assert run_cli("fit", CONFIGS / "forecasting" / "synthetic.yaml", *overrides).status == 0
    return folder / "checkpoints" / "best.ckpt"


def test_built_in_dataset_is_forecast_from_its_own_data_or_a_table(synthetic: Path, tmp_path: Path) -> None:
    series = SimulatedSeries().load()
    table = pl.DataFrame(dict(zip(series.channels, series.values.T, strict=True)))
    table.insert_column(0, pl.Series("date", series.timestamps)).write_csv(tmp_path / "own.csv")
    tables = []
    for arguments in ([], ["--data", str(tmp_path / "own.csv")]):
        out = tmp_path / "f.parquet"
        assert run_cli("forecast", synthetic, *arguments, "--out", out, "trainer.accelerator=cpu").status == 0
        tables.append(pl.read_parquet(out).with_columns(pl.selectors.datetime().cast(pl.Datetime("us"))))
    assert tables[0].equals(tables[1])
    assert tables[0].columns == [
        *("timestamp", "channel", "origin", "step", "forecast", "lower_80", "upper_80", "lower_95", "upper_95", "model")
    ]
    assert tables[0]["timestamp"].min() == series.timestamps[-1].astype("datetime64[us]").item() + timedelta(hours=1)
    assert tables[0].filter(step=1)["channel"].to_list() == series.channels


def test_table_with_another_time_step_or_unused_covariates_is_an_error(
    synthetic: Path, refuse: Refuse, tmp_path: Path
) -> None:
    days = pl.DataFrame({"date": [START + timedelta(days=i) for i in range(99)]})
    days.with_columns(pl.lit(1.0).alias(name) for name in SimulatedSeries().load().channels).write_csv(
        tmp_path / "days.csv"
    )
    line = refuse("forecast", synthetic, "--data", tmp_path / "days.csv")
    assert "days.csv: time step 1d; the model requires time step 1h, as in training" in line
    assert "data.known was empty" in refuse("forecast", synthetic, "--future", tmp_path / "days.csv")
