"""Configuration keys of the universal forecaster, which is trained on simulated series alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from titans_seq.schema.common import BackboneOptions, Config, Conflict, DataOptions, TaskOptions, at_least, between

PATCH = 16  # steps of a token; part of the architecture


@dataclass
class UniversalDataOptions(DataOptions):
    """Simulated series, made while training: every batch is new."""

    name: Literal["simulated"] = "simulated"
    # Series of the longest length in a batch; batches of shorter series have more of them, so that every batch has the
    # same number of steps.
    batch_size: int = at_least(14, 1)
    lengths: list[int] = field(
        default_factory=lambda: [48, 96, 256, 512, 1024, 2304]
    )  # steps of a series; multiples of 16
    # Fractions of the batches that have each length; null: equal
    shares: list[float] | None = field(default_factory=lambda: [0.08, 0.14, 0.2, 0.25, 0.2, 0.13])
    held_out_batches: int = at_least(4, 1)  # batches of each length, for each of validation and test


@dataclass
class UniversalModelOptions(BackboneOptions):
    """The universal forecaster: tokens of 16 steps, backbone, head for any lead."""

    hidden: int = at_least(256, 1)  # width of the hidden layers before and after the backbone
    dropout: float = between(0.0, 0, 1)


@dataclass
class UniversalTaskOptions(TaskOptions):
    """Loss of the universal forecaster: the pinball loss of nine quantiles, at every token."""

    name: Literal["universal"] = "universal"
    # Besides the next patch, every token is trained on this many random leads, log-uniform up to max_lead.
    random_leads: int = at_least(2, 0)
    max_lead: int = at_least(45, 1)  # patches; forecasts beyond it are made recursively


@dataclass
class UniversalConfig(Config):
    """Configuration with `task.name=universal`."""

    experiment: str = "universal"
    data: UniversalDataOptions = field(default_factory=UniversalDataOptions)
    model: UniversalModelOptions = field(default_factory=UniversalModelOptions)
    task: UniversalTaskOptions = field(default_factory=UniversalTaskOptions)

    def conflicts(self) -> Iterator[Conflict]:
        """Values that do not go together."""
        yield from super().conflicts()
        data = self.data
        if not data.lengths or any(length % PATCH or length < 3 * PATCH for length in data.lengths):
            rule = f"{data.lengths}: must be multiples of {PATCH}, the steps of a token, and at least {3 * PATCH}"
            yield Conflict("data.lengths", "data.lengths", rule)
        if data.shares is not None and len(data.shares) != len(data.lengths):
            rule = f"has {len(data.shares)} fractions for the {len(data.lengths)} lengths of data.lengths"
            yield Conflict("data.shares", "data.lengths", rule)
        if data.shares is not None and not (all(0 <= share < inf for share in data.shares) and any(data.shares)):
            yield Conflict("data.shares", "data.shares", f"{data.shares}: must be fractions, not all of them 0")
        if not (self.trainer.epoch_batches or self.trainer.limit_batches):
            rule = "0 would never end an epoch, since simulated series do not run out; set a number of batches"
            yield Conflict("trainer.epoch_batches", "trainer.epoch_batches", rule)
