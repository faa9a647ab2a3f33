"""Commands for one run: train, evaluate, predict, export."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from titans_seq.cli.command import (
    EXAMPLE_RUN,
    Command,
    add_checkpoint_arguments,
    add_config_arguments,
    add_output_argument,
)
from titans_seq.cli.configs import configs_text
from titans_seq.cli.paths import check_config, check_paths
from titans_seq.config import load_config, to_yaml
from titans_seq.system.console import quiet
from titans_seq.system.run_folders import find_resumed

_BARE_FIT = """\
usage: titans-seq fit NAME|FILE ... [KEY=VALUE ...]

A first run, on built-in data: titans-seq fit forecasting/synthetic
Options and examples: titans-seq fit --help"""


def _fit(options: argparse.Namespace) -> None:
    if not options.words:
        print(f"{_BARE_FIT}\n\n{configs_text()}", file=sys.stderr)
        sys.exit(2)
    files, overrides = _split_words(options.words)
    config = load_config(files, overrides)  # before the slow imports, so that errors are reported at once
    if config.resume and not files and (own := config_file_of(config.resume)):
        config = load_config([own], overrides)
    config = check_config(config)
    quiet()
    from titans_seq.experiment import fit
    from titans_seq.studies.seeds import fit_seeds

    if config.seeds:
        fit_seeds(config)
    else:
        fit(config)


def _show_config(options: argparse.Namespace) -> None:
    print(to_yaml(load_config(*_split_words(options.words))), end="")


def _validate(options: argparse.Namespace) -> None:
    _measure(options, "validation")


def _test(options: argparse.Namespace) -> None:
    _measure(options, "test")


def _measure(options: argparse.Namespace, split: Literal["validation", "test"]) -> None:
    check_paths(options)
    quiet()
    from titans_seq.experiment import measure

    scores = measure(options.checkpoint, split, options.words)
    width = max(12, *(len(name) + 2 for name in scores))
    for name, value in scores.items():
        print(f"{name:<{width}}{value:.4f}")


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    parser.add_argument("--input", type=Path, help="table or FASTA file of sequences, instead of the test split")
    add_output_argument(parser, "predictions.parquet")


def _predict(options: argparse.Namespace) -> None:
    check_paths(options)
    quiet()
    from titans_seq.experiment import predict

    table = predict(options.checkpoint, options.out, options.words, source=options.input)
    print(f"{len(table):,} rows written to {options.out}")


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="a folder, or a file with the suffix .pt2")
    parser.add_argument("--half", action="store_true", help="store the weights of a folder in half precision")


def _export(options: argparse.Namespace) -> None:
    check_paths(options)
    quiet()
    from titans_seq.experiment import export

    print(export(options.checkpoint, options.out, options.words, half=options.half))


def _split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config files and key=value overrides, each in their order."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]


def config_file_of(resume: str) -> Path | None:
    """The configuration of the run that `resume` names by a path, see `find_resumed`; raises InputError."""
    if resume in ("last", "auto"):
        return None
    path = find_resumed(resume)
    file = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    return file if file.is_file() else None


FIT = Command(
    "fit",
    "train from config files, then test the best checkpoint",
    (
        "fit forecasting/etth1 data.horizon=720 model.num_layers=3",
        "fit forecasting/table data.path=sales.csv data.id=store 'data.target=[sales]'",
        "fit genomics/sequences data.name=regions.fa data.labels=labels.csv",
        "fit forecasting/etth1 'seeds=[0,1,2]'",
        "fit resume=runs/etth1/last",
    ),
    add_config_arguments,
    _fit,
    "keys: `titans-seq keys` explains each, `titans-seq keys model.memory` those of a section; so does\n"
    "docs/configuration.md. `titans-seq show-config` with the same files and overrides prints all values.\n"
    "configurations: `titans-seq configs` lists the shipped ones, `titans-seq configs copy NAME FILE` copies one.",
)
VALIDATE = Command(
    "validate",
    "evaluate a checkpoint on the validation split",
    (f"validate {EXAMPLE_RUN}",),
    add_checkpoint_arguments,
    _validate,
)
TEST = Command(
    "test",
    "evaluate a checkpoint on the test split",
    (f"test {EXAMPLE_RUN}",),
    add_checkpoint_arguments,
    _test,
)
PREDICT = Command(
    "predict",
    "predict the test split or a file of sequences, to Parquet or CSV",
    (
        f"predict {EXAMPLE_RUN} --out forecasts.parquet",
        "predict runs/sequences/last --input new.fa --out probabilities.csv",
    ),
    _add_predict_arguments,
    _predict,
)
EXPORT = Command(
    "export",
    "export a checkpoint's model: safetensors, or a torch.export program",
    ("export runs/etth1/last --out model", "export runs/etth1/last --out model.pt2"),
    _add_export_arguments,
    _export,
)
SHOW_CONFIG = Command(
    "show-config",
    "print the resolved configuration",
    ("show-config forecasting/etth1 data.name=ETTm2",),
    add_config_arguments,
    _show_config,
)
