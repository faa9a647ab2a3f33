"""Every variant trains from the shipped configurations, on the built-in dataset and on ETTh1."""

import json
from pathlib import Path

import pytest

from tests.helpers import CONFIGS, TWO_STEPS, VARIANTS, run_cli


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_on_the_built_in_dataset(variant: str, tmp_path: Path) -> None:
    files = [CONFIGS / "forecasting" / "synthetic.yaml", CONFIGS / "model" / f"{variant}.yaml"]
    answer = run_cli("fit", *files, *TWO_STEPS, f"run.dir={tmp_path / 'run'}")
    assert answer.status == 0, answer
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert f"variant: {variant}" in config
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 < results["test/mse"] < 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_on_etth1(variant: str, tmp_path: Path, data_root: Path) -> None:
    files = [CONFIGS / "forecasting" / "etth1.yaml", CONFIGS / "model" / f"{variant}.yaml"]
    overrides = [*TWO_STEPS, "model.linear_path=learned", f"data.root={data_root}", f"run.dir={tmp_path / 'run'}"]
    assert run_cli("fit", *files, *overrides).status == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["data"] == "ETTh1"
