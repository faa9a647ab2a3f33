"""`data.refit`: after selection and test, training on all rows for the selected number of steps."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.experiment.forecasting.sales import HORIZON, LENGTH, OVERRIDES, sales
from tests.experiment.run.faults import Death, run
from tests.experiment.run.test_resume import assert_identical
from tests.helpers import CONFIGS, Refuse, run_cli
from titans_seq.experiment.forecasting.backtest import _forecast_refitted, _forecast_series
from titans_seq.experiment.forecasting.inference import load_ensemble
from titans_seq.models.linear import solve_linear, sum_moments, window_moments

TABLE = CONFIGS / "forecasting" / "table.yaml"
SPLIT = ["data.train_end=-8 horizons", "data.validation_end=-4 horizons", "data.refit=true"]
# Two epochs of three steps, with a checkpoint after each step.
STEPS = [
    *(word for word in OVERRIDES if not word.startswith("trainer.")),
    *("trainer.max_steps=6", "trainer.limit_batches=3", "trainer.checkpoint_steps=1", "trainer.num_threads=1"),
    *("trainer.progress_bar=false", "trainer.accelerator=cpu", "logging.wandb=off"),
]


def write_sales(path: Path, change: Any = None) -> Path:
    """Write the sales, with those of the last two weeks of each store replaced by `change`."""
    table = sales().with_row_index("row").with_columns(n=pl.len().over("store"), k=pl.int_range(pl.len()).over("store"))
    if change is not None:
        late = pl.col("k") >= pl.col("n") - 14
        table = table.with_columns(sales=pl.when(late).then(change).otherwise("sales"))
    table.drop("row", "n", "k").write_csv(path)
    return path


def fit(folder: Path, table: Path, *more: str) -> Path:
    words = [TABLE, f"data.path={table}", *STEPS, *SPLIT, *more, f"run.dir={folder}"]
    answer = run_cli("fit", *words, cwd=folder.parent)
    assert answer.status == 0, answer.err
    return folder


def weights(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / name, weights_only=True)
    return content


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run, beside its table."""
    folder = tmp_path_factory.mktemp("refit")
    return fit(folder / "run", write_sales(folder / "sales.csv"))


def test_only_the_weights_of_all_rows_see_the_test_rows(refitted: Path, tmp_path: Path) -> None:
    changed = fit(tmp_path / "run", write_sales(tmp_path / "sales.csv", 150.0))
    best, again = (weights(refitted, name) for name in ("best.ckpt", "refit.ckpt"))
    assert_identical(weights(changed, "best.ckpt")["state_dict"], best["state_dict"])
    differ = [
        name
        for name, x in weights(changed, "refit.ckpt")["state_dict"].items()
        if not x.equal(again["state_dict"][name])
    ]
    assert differ
    assert again["global_step"] == best["global_step"] > 0
    assert again["lr_schedulers"][0]["last_epoch"] == best["lr_schedulers"][0]["last_epoch"]
    assert again["lr_schedulers"][0]["_last_lr"] == best["lr_schedulers"][0]["_last_lr"]  # of the same schedule
    assert again["hyper_parameters"]["layout"]["scalers"] == best["hyper_parameters"]["layout"]["scalers"]
    assert again["hyper_parameters"]["layout"]["trained_until"].startswith("2022-09-17")


def test_a_linear_map_is_solved_on_all_rows(tmp_path: Path) -> None:
    table = write_sales(tmp_path / "sales.csv")
    words = ["model.baseline=linear", "model.head=point", "task.quantiles=[0.1,0.5,0.9]"]
    folder = fit(tmp_path / "run", table, *words)
    content = weights(folder, "refit.ckpt")
    scalers = content["hyper_parameters"]["layout"]["scalers"]
    parts = []
    for (store,), part in sales().group_by("store", maintain_order=True):
        z = (part["sales"].to_numpy() - scalers[store]["mean"]) / scalers[store]["std"]
        parts.append(window_moments(torch.tensor(z)[:, None].float(), LENGTH, HORIZON))
    moments = sum_moments(parts)
    found = content["state_dict"]["model.weight"]
    candidates = [solve_linear(moments, penalty).weight for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)]
    assert min(float((found - each).abs().max().detach()) for each in candidates) < 1e-5


@pytest.mark.parametrize("step", [4, 10])  # after the first epoch, and after the first on all rows
def test_a_run_that_was_killed_resumes_exactly(refitted: Path, tmp_path: Path, step: int) -> None:
    words = ["fit", TABLE, f"data.path={refitted.parent / 'sales.csv'}", *STEPS, *SPLIT, f"run.dir={tmp_path / 'run'}"]
    died = run(words, tmp_path, Death("torch.optim.AdamW.step", step))
    assert died.status != 0
    assert not (tmp_path / "run" / "results.json").exists()
    assert (tmp_path / "run" / "checkpoints" / "refit").is_dir() == (step > 6)
    done = run([*words, "resume=auto"], tmp_path)
    assert done.status == 0, done.err
    for name in ("best.ckpt", "refit.ckpt"):
        found, expected = (weights(folder, name)["state_dict"] for folder in (tmp_path / "run", refitted))
        assert_identical(found, expected, name)
    assert not (tmp_path / "run" / "checkpoints" / "refit").exists()


def test_forecast_uses_the_weights_of_all_rows(refitted: Path, tmp_path: Path) -> None:
    sales(7).drop("sales", "kind").write_csv(tmp_path / "plans.csv")
    tables, printed = [], []
    for run_ in (refitted, refitted / "checkpoints" / "refit.ckpt", refitted / "checkpoints" / "best.ckpt"):
        words = [run_, "--future", tmp_path / "plans.csv", "--out", tmp_path / "f.parquet", "trainer.accelerator=cpu"]
        answer = run_cli("forecast", *words)
        assert answer.status == 0, answer.err
        printed.append("was not trained on the validation and test rows" in answer.out)
        tables.append(pl.read_parquet(tmp_path / "f.parquet"))
    assert printed == [False, False, True]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert all(np.isfinite(table["upper_95"].to_numpy()).all() for table in tables)  # by the selected weights' margins


def test_backtest_trains_on_the_rows_before_each_window_alone(refitted: Path, tmp_path: Path) -> None:
    tables, windows = [], 2  # of the last two weeks
    for change in (None, 150.0):
        data = write_sales(tmp_path / "sales.csv", change)
        (member,) = load_ensemble(refitted, data, ["trainer.accelerator=cpu"], refit=False)
        rows = [len(each.scaled) - HORIZON * np.arange(windows, 0, -1) for each in member.forecaster.scaled_series]
        tables.append([each.values for each in _forecast_refitted(member, rows, HORIZON)])
    for before, after in zip(*tables, strict=True):
        np.testing.assert_array_equal(before[0], after[0])
        assert not np.array_equal(before[1], after[1])
    (member,) = load_ensemble(refitted, tmp_path / "sales.csv", ["trainer.accelerator=cpu"], refit=False)
    selected = [each.values[0] for each in _forecast_series(member.forecaster, [r[:1] for r in rows], HORIZON)]
    assert not np.array_equal(selected[0], tables[0][0][0])


def test_backtest_with_refit_prints_what_it_does(refitted: Path, tmp_path: Path, refuse: Refuse) -> None:
    words = ["--windows", "1", "--refit", "--out", tmp_path / "b.csv", "trainer.accelerator=cpu"]
    answer = run_cli("backtest", refitted, *words)
    assert answer.status == 0, answer.err
    steps = weights(refitted, "best.ckpt")["global_step"]
    assert f"Note: --refit trains 1 times for {steps} steps, on the rows before each window" in answer.out
    line = refuse("backtest", "--data", refitted.parent / "sales.csv", "--horizon", "3", "--refit")
    assert "--refit: trains the model of a run again; the pre-trained forecaster is not trained" in line
    sales().filter(store="a").write_csv(tmp_path / "a.csv")
    words = ["--data", tmp_path / "a.csv", "--windows", "24", "--refit", "trainer.accelerator=cpu"]
    assert "a.csv: --refit: at most 32 rows before a window are too few" in refuse("backtest", refitted, *words)


def test_refit_of_a_forecast_without_parameters_is_an_error(refuse: Refuse, tmp_path: Path) -> None:
    table = write_sales(tmp_path / "sales.csv")
    line = refuse("fit", TABLE, f"data.path={table}", *STEPS, *SPLIT, "model.baseline=last_value", "model.head=point")
    assert "data.refit: has no effect with model.baseline=last_value, which is not trained" in line
