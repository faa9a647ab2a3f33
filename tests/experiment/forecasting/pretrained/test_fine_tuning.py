"""Fine-tuning of a universal forecaster on a user's table, through the commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tests.experiment.forecasting.sales import HORIZON, LENGTH, ROWS, sales
from tests.experiment.running import Finished, fit
from tests.helpers import CONFIGS, TWO_STEPS, Refuse, run_cli
from titans_seq.models.universal.context import Context
from titans_seq.models.universal.forecaster import LEVELS, UniversalForecaster
from titans_seq.schema import PATCH
from titans_seq.tasks import ForecastingTask, from_pretrained

UNIVERSAL, FINETUNE = (CONFIGS / "forecasting" / f"{name}.yaml" for name in ("universal", "finetune"))
TINY = [
    *("model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "model.hidden=16"),
    *("data.lengths=[48,96]", "data.shares=[0.5,0.5]", "data.batch_size=2", "data.held_out_batches=1"),
]
COLUMNS = ["data.id=store", "data.target=[sales]", "data.known=[promo]", "data.calendar=[day_of_week]"]
WINDOWS = [f"data.context_length={LENGTH}", f"data.horizon={HORIZON}"]


@pytest.fixture(scope="module")
def universal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny universal forecaster."""
    return fit(UNIVERSAL, tmp_path_factory.mktemp("universal") / "run", *TINY).folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table of sales and one of the known covariates of three more weeks."""
    folder = tmp_path_factory.mktemp("sales")
    sales().drop("kind").write_csv(folder / "sales.csv")
    sales(21).drop("sales", "kind").write_csv(folder / "plans.csv")
    return folder


def fine_tune(folder: Path, name: str, pretrained: Path | str, *overrides: str) -> Finished:
    table = f"data.path={folder / 'sales.csv'}"
    return fit(FINETUNE, folder / name, table, *COLUMNS, *WINDOWS, f"model.pretrained={pretrained}", *overrides)


@pytest.fixture(scope="module")
def run(folder: Path, universal: Path) -> Finished:
    """A fine-tuning run whose pre-trained weights no longer exist."""
    copy = folder / "weights"
    shutil.copytree(universal, copy)
    run = fine_tune(folder, "run", copy, "logging.every_n_steps=1")
    shutil.rmtree(copy)
    return run


def command(run: Finished, name: str, *arguments: str | Path) -> str:
    answer = run_cli(name, run.folder, *arguments, "trainer.accelerator=cpu")
    assert answer.status == 0, answer.err
    return answer.out


def test_run_says_where_its_weights_come_from(run: Finished) -> None:
    (note,) = run.results["notes"]
    assert f"pre-trained weights: {run.folder.parent / 'weights'} (LMM, " in note
    assert note in run.printed
    assert "Universal forecaster with" in run.printed
    assert "sales, 3 series: 28 steps to 7" in run.printed
    logged = pl.read_csv(run.folder / "metrics.csv")["machine/tokens_per_second"].drop_nulls()
    assert (logged > 0).all()
    assert len(logged)


def test_run_resumes_without_the_pretrained_weights(run: Finished, folder: Path) -> None:
    copy = folder / "copy"
    shutil.copytree(run.folder, copy)
    (copy / "results.json").unlink()
    answer = run_cli("fit", f"resume={copy}", "trainer.accelerator=cpu")
    assert answer.status == 0, answer.err
    assert json.loads((copy / "results.json").read_text())["test/crps"] == run.results["test/crps"]


def test_seeds_and_comparison(folder: Path, universal: Path) -> None:
    fine_tune_seeds = [f"data.path={folder / 'sales.csv'}", *COLUMNS, *WINDOWS, f"model.pretrained={universal}"]
    out = folder / "seeds"
    answer = run_cli("fit", FINETUNE, *TWO_STEPS, *fine_tune_seeds, "seeds=[0,1]", f"run.dir={out}")
    assert answer.status == 0, answer.err
    answer = run_cli("compare", out, "--metric", "test/crps")
    assert answer.status == 0, answer.err
    assert "test/crps" in answer.out


def test_commands_work_without_the_pretrained_weights(run: Finished, folder: Path) -> None:
    for name, split in (("test", "test"), ("validate", "val")):
        printed = command(run, name, "trainer.limit_batches=2")
        assert f"{split}/crps" in printed
    assert f"{run.results['test/crps']:.4f}" in command(run, "test", "trainer.limit_batches=2")
    command(run, "predict", "--out", folder / "predictions.csv")
    assert set(pl.read_csv(folder / "predictions.csv")["series"]) == set(ROWS)
    table = ["--data", folder / "sales.csv"]
    command(run, "backtest", *table, "--windows", "3", "--out", folder / "backtest.csv")
    scores = pl.read_csv(folder / "backtest.csv")
    assert scores.columns[:3] == ["series", "channel", "windows"]
    assert scores.select("mase", "wql", "interval_80").head(4).null_count().row(0) == (0, 0, 0)
    future = ["--future", folder / "plans.csv", "--out", folder / "forecast.csv"]
    command(run, "forecast", *table, *future, "--horizon", str(2 * HORIZON), "--plot", folder / "forecast.png")
    forecast = pl.read_csv(folder / "forecast.csv")
    assert len(forecast) == 2 * HORIZON * len(ROWS)
    assert forecast["forecast"].is_finite().all()
    assert forecast.select("q0.1", "lower_95").null_count().row(0) == (HORIZON * len(ROWS),) * 2


def test_a_folder_of_the_fine_tuned_model_gives_its_forecasts(run: Finished, folder: Path) -> None:
    command(run, "export", "--out", folder / "exported")
    exported, task = from_pretrained(folder / "exported"), run.task(ForecastingTask)
    for name, weight in task.model.state_dict().items():
        assert torch.equal(weight, exported.model.state_dict()[name]), name
    assert exported.model.season == task.model.season == 7


def zero_shot(model: UniversalForecaster, values: np.ndarray, season: int) -> np.ndarray:
    """Quantiles (P, Q) of the patch after the values of one series, by the universal forecaster itself."""
    padded = np.concatenate([np.full(-len(values) % PATCH, np.nan), values])
    context = Context(torch.tensor(padded)[None], torch.tensor([season]))
    with torch.no_grad():
        return model.forecast(context, model.encode(context)[0], 1)[0].numpy()


def test_fine_tuning_starts_at_the_zero_shot_forecast(universal: Path, folder: Path) -> None:
    assert run_cli("export", universal, "--out", folder / "folder").status == 0
    # A learning rate of 0 keeps the weights.
    unchanged = fine_tune(folder, "unchanged", folder / "folder", "task.learning_rate=0")
    future = ["--future", folder / "plans.csv", "--out", folder / "start.parquet"]
    command(unchanged, "forecast", "--data", folder / "sales.csv", *future)
    table, model = pl.read_parquet(folder / "start.parquet"), from_pretrained(folder / "folder").model
    for store in ROWS:
        expected = zero_shot(model, sales().filter(store=store)["sales"].to_numpy()[-LENGTH:], season=7)[:HORIZON]
        found = table.filter(series=store).select(*(f"q{level}" for level in LEVELS)).to_numpy()
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_fine_tuning_learns(universal: Path, folder: Path) -> None:
    steps = ["trainer.max_steps=40", "trainer.limit_batches=0", "trainer.epoch_batches=20", *TWO_STEPS[2:]]
    before, after = (
        fine_tune(folder, f"rate{rate}", universal, *steps, f"task.learning_rate={rate}").results
        for rate in ("0", "0.01")
    )
    assert after["best_val/crps"] < 0.9 * before["best_val/crps"]
    assert after["test/crps"] < 0.9 * before["test/crps"]


def test_half_precision_is_close(universal: Path, tmp_path: Path) -> None:
    for name, option in (("full", []), ("half", ["--half"])):
        assert run_cli("export", universal, "--out", tmp_path / name, *option).status == 0
    full, half = (from_pretrained(tmp_path / name).model for name in ("full", "half"))
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert json.loads((tmp_path / "half" / "config.json").read_text())["hyperparameters"]["config"]["model"]["dim"] == 8
    for (name, exact), rounded in zip(full.named_parameters(), half.parameters(), strict=True):
        assert rounded.dtype == exact.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=1e-4, msg=name)
    assert any(not torch.equal(a, b) for a, b in zip(full.parameters(), half.parameters(), strict=True))
    values = sales().filter(store="a")["sales"].to_numpy()
    np.testing.assert_allclose(zero_shot(half, values, 7), zero_shot(full, values, 7), rtol=1e-2)


def test_incompatible_keys(refuse: Refuse) -> None:
    cases = {
        "model.head=point": "model.head: point does not go with model.pretrained, which predicts quantiles",
        "task.quantiles=[0.1,0.5]": "task.quantiles: [0.1, 0.5]: model.pretrained predicts the quantiles [0.1, ",
        "task.loss=mae": "task.loss: mae only applies to model.head=point",
        "model.dim=64": "model.dim: has no effect with model.pretrained, whose weights determine the model",
        "model.memory.gradient=online": "model.memory.gradient: has no effect with model.pretrained",
        "model.linear_path=solved": "model.linear_path: has no effect with model.pretrained",
        "model.baseline=dlinear": "model.baseline: dlinear and model.pretrained both replace the model",
        "data.past=[visitors]": "data.past: is not supported with model.pretrained, which takes known covariates only",
        "data.static=[region]": "data.static: is not supported with model.pretrained",
    }
    for override, message in cases.items():
        assert message in refuse("fit", FINETUNE, override), override


def test_short_contexts_are_accepted() -> None:
    assert run_cli("show-config", FINETUNE, "data.context_length=10").status == 0


def test_unusable_weights_are_errors(refuse: Refuse, run: Finished, folder: Path, tmp_path: Path) -> None:
    from tests.experiment.run.test_checkpoints import save_checkpoint

    words = ["fit", FINETUNE, *TWO_STEPS, f"data.path={folder / 'sales.csv'}", *COLUMNS, *WINDOWS]
    other = save_checkpoint(tmp_path / "other.ckpt")
    assert run_cli("export", other, "--out", tmp_path / "exported").status == 0
    empty = tmp_path / "empty.ckpt"
    torch.save({"state_dict": {}}, empty)
    cases = {
        tmp_path / "nowhere": "no such checkpoint file or run folder",
        tmp_path: "not a run's folder",
        other: "weights of task.name=forecasting; expected task.name=universal",
        run.folder: "weights of task.name=forecasting; expected task.name=universal",
        tmp_path / "exported": "weights of task.name=forecasting; expected task.name=universal",
        empty: "not a checkpoint of titans_seq",
    }
    for path, message in cases.items():
        line = refuse(*words, f"model.pretrained={path}")
        assert f"model.pretrained={path}: " in line
        assert message in line


def test_weights_that_do_not_match_their_configuration(
    refuse: Refuse, universal: Path, folder: Path, tmp_path: Path
) -> None:
    content = torch.load(universal / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["config"]["model"]["dim"] = 16
    torch.save(content, tmp_path / "wrong.ckpt")
    words = [*TWO_STEPS, f"data.path={folder / 'sales.csv'}", *COLUMNS, *WINDOWS]
    line = refuse("fit", FINETUNE, *words, f"model.pretrained={tmp_path / 'wrong.ckpt'}")
    assert "its weights do not match its configuration: size mismatch for" in line


def test_package_without_weights(refuse: Refuse, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titans_seq.experiment.forecasting.pretrained.weights.SHIPPED", tmp_path)
    line = refuse("fit", FINETUNE, *TWO_STEPS, f"data.path={folder / 'sales.csv'}", *COLUMNS, *WINDOWS)
    assert "model.pretrained=universal: this installation contains no weights; name a run with task.name=" in line


def test_weights_of_the_package(universal: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli("export", universal, "--half", "--out", tmp_path / "universal").status == 0
    monkeypatch.setattr("titans_seq.experiment.forecasting.pretrained.weights.SHIPPED", tmp_path)
    assert "pre-trained weights: universal (LMM, " in fine_tune(folder, "shipped", "universal").printed


def test_no_program_of_the_universal_forecaster(refuse: Refuse, run: Finished, universal: Path, tmp_path: Path) -> None:
    for path in (run.folder, universal):
        line = refuse("export", path, "--out", tmp_path / "model.pt2")
        assert "export: .pt2" in line
        assert "set --out to a folder" in line
    assert "--half: applies to a folder" in refuse("export", universal, "--half", "--out", tmp_path / "model.pt2")
