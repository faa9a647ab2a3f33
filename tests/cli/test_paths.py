"""Paths on the command line: a run's folder or its newest run for a checkpoint; wrong ones are reported at once."""

import os
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, Refuse, refusal, run_cli
from tests.test_imports import run_blocked
from titans_seq import shipped
from titans_seq.errors import InputError
from titans_seq.system.run_folders import find_checkpoint

RUN_COMMANDS = ["validate", "test", "predict", "forecast", "backtest", "export", "mutagenesis", "variants"]
REQUIRED = {
    "export": ["--out", "model"],
    "mutagenesis": ["--input", "reads.fa"],
    "variants": ["--vcf", "changes.vcf", "--reference", "genome.fa"],
}


def make_run(folder: Path, began: int, best: bool = True) -> Path:
    """A run's folder as `find_checkpoint` sees it; returns where its best checkpoint is."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    os.utime(folder / "config.yaml", (began, began))
    if best:
        (folder / "checkpoints" / "best.ckpt").touch()
    return folder / "checkpoints" / "best.ckpt"


def test_a_checkpoint_is_found_by_its_run(tmp_path: Path) -> None:
    older = make_run(tmp_path / "runs" / "etth1" / "z", began=100)
    newer = make_run(tmp_path / "runs" / "etth1" / "seeds" / "seed-0", began=200)
    assert find_checkpoint(older) == older
    assert find_checkpoint(older.parent.parent) == older
    assert find_checkpoint(tmp_path / "runs" / "etth1" / "last") == newer
    assert find_checkpoint(tmp_path / "runs" / "last") == newer
    assert find_checkpoint(tmp_path / "runs" / "etth1" / "z" / "last") == older
    named = make_run(tmp_path / "runs" / "etth1" / "last", began=50)  # a folder of that name is what it says
    assert find_checkpoint(tmp_path / "runs" / "etth1" / "last") == named


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    make_run(tmp_path / "new", began=100, best=False)
    messages = {
        "none": "no such checkpoint file or run folder",
        "none/last": "no run below",
        "new": r"the run has no checkpoints/best.ckpt yet",
        "last": r"new: the run has no checkpoints/best.ckpt yet",
        "": "it contains runs: name one, or .*/last for the newest",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            find_checkpoint(tmp_path / name)


@pytest.mark.parametrize("command", RUN_COMMANDS)
def test_every_command_takes_the_newest_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = make_run(tmp_path / "runs" / "etth1" / "a", began=100)
    monkeypatch.chdir(tmp_path)
    for name in ("reads.fa", "changes.vcf", "genome.fa"):
        (tmp_path / name).touch()
    answer = run_cli(command, "runs/etth1/last", *REQUIRED.get(command, []))
    assert answer.status == 2
    note, error = answer.err.splitlines()
    assert note == "note: the newest run is runs/etth1/a"
    assert f"{best.relative_to(tmp_path)}: cut short, damaged or not a checkpoint" in error
    assert "/a/checkpoints/best.ckpt" in refusal(run_cli(command, "runs/etth1/a", *REQUIRED.get(command, [])))


# command, the end of its line
MISSING = {
    "a configuration": (["fit", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    "a suite": (["benchmark", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    "a sweep": (["sweep", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    "a table": (["fit", "forecasting/table", "data.path=sales.csv"], "sales.csv: no such file; set data.path"),
    "a run to compare": (["compare", "nowhere"], "nowhere: no such folder"),
    "data": (["forecast", "BEST", "--data", "sales.csv"], "--data sales.csv: no such file"),
    "future": (["forecast", "BEST", "--future", "plans.csv"], "--future plans.csv: no such file"),
    "input": (["predict", "BEST", "--input", "new.fa"], "--input new.fa: no such file"),
    "vcf": (["variants", "BEST", "--vcf", "a.vcf", "--reference", "README.md"], "--vcf a.vcf: no such file"),
    "reference": (
        ["variants", "BEST", "--vcf", "README.md", "--reference", "genome.fa"],
        "--reference genome.fa: no such file",
    ),
    "folder": (["predict", "BEST", "--out", "no/p.csv"], "--out no/p.csv: no such folder no"),
    "program": (["export", "BEST", "--out", "no/model.pt2"], "--out no/model.pt2: no such folder no"),
    **{
        f"checkpoint of {command}": (
            [command, "nowhere", *REQUIRED.get(command, [])],
            "nowhere: no such checkpoint file or run folder",
        )
        for command in RUN_COMMANDS
    },
}


def test_a_missing_file_is_reported_without_torch(tmp_path: Path) -> None:
    # In one process, which would fail where a command imports torch before it looks.
    best = make_run(tmp_path / "run", began=100)
    commands = [[word.replace("BEST", str(best)) for word in words] for words, _ in MISSING.values()]
    statement = f"from titans_seq.cli import main\nassert all(main(words) == 2 for words in {commands!r})"
    done = run_blocked({"torch", "lightning", "polars", "numpy", "matplotlib"}, statement)
    assert done.returncode == 0, done.stderr
    for (words, message), line in zip(MISSING.values(), done.stderr.splitlines(), strict=True):
        assert message in line, words


def test_bare_fit_trains_nothing_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run_cli("fit")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("usage: titans-seq fit NAME|FILE")
    assert all(f"  {name} " in answer.err for name in shipped.names())
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_exists_is_left_to_the_data_module(refuse: Refuse) -> None:
    line = refuse("fit", "forecasting/table", f"data.path={REPOSITORY / 'README.md'}")
    assert "README.md: " in line
    assert "no such file" not in line
