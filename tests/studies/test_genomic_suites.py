"""The shipped DNA suites: models of comparable size, and pages that match the recorded results."""

import json
from pathlib import Path

import pytest

from tests.helpers import CONFIGS, REPOSITORY
from titans_seq.schema import ClassificationConfig
from titans_seq.studies.suite import read_suite
from titans_seq.studies.suite.running import Store
from titans_seq.studies.suite.table import build_rows, fill_page
from titans_seq.tasks.classification import build_classifier

SUITES = [CONFIGS / "genomics" / f"{name}_suite.yaml" for name in ("gue", "genomic_benchmarks_within")]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_all_models_have_about_half_a_million_parameters(path: Path) -> None:
    cells = {cell.labels["model"]: cell for cell in read_suite(path).cells}
    assert list(cells)[:4] == ["LMM", "MAL", "Transformer", "CNN"]
    assert list(cells)[4:] in ([], ["LMM pre-trained"])
    for name, cell in cells.items():
        config = cell.load_config()
        assert isinstance(config, ClassificationConfig)
        count = sum(p.numel() for p in build_classifier(config, num_classes=2).parameters())
        assert 440_000 < count < 480_000, name


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_page_matches_the_recorded_results(path: Path) -> None:
    suite = read_suite(path)
    store = Store(suite, results=REPOSITORY / "benchmarks" / "results" / suite.name)
    assert any(store.status(cell) == "done" for cell in suite.cells)
    (page,) = suite.pages
    assert fill_page(page, store, build_rows(store)) == page.read_text()


def test_published_rows_cover_every_task() -> None:
    suite = read_suite(SUITES[0])
    for published in suite.published:
        assert {labels[-1] for labels in published.values} == set(suite.axes["task"]), published.name


def test_five_mers_row_matches_the_recorded_results() -> None:
    (row,) = read_suite(SUITES[1]).published
    recorded = json.loads((REPOSITORY / "benchmarks" / "results" / "five_mers.json").read_text())["figures"]
    metrics = ("test/accuracy", "test/mcc")
    measured = {(of["set"],): tuple(_with_spread(of[metric]) for metric in metrics) for of in recorded}
    assert row.values == measured


def _with_spread(statistic: dict[str, float]) -> str:
    return f"{statistic['mean']:.3f} ± {statistic['standard_deviation']:.3f}"
