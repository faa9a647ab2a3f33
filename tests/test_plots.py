"""Plots in general: labels of dates, plain numbers, and every line drawn."""

from datetime import datetime
from pathlib import Path

import matplotlib.dates
import numpy as np
import pytest
from matplotlib.figure import Figure

from titans_seq.plots import DateLabels, Panel, plot_panels, plot_points


@pytest.mark.parametrize(
    ("dates", "labels"),
    [
        (["2023-12-29", "2023-12-31", "2024-01-02"], ["29 Dec\n2023", "31 Dec", "2 Jan\n2024"]),
        (["2023-11-01", "2024-01-01", "2024-03-01"], ["Nov\n2023", "Jan\n2024", "Mar"]),
        (["2023-01-01", "2024-01-01"], ["2023", "2024"]),
        (["2023-12-31 12:00", "2024-01-01 00:00"], ["12:00\n31 Dec 2023", "00:00\n1 Jan 2024"]),
        (["2024-01-01 00:00:30", "2024-01-01 00:01"], ["00:00:30\n1 Jan 2024", "00:01:00"]),
    ],
)
def test_dates_are_labelled_with_the_month_and_year_they_are_in(dates: list[str], labels: list[str]) -> None:
    numbers = [matplotlib.dates.date2num(datetime.fromisoformat(date)) for date in dates]
    assert DateLabels().format_ticks(numbers) == labels


@pytest.mark.parametrize(("first", "days"), [("2023-12-20", 30), ("2023-11-15", 80), ("2022-06-01", 700)])
def test_ticks_of_a_year_end_are_even_and_name_both_years(
    first: str, days: int, tmp_path: Path, figures: list[Figure]
) -> None:
    times = np.datetime64(first) + np.arange(days)
    plot_panels(tmp_path / "a.png", [Panel("y", {"y": (times, np.arange(days))})], title="")
    (axis,) = figures[0].axes
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert 3 <= len(labels) <= 9
    assert next(text.split("\n")[1] for text in labels if "\n" in text) == first[:4]
    assert any("2024" in text for text in labels)
    assert axis.xaxis.get_offset_text().get_text() == ""
    steps = np.diff(axis.get_xticks())
    assert steps.max() - steps.min() <= 3, "months have 28 to 31 days, days are even"


def test_every_line_is_drawn_and_numbers_have_no_offset(tmp_path: Path, figures: list[Figure]) -> None:
    lines = {f"line {i}": (np.arange(3), 0.4887 + 1e-6 * np.arange(3) * i) for i in range(12)}
    plot_panels(tmp_path / "a.png", [Panel("y", lines)], title="t", xlabel="x")
    (axis,) = figures[0].axes
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(lines)
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.get_lines()}) == 12
    assert axis.yaxis.get_offset_text().get_text() == ""
    assert all(label.get_text().startswith("0.488") for label in axis.get_yticklabels())


def test_a_logarithmic_axis_of_less_than_a_decade_has_plain_numbers(tmp_path: Path, figures: list[Figure]) -> None:
    lines = {"y": (np.arange(3), np.array([0.2, 0.5, 0.6]))}
    plot_panels(tmp_path / "a.png", [Panel("y", lines, logarithmic=True)], title="")
    (axis,) = figures[0].axes
    texts = [label.get_text() for which in ("major", "minor") for label in axis.get_yticklabels(which=which)]
    shown = [text for text in texts if text]
    assert len(shown) >= 3
    assert all(0.1 <= float(text) <= 1 for text in shown)


def test_points_of_many_groups_are_all_in_the_legend(tmp_path: Path, figures: list[Figure]) -> None:
    groups = {str(i): np.full((2, 2), i) for i in range(10)}
    plot_points(tmp_path / "a.png", groups, title="", xlabel="first", ylabel="second")
    (axis,) = figures[0].axes
    assert len(axis.get_lines()) == 10
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("first", "second")
