"""Runs that several test files of the tasks use."""

from pathlib import Path

import pytest

from tests.experiment.dna import PRETRAIN, SMALL
from tests.experiment.running import fit


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two steps of the shipped pre-training, smaller."""
    folder = tmp_path_factory.mktemp("forward") / "run"
    _, results, printed, _ = fit(PRETRAIN, folder, *SMALL)
    assert "simulated DNA, made by this program" in printed
    assert results["bases"] == {"train": 221_184, "validation": 12_288, "test": 12_288}
    return folder
