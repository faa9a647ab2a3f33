"""Sizes that errors about short series propose: with them every split of every series has a window."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.common.splitting import Split
from datamodules.time_series.datamodule import ForecastingDataModule
from datamodules.time_series.series import Series, SplitBoundaries
from titans_seq.errors import InputError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Panel:
    """Series with the given split boundaries."""

    seasonal_period = 1
    simulated = False

    def __init__(self, borders: list[SplitBoundaries]) -> None:
        self.borders = borders

    def prepare(self) -> None:
        """Nothing to prepare."""

    def load(self) -> list[Series]:
        """Return series of noise."""
        return [self._series(number, borders) for number, borders in enumerate(self.borders)]

    def _series(self, number: int, borders: SplitBoundaries) -> Series:
        values = np.random.default_rng(number).normal(size=(borders.test, 1))
        return Series(str(number), np.arange(borders.test), ["y"], values, borders, interval="1i")


def fault(borders: list[SplitBoundaries], sizes: dict[str, int]) -> str | None:
    """Return the error unless every split has a window with these sizes."""
    patch = sizes["model.patch_length"], sizes["model.stride"]
    lengths = {"context_length": sizes["data.context_length"], "horizon": sizes["data.horizon"]}
    data = ForecastingDataModule(Panel(borders), **lengths, patch=patch)
    data.setup()
    try:
        assert all(len(data.windows(split)) > 0 for split in SPLITS)
    except InputError as error:
        return str(error)
    return None


splits = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20)).map(
    lambda rows: SplitBoundaries(*np.cumsum(rows).tolist())
)


@settings(deadline=None, max_examples=300)
@given(st.lists(splits, min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 30), st.integers(1, 16))
def test_sizes_that_an_error_proposes_fit(
    borders: list[SplitBoundaries], context_length: int, horizon: int, patch_length: int
) -> None:
    sizes = {
        "data.context_length": context_length,
        "data.horizon": horizon,
        "model.patch_length": min(patch_length, context_length),
        "model.stride": min(patch_length, context_length),
    }
    message = fault(borders, sizes)
    if message is None:
        return
    proposed = re.search(r"\. For all splits (.*) would fit$", message)
    if proposed is None:  # a single training row leaves no context
        assert message.endswith("too few for any: set data.train_end and data.validation_end")
        assert min(each.train for each in borders) < 2
        return
    changed = {key: int(value) for key, value in (word.split("=") for word in proposed[1].split())}
    assert changed
    assert all(0 < value < sizes[key] for key, value in changed.items())
    sizes |= changed
    assert fault(borders, sizes) is None
    assert sizes["model.stride"] <= sizes["model.patch_length"] <= sizes["data.context_length"]
    for key in changed.keys() & {"data.context_length", "data.horizon"}:  # the largest that fit
        assert fault(borders, {**sizes, key: sizes[key] + 1}) is not None
