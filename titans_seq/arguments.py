"""What the command line takes: verbs, arguments, help."""

import argparse
from pathlib import Path

VERBS = {
    "fit": "train from config files, then test the best checkpoint",
    "validate": "measure a checkpoint on the validation split",
    "test": "measure a checkpoint on the test split",
    "predict": "predict the test split or a file of sequences with a checkpoint, to Parquet or CSV",
    "forecast": "forecast what comes after the last row of a table with a checkpoint, to Parquet or CSV",
    "backtest": "forecast a table's last rows from the rows before them, again and again, and say how far off it was",
    "mutagenesis": "score every single-base change of a sequence with a checkpoint: a table and a heat map",
    "variants": "score the variants of a VCF file with a checkpoint, both alleles",
    "sweep": "run a sweep file on this machine, without a server, and show its runs by validation",
    "compare": "show finished runs side by side, with means and spreads over seeds",
    "export": "write a checkpoint's model for use elsewhere: safetensors, or a program of torch.export",
    "audit": "show what a DNA data set's labels give away before any model is trained",
    "benchmark": "run a suite of experiments and write its table beside published numbers",
    "show-config": "print the resolved configuration",
    "doctor": "print versions, devices and backends, and why a backend is not available",
}

_OUT = {
    "predict": "predictions.parquet",
    "forecast": "forecast.parquet",
    "backtest": "backtest.csv",
    "mutagenesis": "mutagenesis.csv",
    "variants": "variants.csv",
}

_CHECKPOINT = "runs/etth1/2026-01-31_12-00-00/checkpoints/best.ckpt"
_EXAMPLES = (
    "fit configs/forecasting/etth1.yaml data.horizon=720 model.num_layers=3",
    f"test {_CHECKPOINT}",
    f"validate {_CHECKPOINT}",
    f"predict {_CHECKPOINT} --out forecasts.parquet",
    "fit configs/forecasting/table.yaml data.path=sales.csv data.id=store data.target=[sales]",
    "forecast best.ckpt --data sales.csv --out forecast.csv --plot forecast.png",
    "backtest best.ckpt --data sales.csv --windows 8 --step 7 --out backtest.csv",
    "audit human_nontata_promoters",
    "audit regions.fa data.labels=labels.csv",
    "fit configs/genomics/sequences.yaml data.name=regions.fa data.labels=labels.csv",
    "predict best.ckpt --input new.fa --out probabilities.csv",
    "mutagenesis best.ckpt --input new.fa --record n1 --out effects.csv",
    "variants best.ckpt --vcf changes.vcf --reference genome.fa --out variants.csv data.length=200",
    "fit resume=runs/etth1/2026-01-31_12-00-00",
    "fit configs/forecasting/etth1.yaml seeds=[0,1,2]",
    "compare runs/etth1 --baseline model.variant=transformer",
    "sweep configs/sweeps/grid.yaml",
    "benchmark configs/forecasting/suite.yaml --only data=ETTh1",
    "export best.ckpt --out model",
    "show-config configs/forecasting/etth1.yaml data.name=ETTm2",
    "doctor",
)


def _examples(verb: str | None) -> str:
    """Command lines of one verb, or of all."""
    chosen = [line for line in _EXAMPLES if verb in (None, line.split()[0])]
    return "\n".join([f"example{'s' if len(chosen) > 1 else ''}:", *(f"  titans-seq {line}" for line in chosen)])


def build_parser() -> argparse.ArgumentParser:
    """One subparser a verb; every verb has `words`, what it takes besides its options."""
    listed = "\n".join(f"  {verb:<12} {text}" for verb, text in VERBS.items())
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="titans-seq", description="Titans for time series and DNA.", epilog=_examples(None), formatter_class=layout
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        description = f"{text[0].upper()}{text[1:]}."
        epilog = f"{_examples(verb)}\n\nverbs:\n{listed}"
        sub = verbs.add_parser(verb, help=text, description=description, epilog=epilog, formatter_class=layout)
        if verb in ("fit", "show-config"):
            sub.add_argument(
                "words", nargs="*", metavar="FILE|KEY=VALUE", help="config files, then keys that override them"
            )
        elif verb == "doctor":
            sub.set_defaults(words=[])
        elif verb in ("sweep", "compare"):
            _add_several_runs_arguments(sub, verb)
        elif verb == "audit":
            sub.add_argument("data", help="name of a published set, table, FASTA file, folder, or a config file")
            sub.add_argument(
                "words", nargs="*", metavar="KEY=VALUE", help="keys of the section data, such as data.max_length=512"
            )
            sub.add_argument("-k", type=int, default=32, help="bases of a stretch that two rows share (%(default)s)")
        elif verb == "benchmark":
            _add_benchmark_arguments(sub)
        else:
            sub.add_argument("checkpoint", help="a checkpoint that fit wrote")
            sub.add_argument(
                "words", nargs="*", metavar="KEY=VALUE", help="keys that override the checkpoint's configuration"
            )
        _add_options(sub, verb)
        sub.add_argument("--debug", action="store_true", help="show the traceback of a bad input")
    return parser


def _add_options(sub: argparse.ArgumentParser, verb: str) -> None:
    """What a verb that uses a checkpoint takes besides it."""
    if verb == "export":
        sub.add_argument("--out", type=Path, required=True, help="a folder, or a file that ends in .pt2")
    if verb == "predict":
        sub.add_argument("--input", type=Path, help="table or FASTA file of sequences, instead of the test split")
    if verb in ("forecast", "backtest"):
        help_text = "table laid out as the one of training; without it, the data of training"
        sub.add_argument("--data", type=Path, help=help_text)
        help_text = "steps; more than the trained ones by rolling (the trained)"
        sub.add_argument("--horizon", type=int, help=help_text)
    if verb == "forecast":
        sub.add_argument("--future", type=Path, help="table of the known covariates of the steps to come")
        sub.add_argument("--plot", type=Path, help="picture to draw, a .png file")
    if verb == "backtest":
        sub.add_argument("--windows", type=int, default=10, help="forecasts of each series (%(default)s)")
        sub.add_argument("--step", type=int, help="rows between the starts of two forecasts (the horizon)")
    if verb == "mutagenesis":
        sub.add_argument("--input", type=Path, required=True, help="table or FASTA file that holds the sequence")
        sub.add_argument("--record", help="its name, where the file holds several")
    if verb == "variants":
        sub.add_argument("--vcf", type=Path, required=True, help="VCF file, or one compressed by gzip")
        sub.add_argument("--reference", type=Path, required=True, help="FASTA file of the genome")
    if verb in _OUT:
        help_text = "file to write, Parquet or .csv (%(default)s)"
        sub.add_argument("--out", type=Path, default=Path(_OUT[verb]), help=help_text)


def _add_benchmark_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("suite", help="a suite file, such as configs/forecasting/suite.yaml")
    sub.add_argument("words", nargs="*", metavar="KEY=VALUE", help="keys that override those of every cell")
    sub.add_argument(
        "--only", action="append", default=[], metavar="AXIS=LABEL,...", help="run and list these cells alone"
    )
    sub.add_argument("--jobs", type=int, default=1, help="processes at once (%(default)s); each GPU serves some")
    sub.add_argument("--list", action="store_true", help="say which cells are done, and run nothing")
    sub.add_argument("--report", action="store_true", help="write the tables from what is there, and run nothing")
    sub.add_argument(
        "--results",
        type=Path,
        help="folder of results and runs (benchmarks/results/NAME, runs/NAME); what is there is not run again",
    )


def _add_several_runs_arguments(sub: argparse.ArgumentParser, verb: str) -> None:
    sub.set_defaults(words=[])
    if verb == "sweep":
        sub.add_argument("file", type=Path, help="a sweep file of W&B's, such as configs/sweeps/grid.yaml")
        sub.add_argument("--out", type=Path, help="folder of the runs (runs/NAME); what is finished there is kept")
        sub.add_argument("--seed", type=int, default=0, help="of a random sweep's draws (%(default)s)")
        return
    sub.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that hold some")
    sub.add_argument("--baseline", help="name of the group that the others are tested against, as the table has it")
    sub.add_argument("--metric", action="append", default=[], help="such as test/mse; all where none is named")
    sub.add_argument("--out", type=Path, help="PNG file of a picture")
