"""The command line: `titans-seq VERB ...`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from titans_seq.arguments import build_parser
from titans_seq.console import quiet
from titans_seq.errors import InputError, Interrupted
from titans_seq.signals import StopSignals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status.

    0; 2 for what the user can mend; 130, 143 or 138 when asked to stop, 141 when nobody reads what it prints.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)  # argparse takes no words after an option: they are the rest
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.words += rest
    try:
        with StopSignals():
            _VERB_FUNCTIONS[options.verb](options)
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except InputError as error:
        if options.debug:
            raise
        print(f"titans-seq: {_printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:  # a file where a folder is needed, a folder that is gone, a full disk
        if options.debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"titans-seq: {_printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
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
        # Not "command line", as the words are: what they ask for in vain is refused, and what is stored is not.
        config = from_container(named, source="audit", overrides=options.words)
    quiet()
    from titans_seq.experiment.auditing import audit_text

    print(audit_text(config, k=options.k))


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


def config_file_of(resume: str) -> Path | None:
    """The configuration of the run that `resume` names by the path of its folder or of a checkpoint in it."""
    if resume in ("last", "auto") or not Path(resume).expanduser().exists():
        return None
    path = Path(resume).expanduser()
    file = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    return file if file.is_file() else None


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
