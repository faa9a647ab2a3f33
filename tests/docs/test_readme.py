"""The commands and Python example of the README run, and its numbers equal the recorded results."""

import json
import re
import shlex
import statistics
import subprocess
from pathlib import Path

import pytest

from tests.helpers import TWO_STEPS, run_cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
VARIANTS = (ROOT / "docs" / "variants.md").read_text()
CPU = ["trainer.accelerator=cpu"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and line[0] == program]


def test_make_targets_exist() -> None:
    for command in commands("make"):
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
    assert {target for _, target in commands("make")} == {"train", "test"}


def test_start_here_runs_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for _, command, *arguments in commands("titans-seq"):
        has_run = bool(arguments) and arguments[0].startswith("runs/")
        quick = TWO_STEPS if command == "fit" else CPU if has_run and command != "compare" else []
        answer = run_cli(command, *arguments, *quick)
        assert answer.status == 0, (command, arguments, answer.err)
        done.append(command)
    assert done == [
        *("example", "forecast", "fit", "forecast"),  # for forecasters
        *("example", "audit", "fit", "mutagenesis"),  # for genomicists
        *("fit", "fit", "compare"),  # for researchers
    ]
    for figure in ("forecast.png", "effects.png", "compare.png"):
        assert (tmp_path / figure).stat().st_size > 10_000


def test_commands_named_in_the_text_exist() -> None:
    named = set(re.findall(r"`titans-seq ([a-z-]+)", README))
    assert named >= {"example", "configs", "keys", "benchmark", "doctor", "fit"}
    for command in named:
        assert run_cli(command, "--help").status == 0, command


def test_numbers_of_the_results_are_on_the_linked_pages() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| \[\w+\]\(\S+?/main/(\S+)\) \|$", README, flags=re.MULTILINE)
    assert len(rows) == 7
    for answer, page in rows:
        text = (ROOT / page).read_text()
        figures = re.findall(r"\d*\.\d+|\d+(?= times)", answer)
        missing = [figure for figure in figures if not re.search(rf"(?<![\d.])0?{re.escape(figure)}(?!\d)", text)]
        assert missing == [], page


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert "torch.Size([2, 4, 64, 256])" in capsys.readouterr().out


@pytest.mark.parametrize("variant", ["lmm", "mal", "mag", "mac"])
def test_table_of_variants_equals_the_recorded_results(variant: str) -> None:
    results = (ROOT / "benchmarks/results").glob(f"etth1_96_{variant}_seed*.json")
    runs = [json.loads(path.read_text()) for path in sorted(results)]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    cells = []
    for key in ("test/mse", "test/mae"):
        values = [run[key] for run in runs]
        cells.append(f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}")
    linear = runs[0]["baselines"]["linear (least squares)"]
    head = f"| ETTh1 | {runs[0]['horizon']} | {runs[0]['context_length']} |"
    assert f"{head} {variant.upper()} | {cells[0]} | {cells[1]} |" in VARIANTS
    best = f"**{linear['test/mse']:.4f}** | **{linear['test/mae']:.4f}**"
    assert f"{head} linear (least squares) | {best} |" in VARIANTS
    assert all(run["test/mse"] > linear["test/mse"] and run["test/mae"] > linear["test/mae"] for run in runs)
