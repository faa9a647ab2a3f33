"""The figures of the benchmarks, from their committed results: every condition is shown, under one name and colour."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.helpers import REPOSITORY


def drawn(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of a benchmark after it has drawn its figure into `folder`."""
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])
    module = importlib.import_module(name)
    monkeypatch.setattr(module, "PAGE", folder / f"{name}.md")
    module.picture(module.summary())
    return module


def test_needle_has_one_colour_and_name_for_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[Figure]
) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])
    names = ("haystack.pictures", "haystack.models", "haystack.report")
    pictures, models, report = map(importlib.import_module, names)
    pictures.ablations(report.summary(), tmp_path / "needle.png")
    arms = {arm for arms in pictures.PANELS.values() for arm in arms}
    assert set(models.ABLATIONS) == set(pictures.STYLES) == arms
    colours: dict[str, set[Any]] = {}
    for axis in figures[0].axes:
        assert len(axis.get_lines()) <= 6, "too many lines to tell apart"
        for line in axis.get_lines():
            colours.setdefault(str(line.get_label()), set()).add(line.get_color())
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(colours) == len(arms) + 1
    assert not any("_" in name for name in colours), "names of the code"


def test_state_tracking_says_what_diverged_and_what_nobody_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[Figure]
) -> None:
    module = drawn("state_tracking", tmp_path, monkeypatch)
    panels = figures[0].axes[: len(module.CLASSES)]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(module.NAMES.values())
    assert list(module.NAMES) == list(module.ARMS)
    texts = [[text.get_text() for text in panel.texts] for panel in panels]
    assert [panel.count("diverged on all seeds") for panel in texts] == [2, 1, 1, 1]
    assert sum(text.endswith("*") for text in texts[1]) == len(module.LENGTHS)
    assert ["not learned" in panel.get_title() for panel in panels] == [False, False, True, False]
