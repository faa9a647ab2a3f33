"""Result pages match the stored results, and the best numbers are in bold."""

import importlib
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY


@pytest.fixture(autouse=True)
def _scripts_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


def test_needle_matches_its_results(tmp_path: Path) -> None:
    report = importlib.import_module("haystack.report")
    page = tmp_path / "needle.md"
    page.write_text(report.PAGE.read_text())
    report.write_page(report.summary(), page)
    assert page.read_text() == report.PAGE.read_text()


def test_streaming_forecast_matches_its_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = importlib.import_module("streaming_forecast")
    kept = script.PAGE.read_text()
    monkeypatch.setattr(script, "PAGE", tmp_path / script.PAGE.name)
    script.PAGE.write_text(kept)
    script.report()
    assert script.PAGE.read_text() == kept


def test_state_tracking_matches_the_results() -> None:
    script = importlib.import_module("state_tracking")
    assert script.PAGE.read_text().partition(script.MARK)[2] == script.tables(script.summary())


def test_best_numbers_and_ties_are_bold() -> None:
    bold = importlib.import_module("bold")
    assert bold.bold_best(["0.5 ± 0.1", "-", "0.7", "0.7 ± 0.2"]) == ["0.5 ± 0.1", "-", "**0.7**", "**0.7 ± 0.2**"]
    assert bold.bold_best(["0.5", "0.7"], min) == ["**0.5**", "0.7"]
    assert bold.bold_best(["0.00", "0.00"]) == ["0.00", "0.00"]  # all equal: none is marked
    assert bold.bold_columns([["a", "1", "9"], ["b", "2", "8"]], slice(1, 2)) == [["a", "1", "9"], ["b", "**2**", "8"]]
