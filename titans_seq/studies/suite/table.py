"""Table of a suite's results beside published numbers, as Markdown, CSV and PNG, and inserted into pages."""

import csv
import io
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from titans_seq.errors import InputError
from titans_seq.studies.plots import plot_scores
from titans_seq.studies.suite import MEAN, Cell, Published, Suite
from titans_seq.studies.suite.markdown import all_columns, is_error, markdown, short_name
from titans_seq.studies.suite.row import Key, Row
from titans_seq.studies.suite.running import Store
from titans_seq.system.files import write_atomically


def build_rows(store: Store) -> list[Row]:
    """Return the rows of a suite's table: its runs, their baselines and published rows, in the suite's order."""
    suite = store.suite
    rows: dict[Key, Row] = {}
    in_folds = suite.table.over == "fold"
    measured: set[tuple[Key, str, str]] = set()
    for cell in suite.cells:
        results = _results(store, cell)
        key = tuple(cell.labels[axis] for axis in suite.table.rows)
        column = cell.labels[suite.table.columns]
        row = rows.setdefault(key, Row(key, "ours", {}, {}, {}, {}))
        row.expected[column] = row.expected.get(column, 0) + 1
        if results is None:
            continue
        _add(row, suite, column, results, results)
        for name, scores in results["baselines"].items() if suite.table.baselines else ():
            baseline_key = (*key[:-1], name)
            facts = results if row.kind == "ours" else {}
            baseline = rows.setdefault(baseline_key, Row(baseline_key, "baseline", {}, {}, {}, {}))
            # Baselines do not depend on seed and model: count them once.
            measurement = (baseline_key, column, cell.labels["fold"] if in_folds else "")
            if baseline.kind == "baseline" and measurement not in measured:
                measured.add(measurement)
                baseline.expected[column] = len(suite.axes["fold"]) if in_folds else 1
                _add(baseline, suite, column, scores, facts)
    for published in suite.published:
        for key in _published_keys(published):
            rows[(*key, published.name)] = _published_row(suite, published, key)
    for row in rows.values():
        if suite.table.mean:
            _average(row, suite.axes[suite.table.columns])
    heads = {key[:-1]: None for key in _axis_order(suite)}
    return [row for head in heads for row in rows.values() if row.labels[:-1] == head]


def write_report(store: Store) -> list[Path]:
    """Write table.md, table.csv and table.png to the results' folder, and the table into the suite's pages."""
    rows = build_rows(store)
    store.results.mkdir(parents=True, exist_ok=True)
    paths = [store.results / f"table.{suffix}" for suffix in ("md", "csv", "png")]
    write_atomically(paths[0], markdown(store, rows))
    write_atomically(paths[1], _csv(store.suite, rows))
    _draw(store.suite, rows, paths[2])
    for page in store.suite.pages:
        write_atomically(page, fill_page(page, store, rows))
    return [*paths, *store.suite.pages]


def fill_page(page: Path, store: Store, rows: Sequence[Row]) -> str:
    """Return the page with its tables filled in, each between `<!-- benchmark NAME -->` and `<!-- end -->`.

    `<!-- benchmark NAME: COLUMN, COLUMN | ROW, ROW -->` selects columns, and rows by name; either list may be empty.
    """
    name = store.suite.name
    known = (all_columns(store.suite), [row.labels[-1] for row in rows])

    def fill(match: re.Match[str]) -> str:
        selected = [[part.strip() for part in text.split(",") if part.strip()] for text in match[2].split("|")[:2]]
        for what, labels, accepted in zip(("column", "row"), selected, known, strict=False):
            if unknown := [label for label in labels if label not in accepted]:
                rule = f"unknown {what} {unknown[0]!r}; accepted: {', '.join(accepted)}"
                raise InputError(f"{page}: benchmark {name}: {rule}")
        return f"{match[1]}\n\n{markdown(store, rows, *selected)}\n<!-- end -->"

    pattern = rf"(<!-- benchmark {re.escape(name)}:? *([^>]*?) *-->)\n.*?<!-- end -->"
    filled, count = re.subn(pattern, fill, page.read_text(), flags=re.DOTALL)
    if not count:
        raise InputError(f"{page}: no place for the table; add the lines <!-- benchmark {name} --> and <!-- end -->")
    return filled


def _results(store: Store, cell: Cell) -> dict[str, Any] | None:
    if store.status(cell) != "done":
        return None
    content = store.read(cell)
    assert content is not None
    results: dict[str, Any] = content["results"]
    for key in store.suite.table.metrics:
        if key not in results:
            numbers = [name for name, value in results.items() if isinstance(value, float)]
            raise InputError(f"{store.suite.path}: table.metrics: {store.path(cell)} has no {key}; it has {numbers}")
    return results


def _add(row: Row, suite: Suite, column: str, scores: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Add a run's scores to its row. A fact that differs between the runs of a row is shown with all its values."""
    numbers = tuple(float(scores.get(key, math.nan)) for key in suite.table.metrics)
    row.runs.setdefault(column, []).append(numbers)
    for fact in suite.table.facts:
        if fact in facts:
            values = row.facts.get(fact, "").split(", ") if fact in row.facts else []
            row.facts[fact] = ", ".join(dict.fromkeys([*values, str(facts[fact])]))


def _published_keys(published: Published) -> list[Key]:
    return list(dict.fromkeys(labels[:-1] for labels in published.values))


def _published_row(suite: Suite, published: Published, key: Key) -> Row:
    printed = {labels[-1]: numbers for labels, numbers in published.values.items() if labels[:-1] == key}
    runs = {
        column: [tuple(float(n) for n in numbers)]
        for column, numbers in printed.items()
        if all(isinstance(n, int | float) for n in numbers)
    }
    return Row((*key, published.name), "published", dict(published.facts), runs, printed, {})


def _average(row: Row, columns: Iterable[str]) -> None:
    """Add the mean over columns, per run, if every column has every run; a published mean is kept as written."""
    columns = list(columns)
    counts = {len(row.runs.get(column, [])) for column in columns}
    count = row.expected[MEAN] = max(row.expected.values(), default=1)
    if MEAN in row.runs or counts != {count}:  # with runs missing, the others may be of different seeds
        return
    per_run = [[row.runs[column][i] for column in columns] for i in range(count)]
    row.runs[MEAN] = [tuple(statistics.fmean(values) for values in zip(*scores, strict=True)) for scores in per_run]


def _axis_order(suite: Suite) -> dict[Key, None]:
    return dict.fromkeys(tuple(cell.labels[axis] for axis in suite.table.rows) for cell in suite.cells)


def _csv(suite: Suite, rows: Iterable[Row]) -> str:
    """Return one line per row, column and metric, at full precision; published numbers as written in the suite."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes = [short_name(axis) for axis in suite.table.rows]
    statistic = ["mean", "standard deviation", f"{suite.table.over}s"]
    writer.writerow([*axes, "kind", *suite.table.facts.values(), short_name(suite.table.columns), "metric", *statistic])
    for row in rows:
        facts = [row.facts.get(fact, "") for fact in suite.table.facts]
        for column in dict.fromkeys([*row.printed, *row.runs]):
            for index, heading in enumerate(suite.table.metrics.values()):
                values = [scores[index] for scores in row.runs.get(column, [])]
                spread = statistics.stdev(values) if len(values) > 1 else ""
                mean = row.printed[column][index] if column in row.printed else statistics.fmean(values)
                count = "" if row.kind == "published" else len(values)
                writer.writerow([*row.labels, row.kind, *facts, column, heading, mean, spread, count])
    return text.getvalue()


def _draw(suite: Suite, rows: list[Row], path: Path) -> None:
    """Draw a panel for each table head (and column, without a mean) and metric, with a point for each row."""
    panels: dict[str, list[tuple[str, str, float, float]]] = {}
    errors = set()
    column = MEAN if suite.table.mean else None
    for row in rows:
        for name in [column] if column else list(row.runs):
            for index, (key, heading) in enumerate(suite.table.metrics.items()):
                values = [scores[index] for scores in row.runs.get(str(name), [])]
                if values and not any(map(math.isnan, values)):
                    spread = statistics.stdev(values) if len(values) > 1 else 0.0
                    place = " ".join([*row.labels[:-1], *([] if column else [str(name)]), heading])
                    if is_error(key):
                        errors.add(place)
                    panels.setdefault(place, []).append((row.labels[-1], row.kind, statistics.fmean(values), spread))
    over = f", mean over {short_name(suite.table.columns)}" if column else ""
    plot_scores(path, panels=panels, errors=errors, title=f"{suite.name}{over}")
