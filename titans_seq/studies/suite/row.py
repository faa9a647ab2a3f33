"""Row of a suite's table, from which a report's Markdown, CSV and plot are made."""

from dataclasses import dataclass

Key = tuple[str, ...]  # labels of a row
MetricValues = tuple[float, ...]  # one value per metric


@dataclass
class Row:
    """A row of the table."""

    labels: Key  # of the row's axes
    kind: str  # "ours", "baseline" or "published"
    facts: dict[str, str]
    runs: dict[str, list[MetricValues]]  # column to the scores of every seed or fold; one entry for published rows
    printed: dict[str, tuple[float | str, ...]]  # published numbers as written, by column
    expected: dict[str, int]  # column to the number of runs in the suite
