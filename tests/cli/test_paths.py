"""Paths on the command line: run folders and the newest run as checkpoints; errors are reported at once."""

import os
from pathlib import Path

import pytest

from datamodules.dna.datasets.genomic_benchmarks import BENCHMARKS
from datamodules.dna.datasets.gue import TASKS
from tests.helpers import REPOSITORY, Refuse, refusal, run_cli
from tests.test_imports import run_blocked
from titans_seq import shipped
from titans_seq.cli.paths import check_config
from titans_seq.config import load_config
from titans_seq.errors import InputError
from titans_seq.schema import ClassificationConfig
from titans_seq.system.run_folders import find_checkpoint

RUN_COMMANDS = ["validate", "test", "predict", "forecast", "backtest", "explain", "export", "mutagenesis", "variants"]
REQUIRED = {
    "export": ["--out", "model"],
    "mutagenesis": ["--input", "reads.fa"],
    "variants": ["--vcf", "changes.vcf", "--reference", "genome.fa"],
}


def make_run(folder: Path, began: int, best: bool = True) -> Path:
    """Create the files of a run that `find_checkpoint` uses; return the path of its best checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    os.utime(folder / "config.yaml", (began, began))
    if best:
        (folder / "checkpoints" / "best.ckpt").touch()
    return folder / "checkpoints" / "best.ckpt"


def test_checkpoint_of_a_run_folder(tmp_path: Path) -> None:
    older = make_run(tmp_path / "runs" / "etth1" / "z", began=100)
    newer = make_run(tmp_path / "runs" / "etth1" / "seeds" / "seed-0", began=200)
    assert find_checkpoint(older) == older
    assert find_checkpoint(older.parent.parent) == older
    assert find_checkpoint(tmp_path / "runs" / "etth1" / "last") == newer
    assert find_checkpoint(tmp_path / "runs" / "last") == newer
    assert find_checkpoint(tmp_path / "runs" / "etth1" / "z" / "last") == older
    # An existing folder `last` takes precedence over the newest run.
    named = make_run(tmp_path / "runs" / "etth1" / "last", began=50)
    assert find_checkpoint(tmp_path / "runs" / "etth1" / "last") == named


def test_errors_of_missing_runs(tmp_path: Path) -> None:
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
def test_every_command_accepts_the_newest_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


FASTA = ("data.name=README.md",)  # any file that exists
# name: (arguments, end of the error line)
MISSING = {
    "a configuration": (["fit", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    "a suite": (["benchmark", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    "a sweep": (["sweep", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    "a table": (["fit", "forecasting/table", "data.path=sales.csv"], "sales.csv: no such file; set data.path"),
    "sequences": (["fit", "genomics/sequences", "data.name=a.fa"], "a.fa: no such file or published dataset"),
    "sequences to audit": (["audit", "regions.fa.gz"], "regions.fa.gz: no such file or published dataset"),
    "labels": (["fit", "genomics/sequences", *FASTA, "data.labels=~/l.csv"], "~/l.csv: no such file; set data.labels"),
    "labels to audit": (["audit", "README.md", "data.labels=l.csv"], "l.csv: no such file; set data.labels"),
    "intervals": (["fit", "genomics/sequences", *FASTA, "data.bed=peaks.bed"], "peaks.bed: no such file; set data.bed"),
    "intervals of classes": (
        ["fit", "genomics/sequences", *FASTA, "data.bed={yes: README.md, no: no.bed}"],
        "no.bed: no such file; set data.bed",
    ),
    "genome": (["audit", "human_ocr_ensembl", "data.reference=hg.fa"], "hg.fa: no such file; set data.reference"),
    "corpus": (
        ["fit", "genomics/gue_pretrain", "data.also=[README.md, b.fa]"],
        "b.fa: no such file or published dataset",
    ),
    "excluded": (["fit", "genomics/gue_pretrain", "data.exclude=[c.fa]"], "c.fa: no such file or published dataset"),
    "pre-trained": (
        ["fit", "genomics/motif", "model.pretrained=no.ckpt"],
        "model.pretrained: no.ckpt: no such checkpoint file or run folder",
    ),
    "newest pre-trained": (
        ["fit", "genomics/motif", "model.pretrained=nowhere/last"],
        "model.pretrained: nowhere/last: no run below nowhere",
    ),
    "run to resume": (["fit", "resume=nowhere"], "resume=nowhere: no such run folder or checkpoint; expected a path"),
    "newest run to resume": (["fit", "resume=nowhere/last"], "nowhere/last: no run below nowhere"),
    "table of a run": (["test", "BEST", "data.path=sales.csv"], "sales.csv: no such file; set data.path"),
    "corpus of a run": (["test", "BEST", "data.also=[a.fa]"], "a.fa: no such file or published dataset"),
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


def test_missing_file_is_reported_without_importing_torch(tmp_path: Path) -> None:
    # In one process, which fails if a command imports torch before it checks its paths.
    best = make_run(tmp_path / "run", began=100)
    commands = [[argument.replace("BEST", str(best)) for argument in arguments] for arguments, _ in MISSING.values()]
    statement = f"from titans_seq.cli import main\nassert all(main(arguments) == 2 for arguments in {commands!r})"
    done = run_blocked({"torch", "lightning", "polars", "numpy", "matplotlib"}, statement)
    assert done.returncode == 0, done.stderr
    for (arguments, message), line in zip(MISSING.values(), done.stderr.splitlines(), strict=True):
        assert message in line, arguments


def test_names_of_published_datasets_are_not_taken_for_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*BENCHMARKS, *TASKS, "simulated"):
        check_config(load_config(["genomics/sequences"], [f"data.name={name}"]))


def test_run_in_a_configuration_is_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    best = make_run(Path("runs") / "pre" / "a", began=100)

    def resolved(*overrides: str) -> tuple[str | None, str | None, str]:
        config = check_config(load_config(["genomics/motif"], overrides))
        assert isinstance(config, ClassificationConfig)
        return config.resume, config.model.pretrained, capsys.readouterr().err

    note = "note: the newest run is runs/pre/a\n"
    assert resolved() == (None, None, "")
    assert resolved("model.pretrained=runs/pre/a") == (None, str(best), "")
    assert resolved("model.pretrained=runs/pre/last") == (None, str(best), note)
    assert resolved("resume=runs/pre/last") == ("runs/pre/a", None, note)
    assert resolved("resume=last") == ("last", None, "")
    # Resolved on resume too, for the comparison with the run's own configuration, which needs no checkpoint any more.
    assert resolved("resume=auto", "model.pretrained=runs/pre/last") == ("auto", str(best), note)
    assert resolved("resume=auto", "model.pretrained=gone.ckpt") == ("auto", "gone.ckpt", "")


def test_fit_without_arguments_prints_its_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run_cli("fit")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("usage: titans-seq fit NAME|FILE")
    assert all(f"  {name} " in answer.err for name in shipped.names())
    assert list(tmp_path.iterdir()) == []


def test_existing_table_is_checked_by_the_data_module(refuse: Refuse) -> None:
    line = refuse("fit", "forecasting/table", f"data.path={REPOSITORY / 'README.md'}")
    assert "README.md: " in line
    assert "no such file" not in line
