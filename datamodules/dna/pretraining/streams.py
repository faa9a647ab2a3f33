"""Streams of unlabelled DNA, read side by side a segment at a time, so that a model can carry its memory along."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.common.loading import ALONE, Loader, Order, ProcessShard
from datamodules.dna.augmentation import draw_reverse_complements
from datamodules.dna.pretraining.corpus import Corpus
from datamodules.dna.tokenizer import reverse_complement
from titans_seq.batch import PAD_TOKEN, StreamBatch

Index = NDArray[np.int64]


class Streams(NamedTuple):
    """Runs of bases of a corpus, (n,) each."""

    records: Index
    starts: Index
    ends: Index

    @property
    def lengths(self) -> Index:
        """Bases of each, (n,)."""
        return self.ends - self.starts

    def cut(self, longest: int | None) -> "Streams":
        """The same bases in stretches of at most `longest`; None leaves them whole."""
        if longest is None:
            return self
        pieces = -(-self.lengths // longest)
        which = np.repeat(np.arange(len(self.records)), pieces)
        number = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts = self.starts[which] + number * longest
        return Streams(self.records[which], starts, np.minimum(starts + longest, self.ends[which]))


class Segment(NamedTuple):
    """A part of some stretches that are read side by side."""

    rows: Index  # the stretches, (B,)
    number: int  # from each one's start
    last: bool
    reading: int  # of the whole split, which order and strands depend on


class StretchOrder(Order):
    """The batches of stretches of an epoch, their segments as many in every one."""

    def __init__(self, segments: Index, batch_size: int, *, shuffle: bool, seed: int) -> None:
        super().__init__(shuffle=shuffle, seed=seed)
        self.segments = segments
        self.batch_size = batch_size

    def __call__(self) -> list[Index]:
        """The stretches of each batch of the reading that is the current epoch's."""
        return self.of(self.epoch)

    def of(self, reading: int) -> list[Index]:
        """The stretches of each batch when the split is read for the `reading`-th time, from 0 on."""
        rng = np.random.default_rng((self.seed, reading))
        order = rng.permutation(len(self.segments)) if self.shuffle else np.arange(len(self.segments))
        order = order[np.argsort(self.segments[order], kind="stable")]
        batches = [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))] if self.shuffle else batches


class StreamLoader(Loader[StretchOrder, Segment, StreamBatch]):
    """Batches of stretches, each given as its segments from first to last; every stretch once an epoch.

    The stretches of a batch have about the same number of segments. A shorter one's last windows are padding. Epochs of
    fewer batches go on where the one before stopped, in the middle of a stretch too: a chromosome may be longer than
    any epoch.

    Args:
        corpus: what is read.
        stretches: its parts.
        segment: L, bases of a segment.
        batch_size: B, stretches read side by side.
        left, right: bases of the stretch that a window shows before and after its segment.
        multiple: the length of every segment is a multiple of this, `segment` too.
        shuffle: a new order every epoch.
        both_strands: show half of the stretches, another half every epoch, as their reverse complements.
        seed: of order and strands.
        shard: see `Loader`.
        epoch_batches: the most segments of an epoch; 0 reads all in each.
    """

    def __init__(
        self,
        corpus: Corpus,
        stretches: Streams,
        segment: int,
        batch_size: int,
        *,
        left: int = 0,
        right: int = 0,
        multiple: int = 1,
        shuffle: bool = False,
        both_strands: bool = False,
        seed: int = 0,
        shard: ProcessShard = ALONE,
        epoch_batches: int = 0,
    ) -> None:
        assert segment % multiple == 0, (segment, multiple)
        super().__init__(StretchOrder(-(-stretches.lengths // segment), batch_size, shuffle=shuffle, seed=seed), shard)
        self.corpus = corpus
        self.stretches = stretches
        self.segment = segment
        self.left = left
        self.right = right
        self.multiple = multiple
        self.both_strands = both_strands
        self.epoch_batches = epoch_batches

    def plan(self) -> list[Segment]:
        """The segments of the first stretches, then of the next: as many as the longest of all processes needs."""
        epoch, most = self.sampler.epoch, self.epoch_batches
        whole = self._reading(epoch)
        if not 0 < most < len(whole):
            return whole
        # Every reading has as many segments: the lengths of the stretches in its batches do not depend on the order.
        reading, first = divmod(epoch * most, len(whole))
        segments = self._reading(reading)[first : first + most]
        return segments + self._reading(reading + 1)[: most - len(segments)]

    def _reading(self, reading: int) -> list[Segment]:
        batches = self.sampler.of(reading)
        parts = (self.shard.of_batch(rows, even=self.sampler.shuffle) for rows in batches)
        counts = (int(self.sampler.segments[rows].max()) for rows in batches)
        read = ((part, count) for part, count in zip(parts, counts, strict=True) if len(part))
        return [Segment(part, number, number == count - 1, reading) for part, count in read for number in range(count)]

    def batch(self, part: Segment) -> StreamBatch:
        """A segment, as the current epoch shows its stretches."""
        rows, number, last, reading = part
        lengths = self.stretches.lengths[rows]
        first = number * self.segment
        # Where other processes' stretches of this batch are longer, nothing but padding is left here.
        longest = max(1, int(lengths.max()) - first)
        length = min(self.segment, -(-longest // self.multiple) * self.multiple)
        mirrored = np.zeros(len(rows), dtype=np.bool_)
        if self.both_strands:
            mirrored = draw_reverse_complements(rows, seed=self.sampler.seed, epoch=reading)
        bases = np.full((len(rows), self.left + length + self.right), PAD_TOKEN, dtype=np.int64)
        for lane, row in enumerate(rows.tolist()):
            begin = max(0, first - self.left)
            end = min(first + length + self.right, int(lengths[lane]))
            if begin < end:
                place = begin - (first - self.left)
                bases[lane, place : place + end - begin] = self._read(row, begin, end, bool(mirrored[lane]))
        tokens = torch.from_numpy(bases)
        return StreamBatch(tokens, tokens != PAD_TOKEN, self.left, length, number, last)

    def _read(self, row: int, begin: int, end: int, mirrored: bool) -> NDArray[np.uint8]:
        """Bases of a stretch, or of its reverse complement, from its own start on."""
        record, start, stop = (int(column[row]) for column in self.stretches)
        if not mirrored:
            return self.corpus.read(record, start + begin, start + end)
        return reverse_complement(self.corpus.read(record, stop - end, stop - begin))
