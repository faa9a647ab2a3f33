"""Fixtures: runs shared by several test files."""

from pathlib import Path

import pytest

from tests.experiment.dna import PRETRAIN, SMALL
from tests.experiment.running import fit


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-step run of the shipped pre-training configuration with a smaller model."""
    folder = tmp_path_factory.mktemp("forward") / "run"
    _, results, printed, _ = fit(PRETRAIN, folder, *SMALL)
    assert "simulated DNA, made by this program" in printed
    assert results["bases"] == {"train": 221_184, "validation": 12_288, "test": 12_288}
    return folder
