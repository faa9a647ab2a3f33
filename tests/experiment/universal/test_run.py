"""A short run of the shipped configuration of the universal forecaster, from training to the tested checkpoint."""

import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.experiment.run.test_devices import launch_commands, run_together
from tests.experiment.running import Finished, fit
from tests.helpers import CONFIGS, TWO_STEPS, Refuse, refusal, run_cli
from titans_seq.config import load_config
from titans_seq.experiment.universal.baselines import measure_naive_forecasts
from titans_seq.experiment.universal.experiment import UniversalExperiment
from titans_seq.experiment.universal.plots import plot_universal_forecasts
from titans_seq.models.universal.candidates import candidate_forecasts
from titans_seq.models.universal.context import Context
from titans_seq.tasks.pretrained import from_pretrained
from titans_seq.tasks.universal import UniversalTask, compress, forecast_pairs

UNIVERSAL = CONFIGS / "forecasting" / "universal.yaml"
SMALL = ["model.dim=16", "model.num_layers=1", "model.hidden=24", "model.memory.num_heads=2"]
SMALL += ["data.lengths=[48,96]", "data.shares=null", "data.batch_size=6", "data.held_out_batches=1"]
SEVEN_STEPS = ["trainer.max_steps=7", "trainer.limit_batches=7", "trainer.checkpoint_steps=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of two steps."""
    return fit(UNIVERSAL, tmp_path_factory.mktemp("universal") / "run", *SMALL)


def test_results(run: Finished) -> None:
    results = run.results
    assert results["simulated"] is True
    assert results["data"] == "simulated series"
    assert len(results["families"]) == 10
    for key in ("test/loss", "test/mae", "best_val/loss"):
        assert 0.1 < results[key] < 5, key
    assert 0 < results["test/coverage"] < 1
    assert list(results["baselines"]) == ["last value", "seasonal naive"]
    assert all(math.isfinite(scores["test/mae"]) for scores in results["baselines"].values())
    assert results["parameters"] == sum(p.numel() for p in run.task(UniversalTask).parameters())
    for part in ("LMM", "simulated series of 48, 96 steps", "576 steps a batch", "2 new batches an epoch"):
        assert part in run.printed
    assert "coverage 80 %" in run.printed
    files = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert files >= {"plots/forecasts.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv"}


def test_plot_is_not_blank(run: Finished) -> None:
    image = imread(run.folder / "plots" / "forecasts.png")
    assert min(image.shape[:2]) > 300
    assert image[..., :3].std() > 0.05


def test_test_and_validate_reproduce_the_scores_of_fit(run: Finished) -> None:
    for command, name, value in (("test", "test/loss", "test/loss"), ("validate", "val/loss", "best_val/loss")):
        answer = run_cli(command, run.checkpoint)
        assert answer.status == 0, answer.err
        assert answer.out.splitlines()[0].split() == [name, f"{run.results[value]:.4f}"]


def test_baselines_equal_a_loop(run: Finished) -> None:
    experiment = UniversalExperiment(load_config([run.folder / "config.yaml"]))
    errors: dict[str, list[float]] = {"last value": [], "seasonal naive": []}
    for index, batch in enumerate(experiment.data.test_dataloader()):
        context = Context(batch.values.double(), batch.period)
        pairs = forecast_pairs(context, 2, 45, index)
        candidates = candidate_forecasts(context, pairs.token, pairs.lead)
        for row, pair, step in torch.nonzero(pairs.scored).tolist():
            token = int(pairs.token[row, pair])
            scale = math.sqrt(float(context.deviation[row, token] * context.rate[row, token]))
            values = [pairs.target[row, pair, step], *candidates[row, pair, [0, 3], step]]
            true, last, seasonal = (
                float(compress((value.double() - context.mean[row, token]) / scale)) for value in values
            )
            errors["last value"].append(abs(last - true))
            errors["seasonal naive"].append(abs(seasonal - true))
    for name, each in errors.items():
        assert run.results["baselines"][name]["test/mae"] == pytest.approx(np.mean(each), rel=1e-4)


def test_baselines_without_batches() -> None:
    assert measure_naive_forecasts([], 2, 45) == {"last value": {"test/mae": 0.0}, "seasonal naive": {"test/mae": 0.0}}


@pytest.mark.parametrize("arguments", [["--out", "x.csv"], ["--out", "x.csv", "--input", "table.csv"]])
def test_predict_is_refused(run: Finished, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("date,x\n")
    line = refusal_of(run_cli("predict", run.checkpoint, *arguments, cwd=tmp_path))
    assert "predict: is not supported for task.name=universal; forecast a table with `titans-seq forecast`" in line
    assert not (tmp_path / "x.csv").exists()


def refusal_of(answer: Any) -> str:
    """The error line of a refused command, which may print notes before it."""
    lines = [line for line in answer.err.splitlines() if not line.startswith("note: ")]
    return refusal(answer._replace(err="\n".join(lines)))


def test_export(run: Finished, tmp_path: Path) -> None:
    answer = run_cli("export", run.checkpoint, "--out", tmp_path / "folder")
    assert answer.status == 0, answer.err
    one, other = run.task(UniversalTask).model, from_pretrained(tmp_path / "folder").model
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())
    line = refusal_of(run_cli("export", run.checkpoint, "--out", tmp_path / "program.pt2"))
    assert "export: .pt2 supports forecasters and classifiers only; set --out to a folder" in line


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def test_run_interrupted_within_an_epoch_resumes_exactly(tmp_path: Path) -> None:
    # Dropout, random leads and random series: all depend on the restored states of random generators.
    overrides = [*SMALL, *SEVEN_STEPS, "model.dropout=0.1"]
    fit(UNIVERSAL, tmp_path / "whole", *overrides)
    step, calls = torch.optim.AdamW.step, 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise RuntimeError("simulated power failure")
        return step(*arguments, **options)

    again = ["fit", UNIVERSAL, *TWO_STEPS, *overrides, f"run.dir={tmp_path / 'cut'}"]
    with mock.patch.object(torch.optim.AdamW, "step", fail), pytest.raises(RuntimeError, match="power"):
        run_cli(*again, cwd=tmp_path)
    stopped = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)
    assert stopped["global_step"] == 3
    answer = run_cli(*again, "resume=auto", cwd=tmp_path)
    assert answer.status == 0, answer.err
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for name, x in whole.items():
        assert torch.equal(x, cut[name]), name
        if x.is_floating_point() and "model." in name and x.numel() > 1:
            assert not torch.equal(x, stopped["state_dict"][name]), f"{name}: not trained after resuming"
    scores = [json.loads((tmp_path / each / "results.json").read_text()) for each in ("whole", "cut")]
    assert scores[0]["test/loss"] == scores[1]["test/loss"]


@pytest.mark.slow
def test_two_processes_train_and_test_like_one(tmp_path: Path, run: Finished) -> None:
    # Their series differ from those of one process, so that the weights do; validation has as many series.
    overrides = [*TWO_STEPS, *SMALL, f"run.dir={tmp_path / 'run'}"]
    printed = run_together(launch_commands("lightning", overrides, UNIVERSAL))
    assert printed.count("Run folder:") == 2
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["baselines"] == run.results["baselines"], "the test is on one device"
    assert results["test/loss"] == pytest.approx(run.results["test/loss"], rel=0.05)


def test_plot_shows_every_part(tmp_path: Path, figures: list[Figure]) -> None:
    past, future = np.sin(np.arange(30) / 3), np.sin(np.arange(30, 40) / 3)
    bounds = np.stack([future - 1, future + 0.1, future + 1], axis=1)
    plot_universal_forecasts(
        tmp_path / "a.png",
        pasts=[past] * 4,
        futures=[future] * 4,
        forecasts=[bounds] * 4,
        names=[f"series {n}" for n in range(4)],
        title="title",
    )
    axes = [axis for axis in figures[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == [f"series {n}" for n in range(4)]
    assert len(figures[0].axes) == 6
    lines = {str(line.get_label()): line for line in axes[3].get_lines()}
    np.testing.assert_array_equal(lines["past"].get_xdata(), np.arange(-30, 0))
    np.testing.assert_array_equal(lines["future"].get_ydata(), future)
    np.testing.assert_array_equal(lines["median"].get_ydata(), bounds[:, 1])
    interval = axes[3].collections[0].get_paths()[0].get_extents()
    assert (interval.y0, interval.y1) == pytest.approx((bounds[:, 0].min(), bounds[:, 2].max()))
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["past", "future", "80 % interval", "median"]


CONFLICTS = {
    "data.lengths=[]": "data.lengths: []: must be multiples of 16, the steps of a token, and at least 48",
    "data.lengths=[100]": "data.lengths: [100]: must be multiples of 16",
    "data.lengths=[96,32] data.shares=null": "data.lengths: [96, 32]: must be multiples of 16",
    "data.shares=[1]": "data.shares: has 1 fractions for the 6 lengths of data.lengths",
    "data.lengths=[48,96]": "data.shares: has 6 fractions for the 2 lengths of data.lengths",
    "data.lengths=[48] data.shares=[0]": "data.shares: [0.0]: must be fractions, not all of them 0",
    "data.lengths=[48,96] data.shares=[2,-1]": "data.shares: [2.0, -1.0]: must be fractions",
    "data.lengths=[48] data.shares=[.nan]": "data.shares: [nan]: must be fractions",
    "data.lengths=[48,96] data.shares=[.inf,1]": "data.shares: [inf, 1.0]: must be fractions",
    "trainer.epoch_batches=0": "trainer.epoch_batches: 0 would never end an epoch, since simulated series do not run",
    "data.batch_size=0": "data.batch_size=0: must be at least 1",
    "task.max_lead=0": "task.max_lead=0: must be at least 1",
    "task.random_leads=-1": "task.random_leads=-1: must be at least 0",
    "model.hidden=0": "model.hidden=0: must be at least 1",
    "data.held_out_batches=0": "data.held_out_batches=0: must be at least 1",
    "data.name=ETTh1": "data.name: no such value 'ETTh1'",
    "model.dim=30": "model.memory.num_heads: 4 does not divide model.dim=30",
}


@pytest.mark.parametrize("overrides", CONFLICTS)
def test_config_conflicts(refuse: Refuse, overrides: str) -> None:
    assert CONFLICTS[overrides] in refuse("fit", UNIVERSAL, *overrides.split())


def test_a_limit_on_all_splits_ends_epochs_too() -> None:
    assert load_config([UNIVERSAL], ["trainer.epoch_batches=0", "trainer.limit_batches=3"]).trainer.limit_batches == 3
