"""The command line: `titans-seq VERB ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from titans_seq.console import quiet
from titans_seq.errors import InputError, Interrupted

_VERBS = {
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

_EXAMPLES = """\
verbs:
{verbs}

examples:
  titans-seq fit configs/forecasting/etth1.yaml data.horizon=720 model.num_layers=3
  titans-seq test runs/etth1/2026-01-31_12-00-00/checkpoints/best.ckpt
  titans-seq fit configs/forecasting/table.yaml data.path=sales.csv data.id=store data.target=[sales]
  titans-seq forecast best.ckpt --data sales.csv --out forecast.csv --plot forecast.png
  titans-seq fit configs/genomics/gue.yaml data.name=tf/1
  titans-seq predict best.ckpt --input sequences.fa --out predictions.csv
  titans-seq fit resume=runs/etth1/2026-01-31_12-00-00
  titans-seq fit configs/forecasting/etth1.yaml seeds=[0,1,2]
  titans-seq compare runs/etth1 --baseline model.variant=transformer
  titans-seq sweep configs/sweeps/grid.yaml
  titans-seq audit human_nontata_promoters
  titans-seq benchmark configs/forecasting/suite.yaml --only data=ETTh1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 2 for what the user can mend, 130, 143 or 138 when asked to stop."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)  # argparse takes no words after an option: they are the rest
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.words += rest
    try:
        _VERB_FUNCTIONS[options.verb](options)
    except InputError as error:
        if options.debug:
            raise
        print(f"titans-seq: {_printable(str(error))}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"titans-seq: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("titans-seq: interrupted", file=sys.stderr)
        return 130
    return 0


def _printable(text: str) -> str:
    """One line, whatever it quotes: what a terminal cannot show is written as Python does."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _parser() -> argparse.ArgumentParser:
    epilog = _EXAMPLES.format(verbs="\n".join(f"  {verb:<12} {text}" for verb, text in _VERBS.items()))
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="titans-seq", description="Titans for time series and DNA.", epilog=epilog, formatter_class=layout
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in _VERBS.items():
        description = f"{text[0].upper()}{text[1:]}."
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
        "--results", type=Path, help="folder of the results (benchmarks/results/NAME); what is there is not run again"
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


def _fit(options: argparse.Namespace) -> None:
    from titans_seq.config import load_config

    files, overrides = _split_words(options.words)
    config = load_config(files, overrides)  # before the heavy imports: a typing error answers at once
    if config.resume and not files and (own := config_file_of(config.resume)):
        config = load_config([own], overrides)
    quiet()
    from titans_seq.experiment import fit, fit_seeds

    if config.seeds:
        fit_seeds(config)
    else:
        fit(config)


def _sweep(options: argparse.Namespace) -> None:
    from titans_seq.sweep import read_sweep

    if options.words:
        raise InputError(f"sweep takes one file; {' '.join(options.words)} belongs into its command or parameters")
    sweep = read_sweep(options.file)
    quiet()
    from titans_seq.experiment import run_sweep
    from titans_seq.experiment.sweeps import sweep_text

    table = run_sweep(sweep, options.out, seed=options.seed)
    print(f"\n{sweep_text(table)}\nIn {options.out or Path('runs') / sweep.name}: sweep.csv, sweep.png")


def _compare(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import compare

    print(compare([*options.runs, *options.words], baseline=options.baseline, metrics=options.metric, out=options.out))


def _export(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import export

    print(export(options.checkpoint, options.out, options.words))


def _show_config(options: argparse.Namespace) -> None:
    from titans_seq.config import load_config, to_yaml

    print(to_yaml(load_config(*_split_words(options.words))), end="")


def _validate(options: argparse.Namespace) -> None:
    _measure(options, "validation")


def _test(options: argparse.Namespace) -> None:
    _measure(options, "test")


def _measure(options: argparse.Namespace, split: Literal["validation", "test"]) -> None:
    quiet()
    from titans_seq.experiment import measure

    scores = measure(options.checkpoint, split, options.words)
    width = max(12, *(len(name) + 2 for name in scores))
    for name, value in scores.items():
        print(f"{name:<{width}}{value:.4f}")


def _predict(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import predict

    table = predict(options.checkpoint, options.out, options.words, source=options.input)
    print(f"{len(table):,} rows written to {options.out}")


def _forecast(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import forecast

    table = forecast(
        options.checkpoint,
        options.out,
        options.words,
        data=options.data,
        future=options.future,
        horizon=options.horizon,
        plot=options.plot,
    )
    picture = f", picture: {options.plot}" if options.plot else ""
    stamps = table["timestamp"].sort()
    print(f"{len(table):,} rows from {stamps[0]} to {stamps[-1]} written to {options.out}{picture}")


def _backtest(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import backtest, backtest_text

    table = backtest(
        options.checkpoint,
        options.out,
        options.words,
        data=options.data,
        windows=options.windows,
        step=options.step,
        horizon=options.horizon,
    )
    print(f"{backtest_text(table)}\n\nAll rows: {options.out}")


def _mutagenesis(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import mutagenesis

    table = mutagenesis(options.checkpoint, options.input, options.out, options.words, record=options.record)
    print(f"{len(table):,} changes written to {options.out}, picture: {options.out.with_suffix('.png')}")


def _variants(options: argparse.Namespace) -> None:
    quiet()
    from titans_seq.experiment import score_variants

    table = score_variants(options.checkpoint, options.vcf, options.reference, options.out, options.words)
    print(f"{len(table):,} variants written to {options.out}")


def _audit(options: argparse.Namespace) -> None:
    from titans_seq.config import from_container, load_config

    if options.data.endswith((".yaml", ".yml")):
        config = load_config([options.data], options.words)
    else:
        named = {"task": {"name": "classification"}, "data": {"name": options.data}}
        config = from_container(named, source="command line", overrides=options.words)
    quiet()
    from titans_seq.experiment.auditing import audit_text

    print(audit_text(config, k=options.k))


def config_file_of(resume: str) -> Path | None:
    """The configuration of the run that `resume` names by the path of its folder or of a checkpoint in it."""
    if resume in ("last", "auto") or not Path(resume).expanduser().exists():
        return None
    path = Path(resume).expanduser()
    file = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    return file if file.is_file() else None


def _benchmark(options: argparse.Namespace) -> None:
    from titans_seq.suite import read_suite

    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: at least 1")
    suite = read_suite(options.suite)
    cells = suite.chosen(options.only)
    suite.check(cells[:1] if options.list or options.report else cells, options.words)
    quiet()
    from titans_seq.experiment.benchmark import Store, run_in_processes, run_suite
    from titans_seq.experiment.suite_report import write_report

    store = Store(suite, options.words, options.results)
    if options.list:
        for cell in cells:
            print(f"{store.status(cell):<10}{cell.name}")
        return
    failed: list[str] = []
    if not options.report and options.jobs > 1:
        run_in_processes(store, cells, options.jobs)
        failed = [cell.name for cell in cells if store.status(cell) != "done"]
    elif not options.report:
        failed = run_suite(store, cells)
    for path in write_report(store):
        print(f"written to {path}")
    if failed:
        raise InputError(f"{len(failed)} of {len(cells)} cells failed or are not done: {', '.join(failed)}")


def _doctor(options: argparse.Namespace) -> None:
    if options.words:
        raise InputError(f"doctor takes no words; got {' '.join(options.words)}")
    quiet()
    from titans_seq.experiment.doctor import doctor_text

    print(doctor_text(), end="")


def _split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config files and key=value words, each in their order."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]


_VERB_FUNCTIONS = {
    "fit": _fit,
    "validate": _validate,
    "test": _test,
    "predict": _predict,
    "forecast": _forecast,
    "backtest": _backtest,
    "mutagenesis": _mutagenesis,
    "variants": _variants,
    "sweep": _sweep,
    "compare": _compare,
    "export": _export,
    "audit": _audit,
    "benchmark": _benchmark,
    "show-config": _show_config,
    "doctor": _doctor,
}


if __name__ == "__main__":
    sys.exit(main())
