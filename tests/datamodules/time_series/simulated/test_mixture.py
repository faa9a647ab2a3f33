"""The mixture of simulated series: seeded in any process, in the proportions of its table, always usable."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from datamodules.time_series.simulated.mixture import FAMILIES, MIXTURE, SimulatedBatch, simulate
from tests.helpers import REPOSITORY


def draw(seed: int, series: int, length: int) -> SimulatedBatch:
    return simulate(np.random.default_rng(seed), series, length)


def digest(batch: SimulatedBatch) -> str:
    parts = (batch.values, batch.period, batch.family)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@pytest.mark.parametrize("length", [16, 100, 512, 2048])
def test_every_series_can_be_trained_on(length: int) -> None:
    with np.errstate(all="raise", under="ignore"):
        batches = [draw(seed, 64, length) for seed in range(6)]
    for batch in batches:
        assert batch.values.shape == (64, length)
        assert batch.values.dtype == np.float32
        assert batch.period.dtype == batch.family.dtype == np.int64
        assert not np.isinf(batch.values).any()
        assert np.isnan(batch.values).mean(axis=1).max() <= 0.2
        assert np.nanmax(np.abs(batch.values)) < 1e12
        assert (batch.period >= 0).all()
    deviations = np.concatenate([np.nanstd(batch.values, axis=1) for batch in batches])
    assert (deviations == 0).mean() < 0.05


def test_the_same_state_gives_the_same_batch() -> None:
    assert digest(draw(3, 40, 300)) == digest(draw(3, 40, 300))
    assert digest(draw(3, 40, 300)) != digest(draw(4, 40, 300))
    rng = np.random.default_rng(3)
    first, second = simulate(rng, 40, 300), simulate(rng, 40, 300)
    assert digest(first) == digest(draw(3, 40, 300))
    assert digest(first) != digest(second)


def test_another_process_gives_the_same_batch() -> None:
    code = """
import numpy as np
from tests.datamodules.time_series.simulated.test_mixture import digest, draw
draw(1, 8, 64)  # an earlier call leaves no trace
print(digest(draw(3, 40, 300)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == digest(draw(3, 40, 300))


def test_families_come_in_the_proportions_of_the_table() -> None:
    family = np.concatenate([draw(seed, 200, 16).family for seed in range(30)])
    weights = np.array([weight for weight, _ in MIXTURE.values()])
    expected = weights / weights.sum()
    shares = np.bincount(family, minlength=len(FAMILIES)) / len(family)
    deviation = np.sqrt(expected * (1 - expected) / len(family))
    assert (np.abs(shares - expected) < 4 * deviation).all()


def test_most_counts_stay_counts() -> None:
    batch = draw(0, 4000, 32)
    counts = batch.values[batch.family == FAMILIES.index("intermittent")]
    present = np.nan_to_num(counts)
    is_whole = ((present == np.round(present)) & (present >= 0)).all(axis=1)
    assert is_whole.mean() > 0.6


def test_series_differ_within_a_batch() -> None:
    values = np.nan_to_num(draw(0, 128, 256).values)
    values = values - values.mean(axis=1, keepdims=True)
    values /= np.maximum(values.std(axis=1, keepdims=True), 1e-30)
    assert len(np.unique(values, axis=0)) > 125


@pytest.mark.parametrize(("series", "length"), [(0, 100), (4, 15)])
def test_sizes_are_checked(series: int, length: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        simulate(np.random.default_rng(0), series, length)
