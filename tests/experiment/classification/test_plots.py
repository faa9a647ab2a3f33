"""What the figures of a classification run say."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tests.experiment.running import fit
from tests.helpers import CONFIGS
from titans_seq.experiment.classification.plots import plot_classes, plot_variant_effects


def test_the_legend_names_the_positive_class_and_its_area(tmp_path: Path, figures: list[Figure]) -> None:
    run = fit(CONFIGS / "genomics" / "motif.yaml", tmp_path / "run", "data.max_length=100")
    rates, matrix = figures[0].axes
    legend = rates.get_legend()
    assert legend is not None
    area = run.results["test/auroc"]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [f"motif (positive) vs background: AUROC {area:.3f}", "chance: AUROC 0.5"]
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["background", "motif"]


def test_areas_of_several_classes(tmp_path: Path, figures: list[Figure]) -> None:
    line = np.linspace(0, 1, 2001)
    curves = {f"class {power} vs rest": (line, line**power) for power in (0.25, 0.5, 1.0)}
    names = ["first", "second", "a third whose name is far too long"]
    plot_classes(tmp_path / "a.png", curves=curves, counts=np.eye(3, dtype=np.int64), classes=names, title="t")
    legend = figures[0].axes[0].get_legend()
    assert legend is not None
    found = [text.get_text() for text in legend.get_texts()][:3]
    for text, power in zip(found, (0.25, 0.5, 1.0), strict=True):
        assert abs(float(text.rpartition(" ")[2]) - 1 / (1 + power)) < 0.002
    assert figures[0].axes[1].get_xticklabels()[2].get_text() == "a third whose name …"


def test_the_heat_map_says_what_its_colours_are(tmp_path: Path, figures: list[Figure]) -> None:
    options = {
        "sequence": "ACGT",
        "letters": "ACGT",
        "title": "a long title " * 10 + "\nsecond line",
        "measure": "change in the log-odds",
    }
    plot_variant_effects(tmp_path / "a.png", effects=np.eye(4), **options)  # type: ignore[arg-type]
    heat, bar = figures[0].axes
    assert (heat.get_ylabel(), bar.get_ylabel()) == ("alternative base", "change in the log-odds")
    first, *_, last = figures[0].get_suptitle().splitlines()
    assert first in options["title"], "a long title is wrapped"
    assert len(first) < 60
    assert last == "second line"
