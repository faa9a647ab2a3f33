"""Text of a dataset audit for the terminal."""

from collections.abc import Sequence

from datamodules.dna.audit.audit import Audit, Overlap, audit_source
from datamodules.dna.kmers import MAX_K
from titans_seq.errors import InputError
from titans_seq.experiment.classification.data import build_holdout, build_sequence_source
from titans_seq.schema import ClassificationConfig, Config


def audit_text(config: Config, *, k: int = 32) -> str:
    """Audit the data of a configuration for leakage and shortcut features, comparing rows by their k-mers.

    Raises InputError for another task's configuration and for k outside 1 to 32.
    """
    if not isinstance(config, ClassificationConfig):
        raise InputError(
            f"audit requires labelled sequences (task.name=classification); got task.name={config.task.name}"
        )
    if not 1 <= k <= MAX_K:
        raise InputError(f"-k {k}: must be between 1 and {MAX_K}")
    source, holdout = build_sequence_source(config.data), build_holdout(config.data)
    return format_audit(audit_source(source, holdout, k=k, max_length=config.data.max_length))


def format_audit(audit: Audit) -> str:
    """Format an audit as tables, at most 100 columns wide unless names are long."""
    parts = [f"Audit of {audit.name}", *(f"Note: {note}" for note in audit.notes), "", "Rows by class"]
    counts = [(split, f"{sum(each):,}", *(f"{count:,}" for count in each)) for split, each in audit.counts.items()]
    parts += _table(("split", "rows", *audit.classes), counts)
    if audit.shortcuts:
        parts += ["", "Classifiers by one shortcut feature (constant: always the most common class, MCC 0)"]
        parts += _table(
            ("split", "by", "accuracy", "+-", "constant", "MCC"),
            [
                (s.split, s.name, *map(_percent, (s.accuracy, s.standard_error, s.constant)), f"{s.mcc:.3f}")
                for s in audit.shortcuts
            ],
        )
    parts += ["", "Duplicate rows; contradictory: sequences that occur with more than one class"]
    repeats = [(r.split, f"{r.rows:,}", f"{r.repeated:,}", f"{r.contradictory:,}") for r in audit.repeats]
    parts += _table(("split", "rows", "repeated", "contradictory"), repeats)
    if audit.overlaps:
        parts += ["", "Overlap with training rows (half covered: at least half of a row occurs in training rows)"]
        kinds = ("rows", "duplicates", "of another class", "reverse complements", "half covered", "partly covered")
        parts += _table(("split", "by", *kinds), [_overlap_cells(each) for each in audit.overlaps])
        parts += ["", "Rows of each class that duplicate a training row of the same class"]
        shares = [(s.split, s.by, *(_percent(each) for each in s.identical_by_class)) for s in audit.overlaps]
        parts += _table(("split", "by", *audit.classes), shares)
    return "\n".join(parts)


def _overlap_cells(overlap: Overlap) -> tuple[str, ...]:
    counts = (overlap.rows, overlap.identical, overlap.contradictory, overlap.reverse_complements)
    return (
        overlap.split,
        overlap.by,
        *(f"{count:,}" for count in counts),
        _percent(overlap.half_in_train),
        _percent(overlap.any_in_train),
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format the lines of a table: numbers aligned right, text aligned left."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    is_text = [not any(row[i][:1].isdigit() or row[i][:1] == "-" for row in rows) for i in range(len(head))]
    is_text = [text or name == "by" for text, name in zip(is_text, head, strict=True)]
    lines = []
    for row in cells:
        aligned = [
            f"{cell:<{width}}" if text else f"{cell:>{width}}"
            for cell, width, text in zip(row, widths, is_text, strict=True)
        ]
        lines.append(("  " + "  ".join(aligned)).rstrip())
    return lines
