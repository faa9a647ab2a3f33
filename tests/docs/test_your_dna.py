"""The commands of docs/your_dna.md run in the order of the page, on the example files that the first one writes."""

import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from tests.helpers import REPOSITORY, TWO_STEPS, run_cli

PAGE = (REPOSITORY / "docs" / "your_dna.md").read_text()
SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2"]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    commands = []
    for line in block.splitlines():
        program, command, *arguments = shlex.split(line)
        quick = {"example": [], "audit": [], "fit": [*TWO_STEPS, *SMALL]}.get(command, ["trainer.accelerator=cpu"])
        answer = run_cli(command, *arguments, *quick)
        assert (program, answer.status) == ("titans-seq", 0), answer.err
        commands.append(command)
    ((header, pattern),) = re.findall(r"for `>(\w+)`: `data.header_label='(.*?)'`", PAGE)
    assert re.findall(pattern, header) == ["enhancer"]
    (table,) = re.findall(r"```csv\n(.*?)```", PAGE, flags=re.DOTALL)
    assert Path("labels.csv").read_text().startswith(table)
    assert commands == ["example", "audit", "fit", "predict", "mutagenesis", "variants"]
    probabilities = pl.read_csv("probabilities.csv")
    assert probabilities.columns == ["id", "predicted", "probability_background", "probability_enhancer"]
    assert probabilities["id"].to_list() == ["n1", "n2"]
    assert len(pl.read_csv("effects.csv")) == 3 * 60
    assert (tmp_path / "effects.png").stat().st_size > 10_000
    assert pl.read_csv("variants.csv")["position"].to_list() == [100, 298, 300, 302, 450]
