"""The configuration of DNA pre-training."""

from dataclasses import dataclass, field
from typing import Literal

from titans_seq.schema.common import Config, DataOptions, TaskOptions, at_least, between
from titans_seq.schema.sequences import SequenceModelOptions


@dataclass
class PretrainingDataOptions(DataOptions):
    """Which unlabelled sequences, how they are cut into splits, and how they are read."""

    # simulated; a task of GUE or a set of GenomicsBenchmarks, whose training rows are taken without their labels; a
    # table with a column of sequences; or a FASTA file of any size, which is mapped and not loaded
    name: str = "simulated"
    also: list[str] = field(default_factory=list)  # further ones, learned from together
    # what must not be learned from, left out where it is a whole sequence, on either strand: the dev and test rows of
    # published sets, all rows of tables and FASTA files
    exclude: list[str] = field(default_factory=list)
    batch_size: int = at_least(32, 1)  # stretches read side by side
    segment: int = at_least(512, 1)  # bases between two steps of the optimiser
    # bases that are read one after another, at most; null: whole records. Beyond a segment, memory is carried on from
    # one to the next, its gradient cut.
    stretch: int | None = at_least(None, 1)
    both_strands: bool = False  # show half of the training stretches, another half every epoch, as reverse complements
    unit: Literal["record", "end"] = "record"  # held out: whole records, or the last bases of every record
    fraction: float = between(0.05, 0, 0.5)  # of the records or of their bases, for each of validation and test
    validation_records: list[str] = field(default_factory=list)  # chromosomes, say, instead of a random share
    test_records: list[str] = field(default_factory=list)
    holdout_seed: int = between(0, 0, 2**32 - 1)
    sequence: str = "sequence"  # name of a table's column
    rna: bool = False  # read U as T


@dataclass
class PretrainingTaskOptions(TaskOptions):
    """Pre-training: what is hidden, and from whom."""

    name: Literal["pretraining"] = "pretraining"
    # next: every base from those before it. With model.stride above 1 a token stands for that many bases, and those of
    # the next one are guessed at once, none knowing the others. masked: hidden bases from those on both sides.
    objective: Literal["next", "masked"] = "next"
    masked_share: float = between(0.15, 0, 1)  # of the bases; eight in ten are hidden, one is replaced, one is left


@dataclass
class PretrainingConfig(Config):
    """`task.name=pretraining`."""

    experiment: str = "pretraining"
    data: PretrainingDataOptions = field(default_factory=PretrainingDataOptions)
    model: SequenceModelOptions = field(default_factory=SequenceModelOptions)
    task: PretrainingTaskOptions = field(default_factory=PretrainingTaskOptions)
