"""The page of simulated series: shares and pictures of all families; the script that draws them works."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from datamodules.time_series.simulated.mixture import FAMILIES, MIXTURE
from tests.helpers import REPOSITORY

PAGE = REPOSITORY / "docs" / "simulated_series.md"
PICTURES = REPOSITORY / "docs" / "simulated_series"
LARGEST = 150_000  # bytes of a picture


def test_the_table_has_the_shares_of_the_mixture() -> None:
    shares = {name: int(share) for name, share in re.findall(r"\| `(\w+)` \| (\d+) % \|", PAGE.read_text())}
    total = sum(weight for weight, _ in MIXTURE.values())
    assert shares == {name: round(100 * weight / total) for name, (weight, _) in MIXTURE.items()}


@pytest.mark.parametrize("name", [*FAMILIES, "mixture"])
def test_every_family_has_a_small_picture(name: str) -> None:
    assert f"(simulated_series/{name}.png)" in PAGE.read_text()
    assert (PICTURES / f"{name}.png").stat().st_size < LARGEST


def test_the_script_draws_rows_of_series(tmp_path: Path) -> None:
    draw = runpy.run_path(str(REPOSITORY / "docs" / "make_simulated_series.py"))["draw"]
    rng = np.random.default_rng(0)
    draw(tmp_path / "some.png", [(rng.standard_normal((4, 50)), np.array([24, 0, 7, 12])) for _ in range(2)])
    assert (tmp_path / "some.png").read_bytes()[:4] == b"\x89PNG"
