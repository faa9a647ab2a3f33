"""The commands of docs/pretrained.md run in the order of the page; test_docs.py runs its Python."""

import re
import shlex
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, run_cli

PAGE = (REPOSITORY / "docs" / "pretrained.md").read_text()


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands, _ = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        answer = run_cli(*arguments)
        assert (program, answer.status) == ("titans-seq", 0), answer.err
    assert {"forecast.csv", "forecast.png", "backtest.csv"} <= {path.name for path in tmp_path.iterdir()}
