"""Sweep files, and sweeps run without W&B's server."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.image import imread

from tests.helpers import CONFIGS, REPOSITORY, SMALL_MODEL, TWO_STEPS, Refuse, refusal, run_cli
from titans_seq.errors import InputError
from titans_seq.studies.sweep_file import ARGUMENTS, read_sweep

SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"


def write(path: Path, **changed: Any) -> Path:
    content = {
        "program": "titans-seq",
        "name": "small",
        "method": "grid",
        "metric": {"name": "val/mse", "goal": "minimize"},
        "parameters": {"task.learning_rate": {"values": [0.001, 0.01]}, "model.centre": {"values": ["last", "mean"]}},
        "command": ["titans-seq", "fit", str(SYNTHETIC), *SMALL_MODEL, *TWO_STEPS, ARGUMENTS],
    }
    path.write_text(yaml.safe_dump({k: v for k, v in (content | changed).items() if v is not None}, sort_keys=False))
    return path


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.stem))
def test_shipped_sweeps_have_the_keys_of_wandb(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert content.keys() <= {"program", "name", "method", "run_cap", "metric", "parameters", "command"}
    assert content["method"] in ("grid", "random", "bayes")
    assert content["metric"].keys() == {"name", "goal"}
    assert content["metric"]["goal"] in ("minimize", "maximize")
    for spec in content["parameters"].values():
        assert spec.keys() in ({"values"}, {"value"}, {"distribution", "min", "max"})
    assert content["command"][:2] == ["titans-seq", "fit"]
    assert content["command"][-1] == ARGUMENTS


@pytest.mark.parametrize("path", [path for path in SWEEPS if path.stem != "bayes"], ids=lambda path: str(path.stem))
def test_shipped_sweeps_give_valid_configurations(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    sweep = read_sweep(path)
    found = list(sweep.combinations())
    assert len(found) > 3
    for values in found:
        config = sweep.config(values, Path("runs"))
        assert config.task.learning_rate == pytest.approx(values["task.learning_rate"])


def test_grid_has_every_combination_and_random_draws_are_reproducible(tmp_path: Path) -> None:
    grid = read_sweep(write(tmp_path / "grid.yaml"))
    expected = [(rate, centre) for rate in (0.001, 0.01) for centre in ("last", "mean")]
    assert [tuple(values.values()) for values in grid.combinations()] == expected
    parameters = {
        "task.learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "model.dropout": {"min": 0.0, "max": 0.5},
        "model.num_layers": {"min": 1, "max": 3},
        "model.centre": {"values": ["last", "mean"]},
    }
    drawn = read_sweep(write(tmp_path / "r.yaml", method="random", run_cap=400, parameters=parameters))
    first = list(drawn.combinations(1))
    assert first == list(drawn.combinations(1)) != list(drawn.combinations(2))
    rates = sorted(values["task.learning_rate"] for values in first)
    assert rates[0] >= 1e-4
    assert rates[-1] <= 1e-2
    assert math.log10(rates[200]) == pytest.approx(-3, abs=0.15), "the logarithm must be uniform"
    assert {values["model.num_layers"] for values in first} == {1, 2, 3}
    assert {values["model.centre"] for values in first} == {"last", "mean"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"method": "bayes"}, "bayes requires W&B's server: wandb sweep"),
        ({"method": "gird"}, "method: gird; accepted: grid, random"),
        ({"metric": {"name": "test/mse"}}, "must be a validation score"),
        ({"metric": None}, "metric: must have a name"),
        ({"parameters": None}, "parameters: must map configuration keys"),
        ({"parameters": {"task.learning_rate": {"min": 1, "max": 2}}}, "a grid requires values"),
        ({"parameters": {"task.learning_rat": {"values": [1]}}}, "did you mean task.learning_rate?"),
        ({"parameters": {"model.dim": {"values": [8, 7]}}}, "does not divide model.dim=7"),
        ({"command": ["titans-seq", "fit", str(SYNTHETIC)]}, "command: must contain titans-seq, fit"),
        ({"run_cap": 0}, "run_cap: 0"),
        (
            {"command": ["titans-seq", "fit", str(SYNTHETIC), "seeds=[0,1]", ARGUMENTS]},
            "list the values of seed in parameters",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_are_reported_before_the_first_run(
    refuse: Refuse, tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    assert expected in refuse("sweep", write(tmp_path / "sweep.yaml", **changed))


def test_sweep_runs_and_resumes(tmp_path: Path) -> None:
    path, out = write(tmp_path / "sweep.yaml", run_cap=3), tmp_path / "runs"
    answer = run_cli("sweep", path, "--out", out)
    assert answer.status == 0, answer.err
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    scores = [float(row["val/mse"]) for row in rows]
    assert scores == sorted(scores)
    for row in rows:
        results = json.loads((out / row["run"] / "results.json").read_text())
        assert results["best_val/mse"] == float(row["val/mse"])
    assert imread(out / "sweep.png")[..., :3].std() > 0.02, "the figure is blank"
    # Remove one run, as if the sweep had been interrupted before it; the others must stay unchanged.
    kept = (out / "001" / "results.json").read_bytes()
    shutil.rmtree(out / "002")
    again = run_cli("sweep", path, "--out", out)
    assert again.status == 0, again.err
    assert again.out.count("parameters on synthetic") == 1
    assert (out / "001" / "results.json").read_bytes() == kept
    with (out / "sweep.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    other = write(tmp_path / "other.yaml", parameters={"model.centre": {"values": ["mean"]}})
    assert "contains another sweep's runs" in refusal(run_cli("sweep", other, "--out", out))
    # The same overrides, but a changed configuration: old and new scores must not be ranked together.
    text = (out / "001" / "config.yaml").read_text()
    (out / "001" / "config.yaml").write_text(text.replace("warmup_steps: ", "warmup_steps: 9"))
    assert "001/config.yaml: task.warmup_steps is 9" in refusal(run_cli("sweep", path, "--out", out))


def test_values_that_are_lists_or_null(tmp_path: Path) -> None:
    parameters = {"task.intervals": {"values": [[], [0.8]]}, "model.memory.checkpoint_every": {"value": None}}
    path = write(tmp_path / "s.yaml", parameters=parameters)
    answer = run_cli("sweep", path, "--out", tmp_path / "runs")
    assert answer.status == 0, answer.err
    with (tmp_path / "runs" / "sweep.csv").open(newline="") as file:
        assert sorted(row["task.intervals"] for row in csv.DictReader(file)) == ["[0.8]", "[]"]
    (tmp_path / "file").touch()
    assert "file: " in refusal(run_cli("sweep", path, "--out", tmp_path / "file"))


def test_all_draws_are_checked_before_the_first_run(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", method="random", run_cap=1, parameters={"model.dim": {"min": 7, "max": 8}})
    line = refusal(run_cli("sweep", path, "--out", tmp_path / "runs", "--seed", "1"))
    assert "does not divide model.dim=" in line
    assert not (tmp_path / "runs").exists()


def test_error_of_an_unknown_metric_names_the_available_one(tmp_path: Path) -> None:
    path = write(tmp_path / "sweep.yaml", run_cap=1, metric={"name": "val/mea", "goal": "minimize"})
    answer = run_cli("sweep", path, "--out", tmp_path / "runs")
    assert "val/mea does not select these runs' checkpoints; use val/mse" in answer.err


def test_unsupported_distribution_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="requires numbers min and max"):
        read_sweep(write(tmp_path / "s.yaml", method="random", parameters={"model.dim": {"distribution": "normal"}}))
