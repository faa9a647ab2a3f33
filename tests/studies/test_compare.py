"""Comparison of runs, and its statistics against known values."""

import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, refusal, run_cli
from titans_seq.config import load_config, to_yaml
from titans_seq.studies.compare import compare, paired_test, read_run_groups
from titans_seq.studies.plots import plot_comparison, short_labels
from titans_seq.studies.statistics import mean_interval, student_p, student_quantile

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
    if t:
        assert student_quantile(p, degrees) == pytest.approx(abs(t), rel=1e-4)


def test_the_interval_of_a_mean() -> None:
    # 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 4.302653 with 2 degrees of freedom.
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.484138, 2 + 2.484138), rel=1e-5)
    assert math.isnan(mean_interval([1.0])[0])


def test_paired_test_equals_a_hand_computation(runs: Path) -> None:
    lmm, mal = read_run_groups([runs])
    assert (lmm.name, mal.name) == ("model.variant=lmm", "model.variant=mal")
    found = paired_test(mal, lmm, "test/mse")
    # Differences -0.02, -0.01, -0.015, -0.01: mean -0.01375, sd 0.0047871, t = -5.7446 with 3 degrees of freedom.
    assert found.seeds == 4
    assert found.difference == pytest.approx(-0.01375)
    assert found.p == pytest.approx(0.01047, abs=1e-4)
    assert found.interval == pytest.approx((-0.0213674, -0.0061326), abs=1e-6)  # t = 3.182446
    del mal.scores[0]
    three = paired_test(mal, lmm, "test/mse")
    assert (three.seeds, math.isnan(three.p)) == (3, True), "three seeds are too few for a p-value"
    assert three.interval[0] < three.difference < three.interval[1] < 0.01
    del mal.scores[1], mal.scores[2]
    assert paired_test(mal, lmm, "test/mse").difference == pytest.approx(-0.01)
    assert math.isnan(paired_test(mal, lmm, "test/mse").p), "p is undefined for one seed"


def test_equal_differences_are_no_p_of_zero(runs: Path) -> None:
    lmm, mal = read_run_groups([runs])
    for seed, scores in mal.scores.items():
        scores["test/mse"] = lmm.scores[seed]["test/mse"] + 1e-5
    assert math.isnan(paired_test(mal, lmm, "test/mse").p)
    for seed in (2, 3):
        del mal.scores[seed], lmm.scores[seed]
    assert math.isnan(paired_test(mal, lmm, "test/mse").p)


def test_two_seeds_are_compared_without_a_p(runs: Path) -> None:
    folders = [runs / variant / f"seed-{seed}" for variant in SCORES for seed in (0, 1)]
    text = compare(folders, baseline="model.variant=lmm", metrics=["test/mse"])
    assert "-0.0150  [-0.0785, +0.0485]  too few seeds  (2 seeds)" in text.splitlines()[-1]


def test_table_and_figure(runs: Path, tmp_path: Path, figures: list[Figure]) -> None:
    out = tmp_path / "compare.png"
    arguments = ["--baseline", "model.variant=lmm", "--metric", "test/mse", "--out", out]
    answer = run_cli("compare", runs / "lmm", runs / "mal", *arguments)
    assert answer.status == 0, answer.err
    head, first, second = answer.out.splitlines()
    columns = ["minus", "model.variant=lmm", "95", "%", "interval", "p", "(paired", "t)"]
    assert head.split() == ["test/mse", "seeds", "mean", "sd", *columns]
    assert first.split() == ["model.variant=lmm", "4", "0.4200", "0.0216"]
    difference = ["[-0.0214,", "-0.0061]", "0.0105", "(4", "seeds)"]
    assert second.split() == ["model.variant=mal", "4", "0.4062", "0.0256", "-0.0137", *difference]
    assert imread(out)[..., :3].std() > 0.02, "the figure is blank"
    (axis,) = figures[0].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["variant=lmm", "variant=mal"]
    points = [list(line.get_xdata()) for line in axis.get_lines() if line.get_label() == "seed"]
    assert points == list(SCORES.values())
    bars = [list(line.get_xdata()) for line in axis.get_lines() if "95 %" in str(line.get_label())]
    assert bars == [pytest.approx(mean_interval(scores)) for scores in SCORES.values()]


@pytest.mark.filterwarnings("error")
def test_scores_that_hardly_differ_and_long_names_are_readable(tmp_path: Path, figures: list[Figure]) -> None:
    names = [", ".join(f"model.memory.key_{k}={k + i}" for k in range(20)) for i in range(5)]
    metrics = {f"test/metric_{m}": {name: [0.48871 + 1e-6 * m, 0.48872] for name in names} for m in range(7)}
    plot_comparison(tmp_path / "a.png", scores=metrics)
    (figure,) = figures
    drawn = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_xlabel() for axis in drawn] == list(metrics)
    width, height = figure.get_size_inches()
    assert width < 3 * height
    for axis in drawn:
        assert axis.xaxis.get_offset_text().get_text() == ""
        assert axis.get_window_extent().width > 150
    assert "95 %" not in str([text.get_text() for text in figure.legends[0].get_texts()]), "two seeds"


def test_labels_of_groups_are_short_and_distinct() -> None:
    assert short_labels(["model.dim=4, task.a=b", "model.dim=8, task.a=b"]) == ["dim=4, a=b", "dim=8, a=b"]
    assert short_labels(["model.dim=4, stem.dim=1"]) == ["model.dim=4, stem.dim=1"]
    common = ", ".join(f"model.key_number_{k}=value" for k in range(30))
    first, second = short_labels([f"{common}, seed=1", f"{common}, seed=2"])
    assert first != second
    assert first.count("\n") == 3


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
