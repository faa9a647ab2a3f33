"""Commands for DNA: audit a dataset, score variants with a trained classifier."""

import argparse
from pathlib import Path

from titans_seq.cli.command import Command, add_checkpoint_arguments, add_output_argument
from titans_seq.cli.paths import check_config, check_paths
from titans_seq.config import from_container, load_config
from titans_seq.shipped import is_shipped
from titans_seq.system.console import quiet


def _add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="name of a published dataset, table, FASTA file, folder, or a config file")
    help_text = "overrides in the section data, such as data.max_length=512"
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help=help_text)
    parser.add_argument("-k", type=int, default=32, help="length of the k-mers that rows share (default: %(default)s)")


def _audit(options: argparse.Namespace) -> None:
    if options.data.endswith((".yaml", ".yml")) or (is_shipped(options.data) and not Path(options.data).exists()):
        config = load_config([options.data], options.words)
    else:
        named = {"task": {"name": "classification"}, "data": {"name": options.data}}
        # The source is not "command line": keys without effect raise an error in overrides, not in a stored config.
        config = from_container(named, source="audit", overrides=options.words)
    config = check_config(config)
    quiet()
    from titans_seq.experiment.classification.audit import audit_text

    print(audit_text(config, k=options.k))


def _add_mutagenesis_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    parser.add_argument("--input", type=Path, required=True, help="table or FASTA file with the sequence")
    parser.add_argument("--record", help="name of the sequence, required where the file holds several")
    add_output_argument(parser, "mutagenesis.csv")


def _mutagenesis(options: argparse.Namespace) -> None:
    check_paths(options)
    quiet()
    from titans_seq.experiment import mutagenesis

    table = mutagenesis(options.checkpoint, options.input, options.out, options.words, record=options.record)
    print(
        f"{len(table):,} single-nucleotide variants written to {options.out}, plot: {options.out.with_suffix('.png')}"
    )


def _add_variants_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    parser.add_argument("--vcf", type=Path, required=True, help="VCF file, optionally gzip-compressed")
    parser.add_argument("--reference", type=Path, required=True, help="FASTA file of the genome")
    add_output_argument(parser, "variants.csv")


def _variants(options: argparse.Namespace) -> None:
    check_paths(options)
    quiet()
    from titans_seq.experiment import score_variants

    table = score_variants(options.checkpoint, options.vcf, options.reference, options.out, options.words)
    print(f"{len(table):,} variants written to {options.out}")


MUTAGENESIS = Command(
    "mutagenesis",
    "in-silico mutagenesis: score every single-base change of a sequence, as a table and a heat map",
    ("mutagenesis runs/sequences/last --input new.fa --record n1 --out effects.csv",),
    _add_mutagenesis_arguments,
    _mutagenesis,
)
VARIANTS = Command(
    "variants",
    "score both alleles of the variants in a VCF file",
    ("variants runs/sequences/last --vcf changes.vcf --reference genome.fa --out variants.csv data.length=200",),
    _add_variants_arguments,
    _variants,
)
AUDIT = Command(
    "audit",
    "check a DNA dataset for leakage and shortcut features (no training)",
    ("audit human_nontata_promoters", "audit regions.fa data.labels=labels.csv"),
    _add_audit_arguments,
    _audit,
)
