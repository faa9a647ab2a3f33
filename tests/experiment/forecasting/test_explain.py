"""Importance and effect of covariates: a planted effect is found, and inputs that the model ignores have none."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.experiment.forecasting.sales import HORIZON, Panel, sales
from tests.helpers import CONFIGS, run_cli
from titans_seq.errors import InputError
from titans_seq.experiment import explain

ROWS, COST = 600, 20.0
SETTINGS = [
    *("data.target=[y]", "data.known=[price, other]", "data.past=[seen]", "data.calendar=[]", "data.context_length=14"),
    *("data.horizon=4", "model.patch_length=7", "model.stride=7", "model.dim=8", "model.num_layers=1"),
    *("model.memory.num_heads=2", "model.head=point", "task.learning_rate=0.01", "trainer.max_epochs=6"),
    *("trainer.accelerator=cpu", "trainer.progress_bar=false", "logging.wandb=off", "data.batch_size=16"),
]


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table whose values fall by COST when the price is 1, and a run on it."""
    folder = tmp_path_factory.mktemp("priced")
    rng = np.random.default_rng(0)
    price = (rng.random(ROWS) < 0.3).astype(float)
    values = 100 - COST * price + rng.normal(size=ROWS)
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 1, 1) + pl.duration(days=ROWS - 1), eager=True)
    columns = {"date": days, "y": values, "price": price, "other": rng.normal(size=ROWS), "seen": rng.normal(size=ROWS)}
    pl.DataFrame(columns).write_csv(folder / "priced.csv")
    table = CONFIGS / "forecasting" / "table.yaml"
    answer = run_cli("fit", table, f"data.path={folder / 'priced.csv'}", *SETTINGS, f"run.dir={folder / 'run'}")
    assert answer.status == 0, answer.err
    return folder, folder / "run"


def test_a_planted_effect_is_found(priced: tuple[Path, Path]) -> None:
    folder, run = priced
    out, plot = folder / "explain.csv", folder / "explain.png"
    answer = run_cli("explain", run, "--windows", "60", "--out", out, "--plot", plot, "trainer.accelerator=cpu")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[1].startswith("price (known)"), "the most important one is first"
    assert plot.stat().st_size > 10_000
    table = pl.read_csv(out)
    assert len(table) == 3 * 4
    of_price = table.filter(covariate="price")
    assert of_price["effect"].to_list() == pytest.approx([-COST] * 4, rel=0.15)
    assert of_price["low"].to_list() == [0.0] * 4
    assert of_price["high"].to_list() == [1.0] * 4
    assert of_price["importance"].min() > 100
    for name in ("other", "seen"):
        assert table.filter(covariate=name)["importance"].abs().max() < 30
    assert table.filter(covariate="other")["effect"].abs().max() < 0.1 * COST
    assert table.filter(covariate="seen")["effect"].null_count() == 4, "past covariates have no effect ahead"


def test_the_same_seed_gives_the_same_table(priced: tuple[Path, Path]) -> None:
    folder, run = priced
    one, same, other = (
        explain(run, folder / "e.parquet", ["trainer.accelerator=cpu"], windows=20, seed=seed) for seed in (0, 0, 1)
    )
    assert one.equals(same)
    assert not one.equals(other)


def test_every_kind_of_covariate_is_a_row(panel: Panel) -> None:
    found = explain(panel.checkpoint, panel.folder / "e.csv", ["trainer.accelerator=cpu"], data=panel.table, windows=9)
    assert found.select("covariate", "role").unique(maintain_order=True).rows() == [
        ("promo", "known"),
        ("day_of_week", "calendar"),
        ("kind", "static"),
    ]
    assert found["step"].to_list() == [*range(1, HORIZON + 1)] * 3
    assert found["importance"].is_finite().all()


def test_short_and_empty_series_have_no_windows(panel: Panel) -> None:
    part = sales().filter(store="b")
    empty = part.with_columns(store=pl.lit("empty"), sales=pl.lit(None, pl.Float64))
    short = part.head(9).with_columns(store=pl.lit("short"))
    table = panel.folder / "more.csv"
    pl.concat([sales(), empty, short]).write_csv(table)
    both = [
        explain(panel.checkpoint, panel.folder / "e.csv", ["trainer.accelerator=cpu"], data=path, windows=9)
        for path in (panel.table, table)
    ]
    assert both[0].equals(both[1])


def test_a_model_without_covariates_is_refused(tmp_path: Path, priced: tuple[Path, Path]) -> None:
    folder, _ = priced
    without = [word for word in SETTINGS if not word.startswith(("data.known", "data.past"))]
    table = CONFIGS / "forecasting" / "table.yaml"
    run = tmp_path / "run"
    run_cli("fit", table, f"data.path={folder / 'priced.csv'}", *without, "trainer.max_epochs=1", f"run.dir={run}")
    answer = run_cli("explain", run, "--out", tmp_path / "e.csv", "trainer.accelerator=cpu")
    assert answer.status == 2
    assert "no covariates to explain" in answer.err
    with pytest.raises(InputError, match="at least 2"):
        explain(run, tmp_path / "e.csv", windows=1)
