"""Forecasting runs of the shipped configurations: files of the run folder, evaluation and prediction."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.image import imread

from datamodules.time_series.datasets.simulated import SimulatedSeries
from tests.experiment.running import Finished, fit
from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, refusal, run_cli
from titans_seq.config import load_config, to_container
from titans_seq.tasks import ForecastingTask

# Tested in test_forecast.py, pretrained/test_fine_tuning.py, tests/studies/test_suite.py and
# tests/experiment/universal/test_run.py.
TESTED_ELSEWHERE = (
    "table.yaml",
    "finetune.yaml",
    "suite.yaml",
    "lookback_suite.yaml",
    "universal.yaml",
    "universal_suite.yaml",
)
EXPERIMENTS = sorted(path for path in (CONFIGS / "forecasting").glob("*.yaml") if path.name not in TESTED_ELSEWHERE)
SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
SAME_WINDOWS = "trainer.limit_batches=2"  # the same limit as the fits here; by default all windows are evaluated


@pytest.fixture(scope="module", params=EXPERIMENTS, ids=lambda path: str(path.stem))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of two steps of every shipped experiment."""
    config: Path = request.param
    root = ""
    if load_config([config]).data.name != "synthetic":
        root = f"data.root={request.getfixturevalue('data_root')}"
    folder = tmp_path_factory.mktemp(config.stem) / "run"
    # Fitting by least absolute error on 50,000 rows takes a minute; ETTh1 and ETTh2 cover it.
    short = ["model.linear_loss=mse"] if config.stem in ("ettm1", "ettm2", "weather") else []
    return fit(config, folder, *([root] if root else []), *short)


def test_run_folder_is_complete(run: Finished) -> None:
    folder, results, *_ = run
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    wanted = {"config.yaml", "metrics.csv", "results.json", "env.json", "conformal.json"}
    wanted |= {"plots/forecast.png", "plots/training.png"}
    assert files == wanted | {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert results["checkpoint"] == "checkpoints/best.ckpt"
    assert all(math.isfinite(results[key]) and results[key] > 0 for key in ("test/mse", "test/mae"))
    assert results["seconds"] >= 0
    # After two steps, a forecaster is neither exact nor much worse than a constant forecast.
    assert all(0.05 < numbers["test/mse"] < 5 for numbers in [results, *results["baselines"].values()])
    environment = json.loads((folder / "env.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__


def test_config_of_the_run_folder_is_the_one_used(run: Finished) -> None:
    folder, results, *_ = run
    config = load_config([folder / "config.yaml"])
    assert config.trainer.max_steps == 2
    assert config.run.dir == str(folder)
    checkpoint = torch.load(folder / results["checkpoint"], weights_only=True)
    assert checkpoint["hyper_parameters"]["config"] == to_container(config)
    parameters = ForecastingTask(to_container(config), checkpoint["hyper_parameters"]["num_channels"]).parameters()
    assert results["parameters"] == sum(p.numel() for p in parameters if p.requires_grad)


def test_figure_is_not_blank(run: Finished) -> None:
    image = imread(run.folder / "plots" / "forecast.png")
    assert min(image.shape[:2]) > 300
    assert image[..., :3].std() > 0.05, "the figure is blank"


def monitored_score(results: dict[str, Any]) -> str:
    """Return the name of the validation score that selected the checkpoint."""
    (name,) = (key.removeprefix("best_") for key in results if key.startswith("best_val/"))
    assert name == ("val/mae" if results["data"] in ("ETTh2", "ETTm1", "ETTm2", "Weather") else "val/mse")
    return name


def test_metrics_csv_equals_results(run: Finished) -> None:
    folder, results, *_ = run
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    chosen = monitored_score(results)
    for key, name in (("test/mse", "test/mse"), ("test/mae", "test/mae"), (chosen, f"best_{chosen}")):
        assert [float(row[key]) for row in rows if row[key]] == [results[name]]


def test_test_and_validate_reproduce_the_scores_of_fit(run: Finished) -> None:
    from titans_seq.experiment import measure

    folder, results, *_ = run
    checkpoint = folder / results["checkpoint"]
    found = measure(checkpoint, "test", [SAME_WINDOWS])
    assert found == {name: results[name] for name in ("test/mse", "test/mae")}
    chosen = monitored_score(results)
    assert measure(checkpoint, "validation", [SAME_WINDOWS])[chosen] == results[f"best_{chosen}"]
    for command, name, value in (("test", "test/mse", "test/mse"), ("validate", chosen, f"best_{chosen}")):
        answer = run_cli(command, checkpoint, SAME_WINDOWS)
        assert answer.status == 0, answer.err
        assert f"{name:<12}{results[value]:.4f}" in answer.out.splitlines()


def test_checkpoint_loads_with_lightning_only_and_gives_the_same_scores(run: Finished) -> None:
    from titans_seq.experiment.registry import build_experiment

    folder, results, *_ = run
    task = ForecastingTask.load_from_checkpoint(folder / results["checkpoint"], map_location="cpu", weights_only=True)
    task.eval()
    batches = list(build_experiment(task.config).data.test_dataloader())[: task.config.trainer.limit_batches]
    with torch.inference_mode():
        errors = torch.cat([(task(batch.context) - batch.target).double().flatten() for batch in batches])
    # Sums in float64 here, in float32 in torchmetrics.
    assert float(errors.square().mean()) == pytest.approx(results["test/mse"], rel=1e-5)
    assert float(errors.abs().mean()) == pytest.approx(results["test/mae"], rel=1e-5)


def test_predictions_cover_every_test_timestamp_once(run: Finished, tmp_path: Path) -> None:
    from titans_seq.experiment.forecasting.data import build_series_source

    folder, results, *_ = run
    out = tmp_path / "predictions.parquet"
    answer = run_cli("predict", folder / results["checkpoint"], "--out", out, "trainer.limit_batches=0")
    assert answer.status == 0, answer.err
    assert list(tmp_path.iterdir()) == [out]
    table = pl.read_parquet(out)
    config = load_config([folder / "config.yaml"])
    series = build_series_source(config.data).load()
    horizon, border = config.data.horizon, series.boundaries

    stamps = table["timestamp"].to_numpy()
    rows = np.searchsorted(series.timestamps, stamps)
    assert (series.timestamps[rows] == stamps).all()
    columns = np.array([series.channels.index(name) for name in table["channel"]])
    assert (table["truth"].to_numpy() == series.values[rows, columns]).all()
    assert table.select("timestamp", "channel").is_unique().all()
    whole = (border.test - border.validation) // horizon * horizon
    assert set(rows) == set(range(border.validation, border.validation + whole))
    assert len(table) == whole * len(series.channels)
    # Steps are counted from the last context timestamp.
    origins = np.searchsorted(series.timestamps, table["origin"].to_numpy())
    assert (rows - origins == table["step"].to_numpy()).all()
    assert set(table["step"]) == set(range(1, horizon + 1))

    # Forecasts equal the model's, for the context that ends at the origin, in the units of the source.
    train = series.values[: border.train]
    mean, std = train.mean(axis=0), train.std(axis=0)
    row = int(origins[len(origins) // 2])
    context = ((series.values[row + 1 - config.data.context_length : row + 1] - mean) / std).astype(np.float32)
    task = ForecastingTask.load_from_checkpoint(folder / results["checkpoint"], map_location="cpu", weights_only=True)
    with torch.inference_mode():
        expected = task.eval()(torch.from_numpy(context)[None])[0].double().numpy() * std + mean
    found = table.filter(pl.Series(origins == row))["forecast"].to_numpy().reshape(horizon, -1)
    np.testing.assert_allclose((found - mean) / std, (expected - mean) / std, rtol=0, atol=1e-5)


def test_limited_predictions_are_the_first_of_all(tmp_path: Path, synthetic_run: Path) -> None:
    tables = []
    for limit in (1, 0):
        arguments = ["data.batch_size=8", f"trainer.limit_batches={limit}"]
        answer = run_cli("predict", synthetic_run, "--out", tmp_path / "out.parquet", *arguments)
        assert answer.status == 0, answer.err
        tables.append(pl.read_parquet(tmp_path / "out.parquet"))
    assert 0 < len(tables[0]) < len(tables[1])
    assert tables[0]["truth"].equals(tables[1]["truth"][: len(tables[0])])


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small model."""
    folder = tmp_path_factory.mktemp("small") / "run"
    return fit(SYNTHETIC, folder, *SMALL_MODEL).checkpoint


def test_second_fit_into_a_run_folder_is_an_error_and_changes_nothing(synthetic_run: Path) -> None:
    folder = synthetic_run.parent.parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "already contains a run" in refusal(run_cli("fit", SYNTHETIC, *SMALL_MODEL, *TWO_STEPS, f"run.dir={folder}"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_run_is_reproducible_and_depends_on_the_seed(synthetic_run: Path, tmp_path: Path) -> None:
    again = torch.load(fit(SYNTHETIC, tmp_path / "again", *SMALL_MODEL).checkpoint)
    first, other = torch.load(synthetic_run), fit(SYNTHETIC, tmp_path / "other", *SMALL_MODEL, "seed=1").results
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, again["state_dict"][name]), name
    results = [json.loads((f / "results.json").read_text()) for f in (synthetic_run.parent.parent, tmp_path / "again")]
    assert results[0]["test/mse"] == results[1]["test/mse"] != other["test/mse"]
    assert results[0]["baselines"] == results[1]["baselines"] == other["baselines"]


def test_seed_sets_initial_weights_and_window_order(tmp_path: Path) -> None:
    from titans_seq.experiment.registry import build_experiment

    initial, orders = [], []
    for seed in ("0", "1"):
        # With learning rate 0 the weights stay as initialised.
        overrides = [*SMALL_MODEL, "task.learning_rate=0", f"seed={seed}"]
        folder = tmp_path / seed
        fit(SYNTHETIC, folder, *overrides)
        initial.append(torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"]["model.embed.project.weight"])
        orders.append(next(iter(build_experiment(load_config([SYNTHETIC], overrides)).data.train_dataloader())).start)
    assert not torch.equal(*initial)
    assert not torch.equal(*orders)


def test_limit_of_a_fit_does_not_apply_to_evaluation(tmp_path: Path) -> None:
    from titans_seq.experiment import load_run

    fit(SYNTHETIC, tmp_path / "run", *SMALL_MODEL)
    config, _, _ = load_run(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert config.trainer.limit_batches == 0


@pytest.mark.parametrize("batches", [9, 2])
def test_run_that_ends_within_an_epoch_is_validated_at_its_last_step(tmp_path: Path, batches: int) -> None:
    overrides = [f"trainer.limit_batches={batches}", "trainer.max_steps=3", "logging.every_n_steps=1"]
    results = fit(SYNTHETIC, tmp_path / "run", *SMALL_MODEL, *overrides).results
    rows = pl.read_csv(tmp_path / "run" / "metrics.csv")
    validated = rows.filter(pl.col("val/mse").is_not_null())["step"].to_list()
    assert validated == ([2] if batches == 9 else [1, 2])  # counted from 0
    assert results["best_val/mse"] == rows["val/mse"].min()


def test_best_checkpoint_is_tested(tmp_path: Path) -> None:
    from titans_seq.experiment import measure

    # Starting at the least-squares solution, steps this large increase the error.
    overrides = ["model.linear_path=solved", "task.learning_rate=0.1", "task.warmup_steps=0", "trainer.ema_decay=0"]
    folder = tmp_path / "run"
    _, results, printed, _ = fit(SYNTHETIC, folder, *SMALL_MODEL, *overrides, "trainer.max_steps=6")
    assert results["best_epoch"] + 1 < results["epochs"] == 3
    assert f"Best epoch {results['best_epoch'] + 1} of 3 by" in printed
    assert f"(epoch {results['best_epoch']} in results.json and metrics.csv, which count from 0)" in printed
    rows = pl.read_csv(folder / "metrics.csv").filter(pl.col("val/mse") == results["best_val/mse"])
    assert rows["epoch"].to_list() == [results["best_epoch"]]
    best, last = (measure(folder / "checkpoints" / f"{name}.ckpt", "test", [SAME_WINDOWS]) for name in ("best", "last"))
    assert results["test/mse"] == best["test/mse"] != last["test/mse"]
    epochs = [torch.load(folder / "checkpoints" / f"{name}.ckpt")["epoch"] for name in ("best", "last")]
    assert epochs == [results["best_epoch"], results["epochs"] - 1]


def test_small_run_beats_the_baselines_and_notes_simulated_data(tmp_path: Path) -> None:
    # `make train` with fewer steps and a smaller model.
    overrides = ["trainer.max_steps=60", "trainer.limit_batches=60", "task.warmup_steps=5", "trainer.ema_decay=0"]
    folder = tmp_path / "run"
    _, results, printed, _ = fit(SYNTHETIC, folder, *SMALL_MODEL, "model.linear_path=solved", *overrides)
    assert results["simulated"] is True
    assert "simulated data" in printed
    last, seasonal, linear = results["baselines"].items()
    assert (last[0], seasonal[0], linear[0]) == ("last value", "seasonal naive (24 steps)", "linear (least squares)")
    for name, numbers in [("LMM", results), last, seasonal, linear]:
        assert f"{name:<25}{numbers['test/mse']:>12.4f}{numbers['test/mae']:>12.4f}" in printed.splitlines()
    assert results["test/mse"] < linear[1]["test/mse"] < seasonal[1]["test/mse"] < last[1]["test/mse"]


def test_naive_baselines_equal_an_independent_computation(synthetic_run: Path) -> None:
    results = json.loads((synthetic_run.parent.parent / "results.json").read_text())
    series = SimulatedSeries().load()
    train = series.values[: series.boundaries.train]
    z = (series.values - train.mean(axis=0)) / train.std(axis=0)
    # Two batches of 64: baselines must be evaluated on the windows of the model.
    assert results["test_windows"] == 128
    first = series.boundaries.validation + np.arange(128)
    ahead = np.arange(results["horizon"])
    truth = z[first[:, None] + ahead]
    for name, guess in (
        ("last value", np.repeat(z[first - 1][:, None], len(ahead), axis=1)),
        ("seasonal naive (24 steps)", z[first[:, None] - 24 + ahead % 24]),
    ):
        found = results["baselines"][name]
        assert found["test/mse"] == pytest.approx(((guess - truth) ** 2).mean(), rel=1e-5)
        assert found["test/mae"] == pytest.approx(np.abs(guess - truth).mean(), rel=1e-5)


BASELINES = {
    "last_value": "last value",
    "seasonal_naive": "seasonal naive (24 steps)",
    "linear": "linear (least squares)",
}


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_as_the_model_scores_as_in_the_table_of_baselines(
    tmp_path: Path, synthetic_run: Path, name: str
) -> None:
    from titans_seq.experiment import measure

    expected = json.loads((synthetic_run.parent.parent / "results.json").read_text())["baselines"][BASELINES[name]]
    _, results, printed, _ = fit(SYNTHETIC, tmp_path / "run", *SMALL_MODEL, f"model.baseline={name}")
    found = {key: results[key] for key in expected}
    assert found == pytest.approx(expected, rel=1e-6)
    assert results["parameters"] == results["epochs"] == 0
    assert f"{name} with 0 parameters" in printed
    assert "Nothing to train" in printed
    assert measure(tmp_path / "run" / results["checkpoint"], "test", [SAME_WINDOWS]) == found


def test_dlinear_is_trained(tmp_path: Path) -> None:
    overrides = [*SMALL_MODEL, "model.baseline=dlinear"]
    results = fit(SYNTHETIC, tmp_path / "run", *overrides).results
    assert results["parameters"] == 2 * (72 + 1) * 48
    first = torch.load(tmp_path / "run" / results["checkpoint"])["state_dict"]["model.trend.weight"]
    still = fit(SYNTHETIC, tmp_path / "still", *overrides, "task.learning_rate=0").results
    assert not torch.equal(
        first, torch.load(tmp_path / "still" / still["checkpoint"])["state_dict"]["model.trend.weight"]
    )


def test_frozen_linear_path_stays_at_the_solution(tmp_path: Path) -> None:
    states = []
    for path in ("solved", "frozen"):
        fit(SYNTHETIC, tmp_path / path, *SMALL_MODEL, f"model.linear_path={path}", "task.warmup_steps=0")
        states.append(torch.load(tmp_path / path / "checkpoints" / "last.ckpt")["state_dict"])
    results = json.loads((tmp_path / "frozen" / "results.json").read_text())
    still = fit(SYNTHETIC, tmp_path / "still", *SMALL_MODEL, "model.linear_path=solved", "task.learning_rate=0").results
    solution = torch.load(tmp_path / "still" / still["checkpoint"])["state_dict"]["model.linear_path.weight"]
    moved, frozen = (state["model.linear_path.weight"] for state in states)
    assert torch.equal(frozen, solution)
    assert not torch.equal(moved, solution)
    assert results["parameters"] == still["parameters"] - (72 + 1) * 48
    assert not torch.equal(states[1]["model.head.weight"], torch.zeros_like(states[1]["model.head.weight"]))


def test_training_starts_at_the_linear_map_of_each_channel(tmp_path: Path) -> None:
    overrides = [*SMALL_MODEL, "model.linear_path=solved", "model.linear_maps=channels", "task.learning_rate=0"]
    results = fit(SYNTHETIC, tmp_path / "run", *overrides).results
    linear = results["baselines"]["linear (least squares)"]
    assert {key: results[key] for key in linear} == pytest.approx(linear, rel=1e-5)
    weight = torch.load(tmp_path / "run" / results["checkpoint"])["state_dict"]["model.linear_path.weight"]
    assert weight.shape == (len(SimulatedSeries().load().channels), 72, 48)


def test_epoch_batches_limits_training_only(tmp_path: Path) -> None:
    limits = ["trainer.limit_batches=0", "trainer.epoch_batches=3", "trainer.max_steps=-1", "trainer.max_epochs=2"]
    results = fit(SYNTHETIC, tmp_path / "run", *SMALL_MODEL, *limits, "data.batch_size=8").results
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 6
    boundaries = SimulatedSeries().load().boundaries
    assert results["test_windows"] == boundaries.test - boundaries.validation - 48 + 1


@pytest.mark.slow
def test_compiled_training_equals_uncompiled(tmp_path: Path) -> None:
    overrides = [
        *SMALL_MODEL,
        "trainer.max_steps=4",
        "model.dropout=0",
        "model.head_dropout=0",
        "logging.every_n_steps=1",
    ]
    plain, compiled = (
        fit(SYNTHETIC, tmp_path / name, *overrides, f"trainer.compile={name}") for name in ("false", "true")
    )
    assert compiled.results["test/mse"] == pytest.approx(plain.results["test/mse"], rel=1e-5)
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("false", "true")]
    losses = [[float(row["train/loss"]) for row in run if row["train/loss"]] for run in rows]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
