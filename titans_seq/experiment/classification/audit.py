"""An audit of labelled sequences as text for a terminal."""

from collections.abc import Sequence

from datamodules.dna.audit.audit import Audit, Overlap, audit_source
from datamodules.dna.kmers import MAX_K
from titans_seq.errors import InputError
from titans_seq.experiment.classification.data import build_holdout, build_sequence_source
from titans_seq.schema import ClassificationConfig, Config


def audit_text(config: Config, *, k: int = 32) -> str:
    """What the labels of a configuration's data give away; stretches of `k` bases make two rows alike."""
    if not isinstance(config, ClassificationConfig):
        raise InputError(f"audit is for labelled sequences; the configuration is of task.name={config.task.name}")
    if not 1 <= k <= MAX_K:
        raise InputError(f"-k {k}: must be between 1 and {MAX_K}")
    source, holdout = build_sequence_source(config.data), build_holdout(config.data)
    return format_audit(audit_source(source, holdout, k=k, max_length=config.data.max_length))


def format_audit(found: Audit) -> str:
    """The tables of an audit, within 100 columns where names allow it."""
    parts = [f"Audit of {found.name}", *(f"Note: {note}" for note in found.notes), "", "Rows by class"]
    counts = [(split, f"{sum(each):,}", *(f"{count:,}" for count in each)) for split, each in found.counts.items()]
    parts += _table(("split", "rows", *found.classes), counts)
    if found.shortcuts:
        parts += ["", "How well a split is classified without a model (a constant answer is worth nothing)"]
        parts += _table(
            ("split", "by", "accuracy", "+-", "constant", "MCC"),
            [
                (c.split, c.name, _share(c.accuracy), _share(c.standard_error), _share(c.constant), f"{c.mcc:.3f}")
                for c in found.shortcuts
            ],
        )
    parts += ["", "Rows that are there more than once; contradictory: sequences with several classes"]
    repeats = [(r.split, f"{r.rows:,}", f"{r.repeated:,}", f"{r.contradictory:,}") for r in found.repeats]
    parts += _table(("split", "rows", "repeated", "contradictory"), repeats)
    if found.overlaps:
        parts += ["", "Rows that training rows give away (half found: at least half of a row's bases)"]
        kinds = ("rows", "training rows too", "of another class", "on the other strand", "half found", "partly found")
        parts += _table(("split", "by", *kinds), [_shared_cells(each) for each in found.overlaps])
        parts += ["", "Share of each class that is a training row of the same class"]
        shares = [(s.split, s.by, *(_share(each) for each in s.identical_by_class)) for s in found.overlaps]
        parts += _table(("split", "by", *found.classes), shares)
    return "\n".join(parts)


def _shared_cells(each: Overlap) -> tuple[str, ...]:
    counts = (each.rows, each.identical, each.contradictory, each.reverse_complements)
    return (
        each.split,
        each.by,
        *(f"{count:,}" for count in counts),
        _share(each.half_in_train),
        _share(each.any_in_train),
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: numbers to the right, words to the left."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    words = [not any(row[i][:1].isdigit() or row[i][:1] == "-" for row in rows) for i in range(len(head))]
    words = [is_word or name == "by" for is_word, name in zip(words, head, strict=True)]
    lines = []
    for row in cells:
        aligned = [
            f"{cell:<{width}}" if is_word else f"{cell:>{width}}"
            for cell, width, is_word in zip(row, widths, words, strict=True)
        ]
        lines.append(("  " + "  ".join(aligned)).rstrip())
    return lines
