"""The commands of docs/your_dna.md run in the order of the page, on files like those it shows."""

import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from datamodules.dna.datasets.simulated_motif import MOTIF
from tests.datamodules.dna.dna_reference import random_dna, write_fasta
from tests.helpers import REPOSITORY, TWO_STEPS, run_cli

PAGE = (REPOSITORY / "docs" / "your_dna.md").read_text()
SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2"]


def write_files(folder: Path) -> None:
    """Write regions.fa and labels.csv with the page's columns, new.fa, genome.fa and changes.vcf."""
    (example,) = re.findall(r"```csv\n(.*?)```", PAGE, flags=re.DOTALL)
    names = [f"r{i + 1}" for i in range(120)]
    texts = random_dna([60] * 120, seed=5)
    lines = example.splitlines()[:1]
    for i, name in enumerate(names):
        enhancer = i % 2 == 0
        texts[i] = texts[i][:20] + MOTIF + texts[i][20 + len(MOTIF) :] if enhancer else texts[i]
        lines.append(f"{name},{'enhancer' if enhancer else 'background'},gene{i // 4}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    write_fasta(folder / "regions.fa", dict(zip(names, texts, strict=True)))
    write_fasta(folder / "new.fa", {"n1": texts[0], "n2": texts[1]})
    (chromosome,) = random_dna([300], seed=6)
    write_fasta(folder / "genome.fa", {"chr1": chromosome})
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}[chromosome[99]]
    (folder / "changes.vcf").write_text(
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"chr1\t100\t.\t{chromosome[99]}\t{other}\t.\t.\t.\n"
    )


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    write_files(tmp_path)
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    commands = []
    for line in block.splitlines():
        program, command, *arguments = shlex.split(line)
        run = sorted((tmp_path / "runs" / "sequences").glob("*"))[0].name if command not in ("audit", "fit") else ""
        quick = {"audit": [], "fit": [*TWO_STEPS, *SMALL]}.get(command, ["trainer.accelerator=cpu"])
        answer = run_cli(command, *(argument.replace("RUN", run) for argument in arguments), *quick)
        assert (program, answer.status) == ("titans-seq", 0), answer.err
        commands.append(command)
    ((header, pattern),) = re.findall(r"for `>(\w+)`: `data.header_label='(.*?)'`", PAGE)
    assert re.findall(pattern, header) == ["enhancer"]
    assert commands == ["audit", "fit", "predict", "mutagenesis", "variants"]
    probabilities = pl.read_csv("probabilities.csv")
    assert probabilities.columns == ["id", "predicted", "probability_background", "probability_enhancer"]
    assert probabilities["id"].to_list() == ["n1", "n2"]
    assert len(pl.read_csv("effects.csv")) == 3 * 60
    assert (tmp_path / "effects.png").stat().st_size > 10_000
    assert pl.read_csv("variants.csv")["position"].to_list() == [100]
