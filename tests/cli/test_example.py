"""Example files match their script and are never overwritten; commands shown to users are quoted for any shell."""

import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import CONFIGS, REPOSITORY, refusal, run_cli
from titans_seq.cli.example import FOLDER, NEXT
from titans_seq.cli.parser import COMMANDS

FILES = {
    "sales": ["plans.csv", "sales.csv"],
    "dna": ["changes.vcf", "genome.fa", "labels.csv", "new.fa", "regions.fa"],
}


def test_files_match_their_script() -> None:
    generated = runpy.run_path(str(REPOSITORY / "docs" / "make_examples.py"))["files"]()
    shipped = {path.relative_to(FOLDER).as_posix(): path.read_text() for path in FOLDER.rglob("*.*")}
    assert shipped == generated, "run `python docs/make_examples.py`"
    assert sum(map(len, shipped.values())) < 200_000


@pytest.mark.parametrize("name", list(NEXT))
def test_an_example_is_written_and_never_overwrites(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("example", name).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES[name]
    kept, gone = FILES[name][-1], FILES[name][0]
    (tmp_path / kept).write_text("mine\n")
    (tmp_path / gone).unlink()
    line = refusal(run_cli("example", name))
    assert f"example {name}: " in line
    assert f"{kept} in this folder would be overwritten" in line
    assert (tmp_path / kept).read_text() == "mine\n"
    assert not (tmp_path / gone).exists()


def shown_commands() -> list[tuple[str, str]]:
    """Commands and overrides shown to users, as (place, line)."""
    found = [(f"titans-seq {command.name} --help", each) for command in COMMANDS.values() for each in command.examples]
    found += [(f"titans-seq example {name}", each) for name, commands in NEXT.items() for each in commands]
    for page in ("your_csv", "your_dna"):
        text = (REPOSITORY / "docs" / f"{page}.md").read_text()
        found += [
            (page, line) for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
        ]
        found += [(page, code) for code in re.findall(r"`([^`\n]+=[^`\n]+)`", text) if re.match(r"'?[a-z_.]+=", code)]
    for path in CONFIGS.rglob("*.yaml"):
        comments = (line.partition("#")[2] for line in path.read_text().splitlines())
        found += [(path.name, line) for line in comments if re.search(r"titans-seq|\b[a-z_]+\.[a-z_]+=", line)]
    return found


def test_shown_commands_are_quoted_for_bash_and_zsh() -> None:
    assert len(shown_commands()) > 60
    for place, line in shown_commands():
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line.partition("  #")[0])
        assert not re.search(r"=\S*[\[\]{}*?]", unquoted), f"{place}: quote the argument with brackets: {line}"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_parse_the_shown_commands_unchanged(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    commands = [line for _, line in shown_commands() if not line.startswith(("#", " "))]
    script = "titans-seq() { printf '%s\\n' titans-seq \"$@\"; }\n"
    script += "\n".join(line if line.startswith("titans-seq ") else f"titans-seq {line}" for line in commands)
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    expected = [part for line in commands for part in shlex.split(line, comments=True) if part != "titans-seq"]
    assert done.stderr == ""
    assert [part for part in done.stdout.splitlines() if part != "titans-seq"] == expected
