"""Command for the example files: write them into the current folder."""

import argparse
from pathlib import Path

from titans_seq.cli.command import Command
from titans_seq.errors import InputError

FOLDER = Path(__file__).parents[1] / "examples"
# Name to the commands to try first; each has a page, docs/your_csv.md and docs/your_dna.md.
NEXT = {
    "sales": (
        "fit forecasting/table data.path=sales.csv data.id=store 'data.target=[sales]' 'data.known=[promo]'",
        "forecast runs/table/last --data sales.csv --future plans.csv --out forecast.csv --plot forecast.png",
    ),
    "dna": (
        "fit genomics/sequences data.name=regions.fa data.labels=labels.csv",
        "variants runs/sequences/last --vcf changes.vcf --reference genome.fa --out variants.csv data.length=60",
    ),
}


def write_example(name: str, target: Path) -> list[Path]:
    """Write the files of an example into the folder `target`, or none if one of them exists."""
    written = [target / file.name for file in sorted((FOLDER / name).iterdir())]
    if there := [path.name for path in written if path.exists()]:
        raise InputError(f"example {name}: {', '.join(there)} in this folder would be overwritten; use an empty one")
    for path in written:
        with path.open("xb") as file:
            file.write((FOLDER / name / path.name).read_bytes())
    return written


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(words=[])
    help_text = "sales: daily sales of stores with promotions, and their plans; dna: labelled sequences and variants"
    parser.add_argument("name", choices=sorted(NEXT), help=help_text)


def _example(options: argparse.Namespace) -> None:
    if options.words:
        raise InputError(f"example takes one name; got {' '.join(options.words)} too")
    written = write_example(options.name, Path())
    print(f"written: {', '.join(str(path) for path in written)}\n\nnext:")
    for command in NEXT[options.name]:
        print(f"  titans-seq {command}")


EXAMPLE = Command(
    "example",
    "write small example files into this folder: a sales table, or labelled DNA with variants",
    ("example sales", "example dna"),
    _add_arguments,
    _example,
)
