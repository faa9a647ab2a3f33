"""Configuration keys of DNA pre-training."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from titans_seq.schema.common import WITH_MEMORY, Config, Conflict, DataOptions, TaskOptions, at_least, between
from titans_seq.schema.sequences import SequenceModelOptions


@dataclass
class PretrainingDataOptions(DataOptions):
    """Unlabelled sequences, their splits, and streams of segments."""

    # simulated; a task of GUE or a dataset of GenomicBenchmarks, of which the training rows are used without labels; a
    # table with a column of sequences; or a FASTA file of any size, which is memory-mapped
    name: str = "simulated"
    also: list[str] = field(default_factory=list)  # further sources, joined with it
    # Sources whose sequences are removed, on either strand, where they occur as whole sequences: of published datasets
    # the dev and test rows, of tables and FASTA files all rows.
    exclude: list[str] = field(default_factory=list)
    batch_size: int = at_least(32, 1)  # streams read side by side
    segment: int = at_least(512, 1)  # bases of a segment: one optimiser step each (TBPTT window)
    # Bases of a stream, which is read segment after segment, the memory carried over without its gradient; null: whole
    # records.
    stream_length: int | None = at_least(None, 1)
    both_strands: bool = False  # reverse-complement a random half of the training streams every epoch
    unit: Literal["record", "end"] = "record"  # what is held out: whole records, or the last bases of every record
    fraction: float = between(0.05, 0, 0.5)  # of the records or bases, held out for each of validation and test
    validation_records: list[str] = field(default_factory=list)  # names, such as chromosomes, instead of random ones
    test_records: list[str] = field(default_factory=list)  # likewise
    holdout_seed: int = between(0, 0, 2**32 - 1)  # seed of the splits, independent of `seed`
    sequence: str = "sequence"  # name of a table's column
    rna: bool = False  # read U as T


@dataclass
class PretrainingTaskOptions(TaskOptions):
    """Objective of pre-training."""

    name: Literal["pretraining"] = "pretraining"
    # next: predict every base from those before it. With model.stride above 1 the bases of a token are predicted at
    # once, independently of each other. masked: predict hidden bases from those on both sides.
    objective: Literal["next", "masked"] = "next"
    masked_share: float = between(0.15, 0, 1)  # of the bases, to predict: 80 % hidden, 10 % replaced, 10 % kept
    # Probability that a batch of training streams starts from the states that the previous streams ended with, without
    # their gradient, instead of a fresh memory (state passing, arXiv 2507.02782). Training then sees memories as long
    # sequences leave them. Validation and test start fresh.
    state_passing: float = between(0.0, 0, 1)


@dataclass
class PretrainingConfig(Config):
    """Configuration with `task.name=pretraining`."""

    experiment: str = "pretraining"
    data: PretrainingDataOptions = field(default_factory=PretrainingDataOptions)
    model: SequenceModelOptions = field(default_factory=SequenceModelOptions)
    task: PretrainingTaskOptions = field(default_factory=PretrainingTaskOptions)

    def conflicts(self) -> Iterator[Conflict]:
        """Values that do not go together."""
        yield from super().conflicts()
        yield from self._objective_conflicts()
        yield from self._holdout_conflicts()
        yield from self._carried_state_conflicts()
        if self.task.objective == "next" and self.task.masked_share != PretrainingTaskOptions().masked_share:
            rule = "has no effect with task.objective=next"
            yield Conflict("task.masked_share", "task.objective", rule, no_effect=True)
        if self.task.objective == "masked" and self.task.state_passing:
            rule = "has no effect with task.objective=masked, which carries no state"
            yield Conflict("task.state_passing", "task.objective", rule, no_effect=True)

    def _objective_conflicts(self) -> Iterator[Conflict]:
        model, data, task = self.model, self.data, self.task
        if task.objective == "next" and model.direction != "forward":
            rule = f"{model.direction} would see the bases to predict; task.objective=next requires forward"
            yield Conflict("model.direction", "task.objective", rule)
        if data.segment % model.stride:
            rule = f"{data.segment} must be a multiple of model.stride={model.stride}"
            yield Conflict("data.segment", "model.stride", rule)
        if data.stream_length is not None and data.stream_length < data.segment:
            rule = f"{data.stream_length} must be at least data.segment={data.segment}"
            yield Conflict("data.stream_length", "data.segment", rule)
        if task.objective == "masked" and data.stream_length != data.segment:
            rule = "must equal data.segment with task.objective=masked, which predicts within a segment"
            yield Conflict("data.stream_length", "data.segment", rule)
        if task.objective == "masked" and not task.masked_share:
            yield Conflict("task.masked_share", "task.objective", "0 would hide no bases; must be above 0")

    def _holdout_conflicts(self) -> Iterator[Conflict]:
        data = self.data
        for key in ("validation_records", "test_records"):
            if getattr(data, key) and data.unit == "end":
                rule = "has no effect with data.unit=end, which holds out the ends of all records"
                yield Conflict(f"data.{key}", "data.unit", rule)
        if not data.fraction and not (data.validation_records and data.test_records):
            yield Conflict("data.fraction", "data.fraction", "0 would leave nothing to validate and test on")

    def _carried_state_conflicts(self) -> Iterator[Conflict]:
        model, data = self.model, self.data
        if self.task.objective != "next" or (data.stream_length == data.segment and not self.task.state_passing):
            return
        key, off = "data.stream_length", "data.stream_length=data.segment"
        if data.stream_length == data.segment:
            key, off = "task.state_passing", "task.state_passing=0"
        if model.variant in ("mal", "mag", "transformer") and model.attention.window is None:
            rule = f"full attention cannot be carried over segments; set a number, or {off}"
            yield Conflict("model.attention.window", key, rule)
        learned = model.memory.initial == "learned" or bool(model.num_persistent)
        learned = learned if model.variant in WITH_MEMORY else model.variant in ("ttt_linear", "ttt_mlp")
        if learned and self.uses_ddp:
            reason = "the memory is carried over, so that the initial one has no gradient at most steps"
            yield from self.unused_parameter_conflicts(key, reason)
