"""`titans-seq benchmark`: suite files, running, resuming and tables, on a grid of runs of two steps each."""

import csv
import errno
import fcntl
import json
import random
import shutil
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.experiment.run.faults import Command
from tests.helpers import CONFIGS, REPOSITORY, SMALL_MODEL, TWO_STEPS, refusal, run_cli
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.studies.suite import read_suite, running
from titans_seq.studies.suite.running import Store
from titans_seq.studies.suite.table import build_rows, fill_page

BASE = [str(CONFIGS / "forecasting" / "synthetic.yaml"), *SMALL_MODEL, *TWO_STEPS, "model.attention.num_heads=2"]
SUITE = {
    "name": "small",
    "base": BASE,
    "axes": {
        "seed": [0, 1],
        "data": {"simulated": []},
        "data.horizon": [12, 24],
        "model": {"LMM": "model.variant=lmm", "Attention": ["model.variant=transformer"]},
    },
    "leave_out": [{"model": "Attention", "data.horizon": 24}],
    "table": {
        "rows": ["data", "model"],
        "columns": "data.horizon",
        "metrics": {"test/mse": "MSE", "test/mae": "MAE"},
        "facts": {"context_length": "lookback"},
        "mean": True,
        "baselines": True,
    },
    "published": [
        {
            "name": "Oracle",
            "facts": {"context_length": "all"},
            "values": {"simulated": {12: [0.1, 0.2], 24: [0.3, 0.4]}},
        }
    ],
    "pages": ["page.md"],
}
PAGE = """# Results

<!-- benchmark small -->
old
<!-- end -->

<!-- benchmark small: mean -->
<!-- end -->
<!-- benchmark small: 12 | LMM, Oracle -->
<!-- end -->
last
"""


def write_suite(folder: Path, **changes: Any) -> Path:
    """Write SUITE with some keys replaced (None removes a key) and its page; return the path."""
    content = {key: value for key, value in {**SUITE, **changes}.items() if value is not None}
    path = folder / "suite.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    (folder / "page.md").write_text(PAGE)
    return path


@pytest.fixture(scope="module", autouse=True)
def _no_figures() -> Iterator[None]:
    """Skip plotting, which takes three quarters of the time of these runs and is tested elsewhere."""
    with mock.patch("titans_seq.experiment.forecasting.experiment.plot_forecasts"):
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished suite, and its printed output."""
    folder = tmp_path_factory.mktemp("suite")
    write_suite(folder)
    answer = run_cli("benchmark", "suite.yaml", cwd=folder)
    assert answer.status == 0, answer.err
    return folder, answer.out


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "benchmarks/results/small").glob("*.json")}


NAMES = {f"seed{seed}_simulated_{cell}" for seed in (0, 1) for cell in ("12_LMM", "12_Attention", "24_LMM")}


def test_every_cell_writes_its_result_with_metadata(done: tuple[Path, str]) -> None:
    folder, printed = done
    kept = results(folder)
    assert kept.keys() == NAMES
    for name, content in kept.items():
        run = json.loads((folder / "runs/small" / name / "results.json").read_text())
        assert content["results"] == run
        assert content["cell"]["seed"] == str(content["results"]["seed"]) == str(content["config"]["seed"])
        assert content["cell"]["data.horizon"] == str(run["horizon"])
        assert (
            content["config"]["model"]["variant"]
            == {"LMM": "lmm", "Attention": "transformer"}[content["cell"]["model"]]
        )
        assert {"commit", "uncommitted_changes", "cpu", "packages", "command"} <= run["environment"].keys()
        assert f"{name}: MSE {run['test/mse']:.4f}, MAE {run['test/mae']:.4f}" in printed


def test_table_shows_mean_and_standard_deviation_over_seeds_and_published_values(done: tuple[Path, str]) -> None:
    folder, _ = done
    kept = results(folder)
    text = (folder / "benchmarks/results/small/table.md").read_text()
    assert "**" in text
    lines = text.replace("**", "").splitlines()
    assert lines[2:5] == ["### simulated", "", "| model | lookback | 12 | 24 | mean |"]
    assert "| *Oracle* | all | 0.100 / 0.200 | 0.300 / 0.400 | 0.200 / 0.300 |" in lines

    def cell(horizons: list[int], model: str) -> str:
        parts = []
        for key in ("test/mse", "test/mae"):
            seeds = [
                statistics.fmean(kept[f"seed{seed}_simulated_{h}_{model}"]["results"][key] for h in horizons)
                for seed in (0, 1)
            ]
            parts.append(f"{statistics.fmean(seeds):.3f} ± {statistics.stdev(seeds):.3f}")
        return " / ".join(parts)

    assert f"| LMM | 72 | {cell([12], 'LMM')} | {cell([24], 'LMM')} | {cell([12, 24], 'LMM')} |" in lines
    assert f"| Attention | 72 | {cell([12], 'Attention')} | - | - |" in lines
    naive = kept["seed0_simulated_12_LMM"]["results"]["baselines"]["last value"]
    assert any(f"| last value | 72 | {naive['test/mse']:.3f} / {naive['test/mae']:.3f} |" in line for line in lines)
    assert "6 of 6 runs are done." in lines[0]
    page = (folder / "page.md").read_text()
    assert text in page
    page = page.replace("**", "")
    assert f"| LMM | 72 | {cell([12, 24], 'LMM')} |" in page.splitlines()
    few = page[page.index("<!-- benchmark small: 12 |") :].splitlines()
    assert [line for line in few if line.startswith("|")] == [
        "| model | lookback | simulated |",
        "|---|---|---|",
        f"| LMM | 72 | {cell([12], 'LMM')} |",
        "| *Oracle* | all | 0.100 / 0.200 |",
    ]
    assert page.startswith("# Results\n")
    assert page.endswith("<!-- end -->\nlast\n")
    assert "old" not in page.splitlines()
    with (folder / "benchmarks/results/small/table.csv").open() as file:
        rows = {(r["model"], r["horizon"], r["metric"]): r for r in csv.DictReader(file)}
    mses = [kept[f"seed{seed}_simulated_12_LMM"]["results"]["test/mse"] for seed in (0, 1)]
    assert float(rows["LMM", "12", "MSE"]["mean"]) == statistics.fmean(mses)
    assert float(rows["LMM", "12", "MSE"]["standard deviation"]) == statistics.stdev(mses)
    assert rows["LMM", "12", "MSE"]["seeds"] == "2"
    assert rows["Oracle", "24", "MAE"]["mean"] == "0.4"
    assert (folder / "benchmarks/results/small/table.png").stat().st_size > 10_000


def test_only_missing_cells_run_again(done: tuple[Path, str]) -> None:
    folder, _ = done
    gone = folder / "benchmarks/results/small/seed1_simulated_12_LMM.json"
    before = json.loads(gone.read_text())["results"]
    left = folder / "runs/small/seed1_simulated_12_LMM/config.yaml"
    left.write_text(left.read_text().replace("dim: 8", "dim: 4"))  # as if left by a run with another configuration
    others = {path: path.stat().st_mtime_ns for path in gone.parent.glob("*.json") if path != gone}
    gone.unlink()
    answer = run_cli("benchmark", "suite.yaml", "--list", cwd=folder)
    assert sorted(answer.out.split()) == sorted([*NAMES, "missing", *["done"] * 5])
    assert "missing   seed1_simulated_12_LMM" in answer.out
    answer = run_cli("benchmark", "suite.yaml", cwd=folder)
    assert answer.status == 0, answer.err
    again = json.loads(gone.read_text())["results"]
    assert (again["test/mse"], again["test/mae"]) == (before["test/mse"], before["test/mae"])
    assert "dim: 8" in left.read_text()
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert answer.out.count("of training") == 1


def test_result_with_a_former_key_name_is_done(tmp_path: Path) -> None:
    base = [str(CONFIGS / "genomics" / "pretrain.yaml"), *TWO_STEPS]
    axes = {"seed": [0], "data": {"simulated": []}, "data.stream_length": [1024]}
    table = {"rows": ["data"], "columns": "data.stream_length", "metrics": {"test/bits_per_base": "bits"}}
    content = {"name": "lengths", "base": base, "axes": axes, "table": table}
    (tmp_path / "suite.yaml").write_text(json.dumps(content))
    store = Store(read_suite(tmp_path / "suite.yaml"), results=tmp_path)
    (cell,) = store.suite.cells
    config = to_container(cell.load_config())
    assert config["data"].pop("stream_length") == 1024
    for stretch, status in ((1024, "done"), (2048, "outdated")):
        config["data"]["stretch"] = stretch
        result = {"results": {"test/bits_per_base": 2.0, "baselines": {}}, "config": config}
        store.path(cell).write_text(json.dumps(result))
        assert store.status(cell) == status


def test_results_of_another_configuration_are_outdated_and_left_out_of_the_table(tmp_path: Path) -> None:
    write_suite(tmp_path, pages=None)
    suite = read_suite(tmp_path / "suite.yaml")
    store = Store(suite, results=tmp_path)
    cell = suite.cells[0]
    content = {
        "results": {"test/mse": 1.0, "test/mae": 1.0, "baselines": {}},
        "config": to_container(cell.load_config()),
    }
    store.path(cell).write_text(json.dumps(content))
    assert store.status(cell) == "done"
    # Hardware, paths and logging do not affect results.
    here = ["trainer.accelerator=auto", "run.dir=elsewhere", "data.root=elsewhere", "logging.wandb=offline"]
    assert Store(suite, here, tmp_path).status(cell) == "done"
    assert Store(suite, ["model.dim=16"], tmp_path).status(cell) == "outdated"
    answer = run_cli("benchmark", "suite.yaml", "--report", "--results", tmp_path, "model.dim=16", cwd=tmp_path)
    assert answer.status == 0, answer.err
    text = (tmp_path / "table.md").read_text()
    assert "0 of 6 runs are done, 1 are of an earlier configuration and left out." in text
    assert "| LMM |  | - | - | - |" in text.splitlines()


def test_interrupted_run_resumes_from_its_checkpoint(done: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = done
    name = "seed0_simulated_12_LMM"
    shutil.copytree(folder / "runs/small" / name, tmp_path / "runs/small" / name)
    half = tmp_path / "runs/small" / name
    (half / "results.json").unlink()
    write_suite(tmp_path, pages=None)
    arguments = ["--only", "model=LMM", "--only", "data.horizon=12", "--only", "seed=0"]
    answer = run_cli("benchmark", "suite.yaml", *arguments, cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert "Resuming" in (half / "console.txt").read_text()
    assert results(tmp_path)[name]["results"]["test/mse"] == results(folder)[name]["results"]["test/mse"]


def test_only_selects_cells_and_the_table_marks_missing_seeds(tmp_path: Path) -> None:
    write_suite(tmp_path, pages=None)
    arguments = ["--only", "model=LMM", "--only", "data.horizon=12", "--only", "seed=0"]
    assert run_cli("benchmark", "suite.yaml", "--list", *arguments, cwd=tmp_path).out.split() == [
        "missing",
        "seed0_simulated_12_LMM",
    ]
    answer = run_cli("benchmark", "suite.yaml", *arguments, cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert results(tmp_path).keys() == {"seed0_simulated_12_LMM"}
    text = (tmp_path / "benchmarks/results/small/table.md").read_text()
    assert "(1 of 2 seeds) | - | - |" in text
    assert "1 of 6 runs are done." in text


def test_cell_locked_by_another_process_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_suite(tmp_path, pages=None)
    monkeypatch.chdir(tmp_path)
    suite = read_suite("suite.yaml")
    store = Store(suite)
    arguments = ["--only", "model=LMM", "--only", "data.horizon=12", "--only", "seed=0"]
    with store.lock(suite.cells[0]) as acquired:
        assert acquired
        answer = run_cli("benchmark", "suite.yaml", *arguments)
    assert answer.status == 0, answer.err
    assert "seed0_simulated_12_LMM: another process is running it" in answer.out
    assert not results(tmp_path)


def test_failed_cell_does_not_stop_the_others(tmp_path: Path) -> None:
    base = [*BASE[:1], *SMALL_MODEL, *TWO_STEPS]
    axes = {"data": {"gone": ["data.name=ETTh1", f"data.root={tmp_path}"], "simulated": []}, "data.horizon": [12]}
    table = {"rows": ["data"], "columns": "data.horizon", "metrics": {"test/mse": "MSE"}}
    write_suite(tmp_path, base=base, axes=axes, table=table, leave_out=None, published=None, pages=None)
    answer = run_cli("benchmark", "suite.yaml", cwd=tmp_path)
    assert answer.status == 2
    assert "gone_12: failed" in answer.err
    assert "ETTh1.csv not found" in answer.err
    assert answer.err.splitlines()[-1] == "titans-seq: 1 of 2 runs failed or are not done: gone_12"
    assert results(tmp_path).keys() == {"simulated_12"}


def test_table_averages_over_folds_with_baselines_per_fold(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = ["".join(draw.choices("ACGT", k=30)) + f",{row % 3 == 0:d}" for row in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,label", *rows, ""]))
    motif = str(CONFIGS / "genomics" / "motif.yaml")
    base = [motif, *TWO_STEPS, "model.dim=8", "model.num_layers=1", "data.folds=2", "data.batch_size=8"]
    axes = {
        "fold": {0: "data.fold=0", 1: "data.fold=1"},
        "data": {"mine": f"data.name={tmp_path / 'mine.csv'}"},
        "model": {"CNN": "model.variant=cnn", "LMM": "model.variant=lmm"},
    }
    table = {"rows": ["model"], "columns": "data", "metrics": {"test/accuracy": "accuracy"}, "baselines": True}
    write_suite(tmp_path, base=base, axes=axes, table=table, leave_out=None, published=None, pages=None)
    answer = run_cli("benchmark", "suite.yaml", cwd=tmp_path)
    assert answer.status == 0, answer.err
    kept = results(tmp_path)
    assert kept.keys() == {f"fold{fold}_mine_{model}" for fold in (0, 1) for model in ("CNN", "LMM")}
    by_fold = [kept[f"fold{fold}_mine_CNN"]["results"]["baselines"]["frequencies of bases"] for fold in (0, 1)]
    scores = [baseline["test/accuracy"] for baseline in by_fold]
    text = (tmp_path / "benchmarks/results/small/table.md").read_text()
    shown = f"{statistics.fmean(scores):.3f} ± {statistics.stdev(scores):.3f}"
    assert f"| frequencies of bases | {shown} |" in text.replace("**", "")
    assert "mean ± standard deviation over folds;" in text
    assert run_cli("benchmark", "suite.yaml", "--only", "fold=1", "--list", cwd=tmp_path).out.count("done") == 2
    (tmp_path / "benchmarks/results/small/fold1_mine_LMM.json").unlink()
    run_cli("benchmark", "suite.yaml", "--report", cwd=tmp_path)
    assert "(1 of 2 folds) |" in (tmp_path / "benchmarks/results/small/table.md").read_text()
    with (tmp_path / "benchmarks/results/small/table.csv").open() as file:
        counts = {row["model"]: row["folds"] for row in csv.DictReader(file)}
    assert (counts["CNN"], counts["LMM"], counts["frequencies of bases"]) == ("2", "1", "2")


def test_several_processes_share_the_cells(tmp_path: Path) -> None:
    write_suite(tmp_path, pages=None)
    arguments = ["--only", "model=LMM", "--only", "data.horizon=12"]
    answer = run_cli("benchmark", "suite.yaml", "--jobs", "2", *arguments, cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert results(tmp_path).keys() == {"seed0_simulated_12_LMM", "seed1_simulated_12_LMM"}


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("5, 7", ["5", "7"]), ("3,4,9", ["3", "4"])])
def test_processes_use_the_visible_gpus_only(
    visible: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert running._gpus() == names


@pytest.mark.parametrize(("number", "free"), [(errno.EWOULDBLOCK, False), (errno.ENOLCK, True)])
def test_cells_run_without_locks_on_file_systems_without_locking(
    number: int, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "")

    suite = read_suite(write_suite(tmp_path))
    monkeypatch.setattr(fcntl, "flock", flock)
    with Store(suite, results=tmp_path).lock(suite.cells[0]) as ours:
        assert ours is free


def test_worker_processes_stop_with_their_parent(tmp_path: Path) -> None:
    endless = [override for override in BASE if not override.startswith("trainer.max_steps")]
    endless += ["trainer.max_steps=-1", "trainer.max_epochs=100000", "trainer.patience=100000"]
    write_suite(tmp_path, base=endless, pages=None)
    arguments = ["benchmark", "suite.yaml", "--jobs", "2", "--only", "model=LMM", "--only", "data.horizon=12"]
    command = Command(arguments, tmp_path)
    kept = [tmp_path / f"runs/small/seed{seed}_simulated_12_LMM/checkpoints/last.ckpt" for seed in (0, 1)]
    command.wait_for(lambda: all(path.exists() for path in kept))
    command.kill(signal.SIGTERM)
    stopped = command.wait(60)
    assert stopped.status == 143, stopped
    assert "Traceback" not in stopped.err
    assert sum("interrupted in epoch" in line for line in stopped.err.splitlines()) == 2
    for seed, path in enumerate(kept):
        assert "state_dict" in torch.load(path, weights_only=True)
        with (tmp_path / f"runs/small/seed{seed}_simulated_12_LMM.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if a worker still holds the lock
    assert not results(tmp_path)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*suite.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_suites_are_valid_and_their_pages_up_to_date(path: Path) -> None:
    suite = read_suite(path)
    suite.check(suite.cells[:: max(1, len(suite.cells) // 20)])
    rows = build_rows(Store(suite, results=REPOSITORY / "benchmarks/results" / suite.name))
    for page in suite.pages:
        assert (
            fill_page(page, Store(suite, results=REPOSITORY / "benchmarks/results" / suite.name), rows)
            == page.read_text()
        )


FAULTS = {
    "a misspelt key": ({"axis": {}}, "axis: no such key; did you mean axes?"),
    "no table": ({"table": None}, "table: is missing"),
    "a name that is a path": ({"name": "../x"}, "name: '../x' must be a plain name: it names a folder"),
    "an empty axis": ({"axes": {"seed": []}}, "axes.seed: must be a list"),
    "a value twice": ({"axes": {**SUITE["axes"], "seed": [0, 0]}}, "axes.seed: lists a value twice"),  # type: ignore[dict-item]
    "an override that is not text": ({"base": [3]}, "base: must be a config file or a key=value override"),
    "a key that no config has": ({"base": [*BASE, "model.dmi=3"]}, "seed0_simulated_12_LMM: command line: model.dmi"),
    "a missing config": ({"base": ["gone.yaml"]}, "gone.yaml: no such config file"),
    "an unknown axis left out": ({"leave_out": [{"modle": "LMM"}]}, "unknown axis 'modle'; did you mean model?"),
    "an unknown label left out": ({"leave_out": [{"model": "LMN"}]}, "unknown label of model 'LMN'; did you mean LMM?"),
    "all left out": ({"leave_out": [{"seed": [0, 1]}]}, "leave_out: excludes every cell"),
    "an axis that no table shows": ({"table": {"rows": ["data"], "columns": "model", "metrics": {}}}, "every axis"),
    "text for a number": (
        {"table": {**SUITE["table"], "decimals": "x"}},  # type: ignore[dict-item]
        "table.decimals: must be a number; got 'x'",
    ),
    "negative decimals": (
        {"table": {**SUITE["table"], "decimals": -1}},  # type: ignore[dict-item]
        "table.decimals: must be between 0 and 12; got -1",
    ),
    "several seeds in a cell": ({"base": [*BASE, "seeds=[0,1]"]}, "seeds: not supported in a suite; make seed an axis"),
    "too few numbers": (
        {"published": [{"name": "X", "values": {"simulated": {12: [1]}}}]},
        "published[0].values.simulated.12: must have one number for each of test/mse, test/mae",
    ),
    "an unknown column": (
        {"published": [{"name": "X", "values": {"simulated": {13: [1, 2]}}}]},
        "unknown label of data.horizon '13'",
    ),
    "several devices": (
        {"base": [*BASE, "trainer.devices=2"]},
        "must be 1 in a suite; --jobs runs several cells in parallel",
    ),
    "a missing page": ({"pages": ["gone.md"]}, "pages: no such file"),
}


def read_and_check(path: Path) -> None:
    suite = read_suite(path)
    suite.check(suite.cells)


@pytest.mark.parametrize("name", FAULTS)
def test_error_of_a_faulty_suite(tmp_path: Path, name: str) -> None:
    changes, message = FAULTS[name]
    path = write_suite(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_and_check(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_value_of_an_axis_may_be_null(tmp_path: Path) -> None:
    axes = {**SUITE["axes"], "model.memory.checkpoint_every": [None, 4]}  # type: ignore[dict-item]
    table = {**SUITE["table"], "rows": ["data", "model.memory.checkpoint_every", "model"]}  # type: ignore[dict-item]
    suite = read_suite(write_suite(tmp_path, axes=axes, table=table, published=None))
    assert {cell.load_config().model.memory.checkpoint_every for cell in suite.cells} == {None, 4}


def test_run_folders_of_another_results_folder(tmp_path: Path) -> None:
    suite = read_suite(write_suite(tmp_path))
    assert Store(suite).run_folder(suite.cells[0]) == Path("runs/small") / suite.cells[0].name
    assert Store(suite, results=tmp_path).run_folder(suite.cells[0]) == tmp_path / "runs" / suite.cells[0].name


def test_cells_with_the_same_configuration_are_an_error(tmp_path: Path) -> None:
    # data.yaml comes after the model axis and overrides its settings.
    (tmp_path / "data.yaml").write_text("model: {variant: lmm}")
    axes = {"model": {"LMM": [], "Attention": "attention.yaml"}, "data": {"simulated": "data.yaml"}}
    axes = {**axes, "data.horizon": [12]}
    (tmp_path / "attention.yaml").write_text("model: {variant: transformer}")
    path = write_suite(tmp_path, axes=axes, leave_out=None, published=None)
    with pytest.raises(InputError, match="LMM_simulated_12 and Attention_simulated_12 are the same run"):
        read_and_check(path)
    reordered = {axis: axes[axis] for axis in ("data", "data.horizon", "model")}
    read_and_check(write_suite(tmp_path, axes=reordered, leave_out=None, published=None))


def test_suite_and_run_configuration_in_the_wrong_command_are_errors(tmp_path: Path) -> None:
    genomics = CONFIGS / "genomics"
    answer = refusal(run_cli("benchmark", str(genomics / "gue.yaml"), cwd=tmp_path))
    what = "is the configuration of one run; a suite has axes (docs/benchmark.md)"
    assert f"gue.yaml: {what}; did you mean {genomics}" in answer
    answer = refusal(run_cli("fit", str(genomics / "gue_suite.yaml"), cwd=tmp_path))
    assert "gue_suite.yaml: is a suite of runs, not the configuration of one; use titans-seq benchmark" in answer


def test_invalid_command_line_arguments(tmp_path: Path) -> None:
    write_suite(tmp_path)
    for arguments, message in (
        (["--only", "modl=LMM"], "--only modl=LMM: unknown axis 'modl'; did you mean model?"),
        (["--only", "LMM"], "--only LMM: expected axis=label, such as seed=0"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
        (["model.dmi=3"], "command line: model.dmi: no such key"),
    ):
        assert message in refusal(run_cli("benchmark", "suite.yaml", *arguments, cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


def test_invalid_page_and_damaged_result_are_errors(tmp_path: Path) -> None:
    write_suite(tmp_path)
    (tmp_path / "page.md").write_text("nothing")
    assert "page.md: no place for the table" in refusal(run_cli("benchmark", "suite.yaml", "--report", cwd=tmp_path))
    (tmp_path / "page.md").write_text("<!-- benchmark small: 13 -->\n<!-- end -->")
    assert "unknown column '13'" in refusal(run_cli("benchmark", "suite.yaml", "--report", cwd=tmp_path))
    (tmp_path / "page.md").write_text("<!-- benchmark small: | LMN -->\n<!-- end -->")
    assert "unknown row 'LMN'" in refusal(run_cli("benchmark", "suite.yaml", "--report", cwd=tmp_path))
    folder = tmp_path / "benchmarks/results/small"
    (folder / "seed0_simulated_12_LMM.json").write_text("{")
    assert "not a readable result" in refusal(run_cli("benchmark", "suite.yaml", "--list", cwd=tmp_path))
