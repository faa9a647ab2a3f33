"""Markdown tables of a suite: one per dataset, with the best numbers in bold."""

from pathlib import Path
from typing import Any

import pytest

from tests.studies.test_suite import SUITE, write_suite
from titans_seq.studies.suite import read_suite
from titans_seq.studies.suite.markdown import markdown
from titans_seq.studies.suite.row import MetricValues, Row
from titans_seq.studies.suite.running import Store

AXES = {**SUITE["axes"], "data": {"A": [], "B": []}}  # type: ignore[dict-item]
TABLE = {**SUITE["table"], "mean": False}  # type: ignore[dict-item]


def row(data: str, name: str, *runs: MetricValues, expected: int = 0, **more: Any) -> Row:
    """A row with runs in the column 12 only."""
    kind = "published" if more else "ours"
    return Row((data, name), kind, {}, {"12": list(runs)} if runs else {}, more, {"12": expected or len(runs)})


def published(data: str, name: str, *numbers: float | str) -> Row:
    return row(data, name, **{"12": numbers})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    path = write_suite(tmp_path, axes=AXES, table=TABLE, leave_out=None, published=None, pages=None)
    return Store(read_suite(path), results=tmp_path)


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("|", "#"))]


def test_one_table_per_dataset_with_its_own_best_numbers(store: Store) -> None:
    rows = [
        row("A", "LMM", (0.1, 0.2)),
        row("A", "CNN", (0.3, 0.1)),
        row("B", "LMM", (0.5, 0.5)),
        row("B", "CNN", (0.4, 0.6)),
    ]
    assert table_lines(markdown(store, rows, ["12", "24"])) == [
        "### A",
        "| model | lookback | 12 | 24 |",
        "|---|---|---|---|",
        "| LMM |  | **0.100** / 0.200 | - |",
        "| CNN |  | 0.300 / **0.100** | - |",
        "### B",
        "| model | lookback | 12 | 24 |",
        "|---|---|---|---|",
        "| LMM |  | 0.500 / **0.500** | - |",
        "| CNN |  | **0.400** / 0.600 | - |",
    ]


def test_datasets_are_side_by_side_with_one_column(store: Store) -> None:
    rows = [row("A", "LMM", (0.1, 0.2)), published("A", "CNN", 0.3, 0.1), published("B", "CNN", 0.4, 0.6)]
    rows[1].facts["context_length"], rows[2].facts["context_length"] = "96", "512"
    assert table_lines(markdown(store, rows, ["12"])) == [
        "| model | lookback | A | B |",
        "|---|---|---|---|",
        "| LMM |  | **0.100** / 0.200 |  |",
        "| *CNN* | 96, 512 | 0.300 / **0.100** | 0.400 / 0.600 |",  # the only number in B is not marked
    ]


def test_numbers_equal_as_printed_tie_whatever_their_spread(store: Store) -> None:
    rows = [row("A", "LMM", (0.1, 1), (0.1002, 3)), row("A", "CNN", (0.1003, 2)), published("A", "Old", 0.1001, 4)]
    assert [line.split(" | ")[2] for line in table_lines(markdown(store, rows, ["12", "24"]))[3:]] == [
        "**0.100 ± 0.000** / **2.000 ± 1.414**",
        "**0.100** / **2.000**",
        "**0.100** / 4.000",
    ]


def test_published_text_is_compared_by_its_first_number(store: Store) -> None:
    rows = [row("A", "LMM", (0.2, 0.2)), published("A", "Old", ".15 ± .01", "-")]
    assert [line.split(" | ")[2] for line in table_lines(markdown(store, rows, ["12", "24"]))[3:]] == [
        "0.200 / 0.200",
        "**.15 ± .01** / -",
    ]


def test_means_over_too_few_runs_and_missing_scores_are_not_compared(store: Store) -> None:
    rows = [
        row("A", "LMM", (0.1, 0.1), expected=2),
        row("A", "CNN", (0.2, float("nan"))),
        row("A", "MAL", (0.3, 0.2)),
        row("A", "MAC", (0.4, 0.3)),
    ]
    assert [line.split(" | ")[2] for line in table_lines(markdown(store, rows, ["12", "24"]))[3:]] == [
        "0.100 / 0.100 (1 of 2 seeds)",
        "**0.200** / -",
        "0.300 / **0.200**",
        "0.400 / 0.300",
    ]


def test_best_score_is_the_greatest_and_best_error_the_least(tmp_path: Path) -> None:
    table = {
        **TABLE,
        "rows": ["model"],
        "columns": "data",
        "metrics": {"test/accuracy": "accuracy", "val/loss": "loss"},
    }
    axes = {key: value for key, value in AXES.items() if key != "data.horizon"}
    path = write_suite(tmp_path, axes=axes, table=table, leave_out=None, published=None, pages=None)
    rows = [
        Row((name,), "ours", {}, {"A": [scores]}, {}, {}) for name, scores in (("LMM", (0.8, 0.8)), ("CNN", (0.9, 0.9)))
    ]
    assert table_lines(markdown(Store(read_suite(path), results=tmp_path), rows))[2:] == [
        "| LMM |  | 0.800 / **0.800** | - |",
        "| CNN |  | **0.900** / 0.900 | - |",
    ]
