"""Shipped configuration files: lookup by name from any folder, listing, copying and suggestions for misspelt names."""

from pathlib import Path

import pytest
import yaml

from tests.helpers import CONFIGS, Refuse, run_cli
from titans_seq import shipped
from titans_seq.config import load_config
from titans_seq.studies.suite import read_suite


def test_every_file_of_the_folder_is_shipped() -> None:
    files = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert files == set(shipped.names())
    assert {path.suffix for path in CONFIGS.rglob("*") if path.is_file()} == {".yaml"}


@pytest.mark.parametrize("name", ["forecasting/etth1", "forecasting/etth1.yaml"])
def test_a_name_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config([name]) == load_config([CONFIGS / "forecasting" / "etth1.yaml"])


def test_existing_path_takes_precedence_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lmm.yaml").write_text("model: {dim: 48}\n")
    assert load_config(["model/lmm.yaml"]).model.dim == 48
    assert load_config(["model/lmm"]).model.dim == load_config([CONFIGS / "model" / "lmm.yaml"]).model.dim


def test_an_error_names_the_shipped_file(refuse: Refuse) -> None:
    line = refuse("show-config", "forecasting/etth1", "data.context_length=60")
    assert line.startswith("titans-seq: forecasting/etth1: model.patch_length: ")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("etth1", "forecasting/etth1"),
        ("forecasting/eth1", "forecasting/etth1"),
        ("forecasting/ETTh1", "forecasting/etth1"),
        ("configs/forecasting/etth1.yaml", "forecasting/etth1"),
        ("configs/genomics/motif", "genomics/motif"),
        ("motiv", "genomics/motif"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "show-config", "benchmark", "sweep"])
def test_suggestion_for_a_misspelt_name(refuse: Refuse, command: str, name: str, suggestion: str) -> None:
    assert f"{name}: no such config file; did you mean {suggestion}?" in refuse(command, name)


def test_suggestion_for_a_missing_suffix(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {dim: 48}\n")
    path = tmp_path / "mine"
    assert f"{path}: no such config file; did you mean {path}.yaml?" in refuse("fit", path)


def test_list_has_one_line_per_file() -> None:
    answer = run_cli("configs")
    assert answer.status == 0
    for name in shipped.names():
        (line,) = [line for line in answer.out.splitlines() if line.split()[:1] == [name]]
        summary = line.split(maxsplit=1)[1]
        assert summary[-1] in ".?", f"{name}: its first line must be a sentence: {summary}"


def test_copies_work_outside_the_folder_of_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in shipped.names():
        copy = Path(f"{name.replace('/', '_')}.yaml")
        answer = run_cli("configs", "copy", name, copy)
        assert answer.status == 0, answer.err
        content = yaml.safe_load(copy.read_text())
        if "axes" in content:
            suite = read_suite(copy)
            assert not suite.pages
            for ours, theirs in zip(suite.cells, read_suite(name).cells, strict=True):
                assert ours.name == theirs.name
            suite.check(suite.cells[:1])
        elif "parameters" not in content:
            assert load_config([copy]) == load_config([name])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["copy", "forecasting/tabel", "my.yaml"], "did you mean forecasting/table?"),
        (["copy", CONFIGS / "model" / "lmm.yaml", "my.yaml"], "not a shipped file"),
        (["copy", "model/lmm", "my"], "takes a file name that ends in .yaml"),
        (["copy", "model/lmm"], "takes nothing, or copy NAME FILE"),
        (["copy", "model/lmm", "nowhere/my.yaml"], "No such file or directory"),
    ],
)
def test_copy_errors(refuse: Refuse, arguments: list[str | Path], part: str) -> None:
    assert part in refuse("configs", *arguments)


def test_a_copy_never_overwrites(refuse: Refuse, tmp_path: Path) -> None:
    mine = tmp_path / "my.yaml"
    mine.write_text("mine\n")
    assert "my.yaml: the file exists" in refuse("configs", "copy", "model/lmm", mine)
    assert mine.read_text() == "mine\n"


def test_audit_accepts_a_name() -> None:
    assert run_cli("audit", "genomics/motif").out == run_cli("audit", "simulated").out != ""
