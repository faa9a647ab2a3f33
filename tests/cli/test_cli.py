"""Invalid input on the command line: exit status 2, one error line that names the place, and no files written."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import titans_seq
from tests.helpers import (
    CONFIGS,
    ETT_HEADER,
    REPOSITORY,
    SMALL_MODEL,
    Refuse,
    ett_rows,
    run_cli,
    write_ett,
)
from titans_seq import shipped
from titans_seq.cli.parser import COMMANDS
from titans_seq.config import load_config, to_container
from titans_seq.errors import InputError
from titans_seq.experiment import doctor
from titans_seq.experiment.run import trainer
from titans_seq.ops.memory.backends import shipped_cases
from titans_seq.schema import Config

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"


def test_a_missing_config_file(refuse: Refuse) -> None:
    assert "nowhere.yaml: no such config file" in refuse("fit", "nowhere.yaml")


def test_a_file_where_a_folder_is_needed(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    suite = CONFIGS / "genomics" / "gue_suite.yaml"
    arguments = ("--results", tmp_path / "file", "--only", "seed=0", "--only", "task=mouse_2", "--only", "model=CNN")
    assert "file/" in refuse("benchmark", suite, *arguments)


@pytest.mark.parametrize(("seeds", "what"), [("[-1]", "must be between 0"), ("[0,1,0]", "lists a seed twice")])
def test_invalid_seeds(refuse: Refuse, seeds: str, what: str) -> None:
    assert what in refuse("show-config", f"seeds={seeds}")


@pytest.mark.parametrize("command", ["fit", "show-config"])
def test_a_misspelt_key(refuse: Refuse, command: str) -> None:
    line = refuse(command, SYNTHETIC, "model.num_layer=3")
    assert "command line: model.num_layer: no such key; did you mean model.num_layers?" in line


def test_error_is_one_line_in_a_new_process() -> None:
    # A new process, because imports and Lightning could print lines of their own.
    command = [sys.executable, "-m", "titans_seq.cli", "fit", str(SYNTHETIC), "data.context_length=100000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("titans-seq: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_broken_pipe_prints_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "titans_seq.cli", "show-config", "configs/forecasting/synthetic.yaml"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=REPOSITORY, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_overrides_may_precede_and_follow_an_option() -> None:
    answer = run_cli("show-config", SYNTHETIC, "model.dim=64", "--debug", "data.horizon=24", "model.dim=16")
    assert answer.status == 0, answer.err
    config = yaml.safe_load(answer.out)
    assert (config["model"]["dim"], config["data"]["horizon"], config["experiment"]) == (16, 24, "synthetic")


def test_unknown_option() -> None:
    answer = run_cli("show-config", SYNTHETIC, "--horizon", "24")
    assert answer.status == 2
    assert "unrecognized arguments: --horizon" in answer.err


def test_debug_shows_the_traceback() -> None:
    from titans_seq.errors import InputError

    with pytest.raises(InputError, match="nowhere"):
        run_cli("fit", "nowhere.yaml", "--debug")


def test_a_missing_data_file(refuse: Refuse, tmp_path: Path) -> None:
    line = refuse("fit", "data.name=ETTh1", f"data.root={tmp_path / 'nowhere'}")
    assert "ETTh1.csv not found" in line
    assert str(tmp_path / "nowhere" / "ETT-small" / "ETTh1.csv") in line
    assert "data.root" in line


ROWS = ett_rows(40)
WHOLE = "\n".join([ETT_HEADER, *ROWS]) + "\n"
CELL = ROWS[9].split(",")[3]  # line 11, column MUFL


def with_cell(text: str) -> bytes:
    return WHOLE.replace(CELL, text).encode()


# name: (content of ETTh1.csv, parts that the error line must contain besides the path)
CONTENTS = {
    "cut in a line": (WHOLE[: -len(ROWS[-1]) // 2].encode(), ["line 41"]),
    "cut in a timestamp": (WHOLE[: -len(ROWS[-1]) + 3].encode(), ["line 41"]),
    "cut in the last cell": (WHOLE[:-4].encode(), ["40 rows", "17420", "truncated or modified"]),
    "cut at a line end": (WHOLE[: -len(ROWS[-1]) - 1].encode(), ["39 rows", "17420", "truncated or modified"]),
    "only a header": (f"{ETT_HEADER}\n".encode(), ["0 rows", "17420"]),
    "text": (with_cell("n/a"), ["line 11", "2016-07-01 09:00:00", "MUFL", "'n/a'"]),
    "NaN": (with_cell("NaN"), ["line 11", "MUFL", "'NaN'"]),
    "infinity": (with_cell("-inf"), ["line 11", "MUFL", "'-inf'"]),
    "empty cell": (with_cell(""), ["line 11", "MUFL", "empty cell"]),
    "blank cell": (with_cell("  "), ["line 11", "MUFL"]),
    "decimal comma": (with_cell('"1,5"'), ["line 11", "MUFL", "'1,5'"]),
    "a cell too many": (with_cell("1.0,2.0"), []),
    "wrong column": (WHOLE.replace("MUFL", "MUFF").encode(), ["MUFL", "MUFF"]),
    "missing column": ("\n".join(line.rpartition(",")[0] for line in WHOLE.splitlines()).encode(), ["OT", "LULL"]),
    "columns swapped": (WHOLE.replace("HUFL,HULL", "HULL,HUFL").encode(), ["HUFL, HULL", "HULL, HUFL"]),
    "a column twice": (WHOLE.replace("HULL", "HUFL").encode(), ["HUFL"]),
    "no date column": (WHOLE.replace("date", "time").encode(), ["'date'", "time"]),
    "no header": ("\n".join(ROWS).encode(), ["'date'"]),
    "semicolons": (WHOLE.replace(",", ";").encode(), ["'date'"]),
    "Latin-1": (WHOLE.replace("MUFL", "MÜFL").encode("latin-1"), []),
    "UTF-16": (WHOLE.encode("utf-16"), []),
    "binary": (bytes(range(256)) * 20, []),
    "binary after the header": (f"{ETT_HEADER}\n".encode() + bytes(range(128, 256)), []),
    "zeros": (b"\0" * 4096, []),
    "empty": (b"", []),
    "blank lines": (b"\n\n\n", []),
}


@pytest.mark.parametrize(("content", "parts"), CONTENTS.values(), ids=CONTENTS.keys())
def test_a_damaged_data_file(refuse: Refuse, tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = write_ett(tmp_path, [])
    path.write_bytes(content)
    line = refuse("fit", "data.name=ETTh1", f"data.root={tmp_path}")
    assert str(path) in line
    assert all(part in line for part in parts), line
    assert len(line) < 500, "a data file's content was printed"
    assert path.read_bytes() == content


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA, so these options are valid")
@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainer.accelerator=gpu", ["not available on this machine", "available: auto, cpu"]),
        ("trainer.accelerator=tpu", ["not available on this machine", "available: auto, cpu"]),
        ("trainer.precision=16-mixed", ["requires a GPU", "available: 32-true, bf16-mixed"]),
        ("model.memory.backend=triton", ["needs a CUDA device", "chunked", "reference"]),
    ],
)
def test_options_unavailable_on_this_machine(refuse: Refuse, override: str, parts: list[str]) -> None:
    line = refuse("fit", SYNTHETIC, override)
    assert override in line
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("model.memory.depth=3", "supports depth 1 and 2; got 3"),
        ("model.memory.num_heads=4", "supports head_dim 32, 64, 128; got 16"),
        ("model.memory.residual=true", "does not support residual=True"),
    ],
)
def test_options_unsupported_by_the_kernels_are_reported_before_training(
    monkeypatch: pytest.MonkeyPatch, override: str, part: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(trainer, "why_not_triton_here", lambda: None)
    supported = ["model.memory.backend=triton", "model.dim=64", "model.memory.num_heads=2"]
    trainer.check_machine(load_config([str(SYNTHETIC)], supported))
    with pytest.raises(InputError, match=f"model.memory.backend=triton: {part}; available: auto, chunked, reference"):
        trainer.check_machine(load_config([str(SYNTHETIC)], [*supported, override]))


def test_doctor_lists_versions_and_why_triton_is_unavailable() -> None:
    answer = run_cli("doctor")
    assert answer.status == 0
    lines = [line.split(maxsplit=1) for line in answer.out.splitlines()]
    assert ["torch", torch.__version__] in lines
    assert ["python", platform.python_version()] in lines
    if not torch.cuda.is_available():
        assert ["backend", "triton     not available: requires a CUDA device; none was found"] in lines
        assert ["backend", "auto       uses chunked"] in lines


def test_doctor_reports_the_kernel_self_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = {"depth 2, float32": "was off by 5e-01 in a trial"}
    names = {kind: name for name, kind in shipped_cases().items()}
    monkeypatch.setattr(doctor, "why_not_triton_here", lambda: None)
    monkeypatch.setattr(doctor, "why_not_trusted", lambda _, kind: verdicts.get(names[kind]))
    monkeypatch.setattr(doctor, "_devices", list)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    text = doctor.doctor_text()
    assert "backend auto       uses triton where it has passed its self-test, else chunked\n" in text
    assert "triton, cuda:0     depth 1, online, bfloat16: passed its self-test\n" in text
    assert "triton, cuda:0     depth 2, float32: was off by 5e-01 in a trial\n" in text


def test_version() -> None:
    answer = run_cli("--version")
    assert (answer.status, answer.out) == (0, f"titans-seq {titans_seq.__version__}\n")


def test_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "titans_seq", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == f"titans-seq {titans_seq.__version__}\n"


def test_bash_completes_commands_files_and_shipped_configurations(tmp_path: Path) -> None:
    (tmp_path / "completion.bash").write_text(run_cli("completion", "bash").out)
    (tmp_path / "mine.yaml").touch()

    def complete(*arguments: str) -> set[str]:
        line = " ".join(arguments)
        script = f"""
source completion.bash
COMP_WORDS=({" ".join(f"'{word}'" for word in arguments)})
COMP_CWORD={len(arguments) - 1} COMP_LINE='{line}' COMP_POINT={len(line)}
_shtab_titans_seq
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
        return {word.strip() for word in done.stdout.split()}

    assert complete("titans-seq", "sh") == {"show-config"}
    assert complete("titans-seq", "fit", "forecasting/ett") >= {"forecasting/etth1", "forecasting/ettm2"}
    assert complete("titans-seq", "fit", "mi") == {"mine.yaml"}
    assert complete("titans-seq", "predict", "best.ckpt", "--in") == {"--input"}


def test_zsh_completion_names_all_commands() -> None:
    script = run_cli("completion", "zsh").out
    assert script.startswith("#compdef titans-seq")
    assert all(name in script for name in [*COMMANDS, *shipped.names()])


def test_doctor_takes_no_arguments(refuse: Refuse) -> None:
    assert "doctor takes no arguments; got gpu" in refuse("doctor", "gpu")


def test_16_bit_precision_on_the_cpu(refuse: Refuse) -> None:
    assert "requires a GPU" in refuse("fit", SYNTHETIC, "trainer.accelerator=cpu", "trainer.precision=16-mixed")


def test_online_gradients_require_a_matrix_memory(refuse: Refuse) -> None:
    line = refuse("fit", SYNTHETIC, "model.memory.gradient=online", "model.memory.depth=2")
    assert (
        "model.memory.gradient: online requires model.memory.depth=1 (a matrix memory); got model.memory.depth=2"
        in line
    )


@pytest.mark.parametrize("length", [6001, 100_000])  # one row too long; longer than the whole series
def test_a_context_too_long_for_the_data(refuse: Refuse, length: int) -> None:
    line = refuse("fit", SYNTHETIC, f"data.context_length={length}")
    assert f"data.context_length={length}" in line
    assert "synthetic, train: 6048 rows" in line


def test_a_horizon_too_long_for_a_split(refuse: Refuse) -> None:
    line = refuse("fit", SYNTHETIC, "data.horizon=2017")
    assert "data.horizon=2017" in line
    assert "validation" in line


def test_existing_run_folder_is_not_overwritten(refuse: Refuse, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text("mine\n")
    assert f"run.dir={old}: already contains a run" in refuse("fit", SYNTHETIC, *SMALL_MODEL, f"run.dir={old}")
    assert [(path.name, path.read_text()) for path in old.iterdir()] == [("config.yaml", "mine\n")]


def test_run_folder_that_cannot_be_created(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "run.dir=" in refuse("fit", SYNTHETIC, *SMALL_MODEL, f"run.dir={tmp_path / 'file' / 'run'}")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_lists_all_commands_and_examples_of_its_own(command: str) -> None:
    answer = run_cli(command, "--help")
    assert answer.status == 0
    run_commands = {"fit", "validate", "test", "predict", "benchmark", "show-config", "doctor"}
    forecasting_commands, dna_commands = {"forecast", "backtest", "explain"}, {"mutagenesis", "variants", "audit"}
    study_commands, package_commands = {"sweep", "compare", "export"}, {"configs", "keys", "example", "completion"}
    assert run_commands | forecasting_commands | dna_commands | study_commands | package_commands == COMMANDS.keys()
    assert all(f"  {name} " in answer.out for name in COMMANDS)
    own = answer.out.partition("\nexample")[2].partition("\n\n")[0].splitlines()[1:]
    assert own
    assert all(line.startswith(f"  titans-seq {command}") for line in own)


@pytest.mark.parametrize("overrides", [["data.horizon=720", "logging.wandb=off"], []])
def test_show_config_prints_yaml_that_loads_to_the_same_config(tmp_path: Path, overrides: list[str]) -> None:
    answer = run_cli("show-config", SYNTHETIC, *overrides)
    assert answer.status == 0
    config = load_config([SYNTHETIC], overrides)
    assert yaml.safe_load(answer.out) == to_container(config)
    (tmp_path / "again.yaml").write_text(answer.out)
    assert load_config([tmp_path / "again.yaml"]) == config


@pytest.mark.parametrize("override", ["seed=99999999999", "model.memory.checkpoint_every=0", "experiment=../elsewhere"])
def test_out_of_range_values_are_reported_before_the_run(refuse: Refuse, override: str) -> None:
    assert f"command line: {override.partition('=')[0]}" in refuse("fit", SYNTHETIC, override)


def test_concurrent_runs_get_separate_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from titans_seq.config import load_config
    from titans_seq.errors import InputError
    from titans_seq.experiment.run.folder import RunFolder

    monkeypatch.chdir(tmp_path)

    def create(config: Config) -> Path | None:
        try:
            return RunFolder.create(config).path
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:
        automatic = list(pool.map(create, [load_config()] * 8))
        named = list(pool.map(create, [load_config([], ["run.dir=one"])] * 8))
    assert len(set(automatic)) == 8
    assert [path for path in named if path] == [Path("one")]
