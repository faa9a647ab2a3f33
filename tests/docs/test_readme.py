"""The README's commands run, its Python runs, and its numbers are those of the recorded results."""

import json
import re
import shlex
import statistics
import subprocess
from pathlib import Path

import pytest

from tests.helpers import run_cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
VARIANTS = (ROOT / "docs" / "variants.md").read_text()
QUICK = ["trainer.max_steps=2", "trainer.limit_batches=2", "trainer.progress_bar=false", "logging.wandb=off"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and line[0] == program]


def test_make_targets_exist() -> None:
    for command in commands("make"):
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
    assert {target for _, target in commands("make")} == {"train", "test"}


def test_every_titans_seq_command_runs(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "sequences.fa").write_text(">one\nACGTTGCA\n>two\nGATTACA\n")
    seen = set()
    for _, verb, *words in commands("titans-seq"):
        if verb == "fit":
            short = [w for w in words if not w.startswith("trainer.max_epochs")]
            done = run_cli(verb, *short, *QUICK, f"data.root={data_root}")
        else:
            named = re.search(r"runs/(\w+)/RUN", " ".join(words))
            run = sorted((tmp_path / "runs" / named[1]).glob("*"))[0].name if named else ""
            limit = f"trainer.limit_batches={2 if verb == 'test' else 0}"
            extra = [limit, "trainer.progress_bar=false"] if run else []
            done = run_cli(verb, *(w.replace("RUN", run) for w in words), *extra, f"data.root={data_root}")
        assert done.status == 0, (verb, words, done.err)
        seen.add(verb)
    assert seen == {"fit", "show-config", "test", "predict", "audit"}


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert "torch.Size([2, 4, 64, 256])" in capsys.readouterr().out


@pytest.mark.parametrize("variant", ["lmm", "mal", "mag", "mac"])
def test_the_table_of_variants_is_what_was_measured(variant: str) -> None:
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


def test_files_that_the_readme_names_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
