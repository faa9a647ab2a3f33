"""A suite's results in Markdown: a table for each dataset, with the best number of each column in bold."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from titans_seq.studies.suite import MEAN, Suite
from titans_seq.studies.suite.row import Row
from titans_seq.studies.suite.running import Store

_MISSING = "-"
_ERRORS = ("mse", "mae", "mase", "smape", "crps", "loss")  # scores whose best value is 0


@dataclass
class _Line:
    """A line of a table: its labels and facts, and for each numeric column the row and column of the suite."""

    labels: list[str]
    cells: list[tuple[Row, str] | None]


def markdown(store: Store, rows: Iterable[Row], columns: Sequence[str] = (), names: Sequence[str] = ()) -> str:
    """Return the tables, and above them a line on how to read them and on what is missing.

    A suite with several row axes has a table for each label of the first, under a heading. If only one column is
    selected, these tables would have one numeric column each and are joined side by side into one.

    Args:
        store: The suite and its results.
        rows: From `build_rows`.
        columns: Leaves the others out.
        names: Leaves rows of other names out.
    """
    suite = store.suite
    columns = columns or all_columns(suite)
    shown = [row for row in rows if _is_shown(row, columns, names)]
    axes, facts = [short_name(axis) for axis in suite.table.rows], list(suite.table.facts.values())
    heads = list(dict.fromkeys(row.labels[0] for row in shown))
    metrics = " / ".join(suite.table.metrics.values())
    spread = f"mean ± standard deviation over {suite.table.over}s"
    marks = "italics: as published; bold: best of its column, published numbers included"
    lines = [f"{metrics}; {spread}; {marks}. {_counts(store)}", ""]
    if len(axes) == 1:
        lines += _table(suite, [*axes, *facts, *columns], [_line(suite, row, columns) for row in shown])
    elif len(columns) == 1:
        lines += _table(suite, [*axes[1:], *facts, *heads], _side_by_side(suite, shown, heads, columns[0]))
    else:
        for head in heads:
            found = [_line(suite, row, columns, skip=1) for row in shown if row.labels[0] == head]
            lines += [f"### {head}", "", *_table(suite, [*axes[1:], *facts, *columns], found), ""]
    return "\n".join(lines).rstrip() + "\n"


def all_columns(suite: Suite) -> list[str]:
    """Return the labels of the table's numeric columns."""
    return [*suite.axes[suite.table.columns], *([MEAN] if suite.table.mean else [])]


def short_name(axis: str) -> str:
    """Return the last part of an axis that is a configuration key."""
    return axis.rpartition(".")[2]


def is_error(metric: str) -> bool:
    """Whether the best value of a metric is 0."""
    return metric.rpartition("/")[2] in _ERRORS


def _is_shown(row: Row, columns: Sequence[str], names: Sequence[str]) -> bool:
    empty = row.kind == "published" and not any(column in row.runs or column in row.printed for column in columns)
    return not empty and (not names or row.labels[-1] in names)


def _labels(row: Row, skip: int) -> list[str]:
    *heads, name = row.labels[skip:]
    return [*heads, f"*{name}*" if row.kind == "published" else name]


def _line(suite: Suite, row: Row, columns: Sequence[str], skip: int = 0) -> _Line:
    facts = [row.facts.get(fact, "") for fact in suite.table.facts]
    return _Line([*_labels(row, skip), *facts], [(row, column) for column in columns])


def _side_by_side(suite: Suite, rows: Sequence[Row], heads: Sequence[str], column: str) -> list[_Line]:
    """Return one line for all rows that differ only in their first label; facts that differ list all values."""
    lines = []
    for key in dict.fromkeys((tuple(_labels(row, 1)), row.kind) for row in rows):
        alike = [row for row in rows if (tuple(_labels(row, 1)), row.kind) == key]
        by_head = {row.labels[0]: (row, column) for row in alike}
        known = ([row.facts[fact] for row in alike if fact in row.facts] for fact in suite.table.facts)
        facts = [", ".join(dict.fromkeys(values)) for values in known]
        lines.append(_Line([*key[0], *facts], [by_head.get(head) for head in heads]))
    return lines


def _table(suite: Suite, heads: Sequence[str], lines: Sequence[_Line]) -> list[str]:
    written = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    best = [_best(suite, cells) for cells in zip(*(line.cells for line in lines), strict=True)]
    for line in lines:
        texts = [_text(suite, cell, numbers) for cell, numbers in zip(line.cells, best, strict=True)]
        written.append(f"| {' | '.join([*line.labels, *texts])} |")
    return written


def _best(suite: Suite, cells: Iterable[tuple[Row, str] | None]) -> list[float | None]:
    """Return the best number of a column for each metric, None if it has fewer than two numbers."""
    numbers = [_numbers(suite, *cell) for cell in cells if cell]
    best = []
    for metric, column in zip(suite.table.metrics, zip(*numbers, strict=True), strict=True):
        known = [number for number in column if number is not None]
        best.append(None if len(known) < 2 else min(known) if is_error(metric) else max(known))
    return best


def _numbers(suite: Suite, row: Row, column: str) -> list[float | None]:
    """Return the number to compare for each metric, rounded as printed, so that numbers printed alike are equal.

    It is None for a mean over fewer runs than the suite has.
    """
    if column in row.printed:
        values = [_leading_number(number) for number in row.printed[column]]
    elif len(found := row.runs.get(column, [])) < row.expected.get(column, 1):
        values = [None] * len(suite.table.metrics)
    else:
        values = [statistics.fmean(scores) for scores in zip(*found, strict=True)]
    decimals = suite.table.decimals
    return [None if value is None or math.isnan(value) else float(f"{value:.{decimals}f}") for value in values]


def _leading_number(printed: float | str) -> float | None:
    """Return a published number, or the number that a text such as '0.71 ± 0.02' begins with, None if there is none."""
    match = re.match(r"-?\d*\.?\d+", str(printed))
    return float(match[0]) if match else None


def _text(suite: Suite, cell: tuple[Row, str] | None, best: Sequence[float | None]) -> str:
    """Return the text of a table cell, with the number of runs where some are missing."""
    if cell is None:
        return ""
    row, column = cell
    decimals, found = suite.table.decimals, row.runs.get(column, [])
    if column in row.printed:
        parts = [n if isinstance(n, str) else f"{n:.{decimals}f}" for n in row.printed[column]]
    elif not found:
        return "" if row.kind == "published" else _MISSING
    else:
        parts = []
        for values in zip(*found, strict=True):
            spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
            parts.append(_MISSING if math.isnan(values[0]) else f"{statistics.fmean(values):.{decimals}f}{spread}")
    for index, (number, wanted) in enumerate(zip(_numbers(suite, row, column), best, strict=True)):
        if number is not None and number == wanted:
            parts[index] = f"**{parts[index]}**"
    expected = row.expected.get(column, len(found))
    missing = f" ({len(found)} of {expected} {suite.table.over}s)" if len(found) < expected else ""
    return f"{' / '.join(parts)}{missing}"


def _counts(store: Store) -> str:
    statuses = [store.status(cell) for cell in store.suite.cells]
    counts = {kind: statuses.count(kind) for kind in ("done", "outdated", "missing")}
    text = f"{counts['done']} of {len(statuses)} runs are done"
    if counts["outdated"]:
        text += f", {counts['outdated']} are of an earlier configuration and left out"
    return f"{text}."
