"""Comparison of runs, and its statistics against known values."""

import json
import math
from pathlib import Path

import pytest
from matplotlib.image import imread

from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, refusal, run_cli
from titans_seq.config import load_config, to_yaml
from titans_seq.studies.compare import paired_test, read_run_groups, student_p

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
SCORES = {"lmm": [0.40, 0.42, 0.41, 0.45], "mal": [0.38, 0.41, 0.395, 0.44]}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Configuration and results files of eight finished runs: two variants, four seeds each."""
    for variant, scores in SCORES.items():
        for seed, score in enumerate(scores):
            folder = tmp_path / "runs" / variant / f"seed-{seed}"
            folder.mkdir(parents=True)
            config = load_config([SYNTHETIC], [f"model.variant={variant}", f"seed={seed}", f"run.dir={folder}"])
            (folder / "config.yaml").write_text(to_yaml(config))
            content = {"experiment": "synthetic", "seed": seed, "data": "synthetic", "test/mse": score, "test/mae": 0.5}
            (folder / "results.json").write_text(json.dumps(content))
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("t", "degrees", "p"),
    [  # R: 2 * pt(-t, degrees)
        (0.0, 5, 1.0),
        (12.706204736432095, 1, 0.05),
        (4.302652729696142, 2, 0.05),
        (2.2281388519649385, 10, 0.05),
        (-3.169272672616865, 10, 0.01),
        (1.983971518523553, 100, 0.05),
    ],
)
def test_student_p_values(t: float, degrees: int, p: float) -> None:
    assert student_p(t, degrees) == pytest.approx(p, rel=1e-4)


def test_paired_test_equals_a_hand_computation(runs: Path) -> None:
    lmm, mal = read_run_groups([runs])
    assert (lmm.name, mal.name) == ("model.variant=lmm", "model.variant=mal")
    found = paired_test(mal, lmm, "test/mse")
    # Differences -0.02, -0.01, -0.015, -0.01: mean -0.01375, sd 0.0047871, t = -5.7446 with 3 degrees of freedom.
    assert found.seeds == 4
    assert found.difference == pytest.approx(-0.01375)
    assert found.p == pytest.approx(0.01047, abs=1e-4)
    del mal.scores[0], mal.scores[1], mal.scores[2]
    assert paired_test(mal, lmm, "test/mse").difference == pytest.approx(-0.01)
    assert math.isnan(paired_test(mal, lmm, "test/mse").p), "p is undefined for one seed"


def test_table_and_figure(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare.png"
    arguments = ["--baseline", "model.variant=lmm", "--metric", "test/mse", "--out", out]
    answer = run_cli("compare", runs / "lmm", runs / "mal", *arguments)
    assert answer.status == 0, answer.err
    head, first, second = answer.out.splitlines()
    assert head.split() == ["test/mse", "seeds", "mean", "sd", "minus", "model.variant=lmm", "p", "(paired", "t)"]
    assert first.split() == ["model.variant=lmm", "4", "0.4200", "0.0216"]
    assert second.split() == ["model.variant=mal", "4", "0.4062", "0.0256", "-0.0137", "0.0105", "(4", "seeds)"]
    assert imread(out)[..., :3].std() > 0.02, "the figure is blank"


def test_compare_errors(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "contains no finished run" in refusal(run_cli("compare", tmp_path / "empty"))
    assert "no such folder" in refusal(run_cli("compare", tmp_path / "nowhere"))
    line = refusal(run_cli("compare", runs, "--baseline", "lmm"))
    assert "unknown group; available: model.variant=lmm; model.variant=mal" in line
    assert "--metric test/acc: not in every run; available: test/mse, test/mae" in refusal(
        run_cli("compare", runs, "--metric", "test/acc")
    )
    assert "a second run of" in refusal(run_cli("compare", runs, runs / "lmm"))
    other = runs / "lmm" / "seed-0" / "results.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "data": "ETTh1"}))
    assert "runs on different data" in refusal(run_cli("compare", runs))


def test_fit_with_several_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "repeats"
    overrides = [*SMALL_MODEL, *TWO_STEPS, "seeds=[3,5]", f"run.dir={folder}"]
    answer = run_cli("fit", SYNTHETIC, *overrides)
    assert answer.status == 0, answer.err
    results = [json.loads((folder / f"seed-{seed}" / "results.json").read_text()) for seed in (3, 5)]
    assert [result["seed"] for result in results] == [3, 5]
    mean = (results[0]["test/mse"] + results[1]["test/mse"]) / 2
    lines = answer.out.splitlines()
    assert any(line.split()[:3] == ["synthetic", "2", f"{mean:.4f}"] for line in lines)
    again = run_cli("fit", SYNTHETIC, *overrides, "resume=auto")
    assert again.out.count("is finished: nothing to resume") == 2
