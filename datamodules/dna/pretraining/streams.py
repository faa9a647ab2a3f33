"""Streams of unlabelled DNA, read side by side one segment at a time, so that a model carries its memory along."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.common.loading import ALONE, Loader, Order, ProcessShard
from datamodules.dna.augmentation import draw_reverse_complements
from datamodules.dna.pretraining.corpus import Corpus
from datamodules.dna.tokenizer import reverse_complement
from titans_seq.batch import PAD_TOKEN, StreamBatch

Integers = NDArray[np.int64]


class Streams(NamedTuple):
    """Contiguous ranges of bases of a corpus, (n,) each."""

    records: Integers
    starts: Integers
    ends: Integers

    @property
    def lengths(self) -> Integers:
        """Number of bases of each stream, (n,)."""
        return self.ends - self.starts

    def cut(self, longest: int | None) -> "Streams":
        """Cut into streams of at most `longest` bases; None leaves them whole."""
        if longest is None:
            return self
        pieces = -(-self.lengths // longest)
        which = np.repeat(np.arange(len(self.records)), pieces)
        number = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts = self.starts[which] + number * longest
        return Streams(self.records[which], starts, np.minimum(starts + longest, self.ends[which]))


class Segment(NamedTuple):
    """One segment of each of several streams that are read side by side."""

    rows: Integers  # the streams, (B,)
    number: int  # of the segment, from the start of each stream
    last: bool
    epoch_pass: int  # number of the pass over the whole split; order and strands depend on it


class StreamOrder(Order):
    """Batches of streams of an epoch; the streams of a batch have similar numbers of segments."""

    def __init__(self, segments: Integers, batch_size: int, *, shuffle: bool, seed: int) -> None:
        super().__init__(shuffle=shuffle, seed=seed)
        self.segments = segments
        self.batch_size = batch_size

    def __call__(self) -> list[Integers]:
        """Streams of each batch of the pass whose number is the current epoch."""
        return self.of(self.epoch)

    def of(self, epoch_pass: int) -> list[Integers]:
        """Streams of each batch of pass number `epoch_pass` over the split, from 0 on."""
        rng = np.random.default_rng((self.seed, epoch_pass))
        order = rng.permutation(len(self.segments)) if self.shuffle else np.arange(len(self.segments))
        order = order[np.argsort(self.segments[order], kind="stable")]
        batches = [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))] if self.shuffle else batches


class StreamLoader(Loader[StreamOrder, Segment, StreamBatch]):
    """Batches of streams, each given as its segments from first to last; every stream once per epoch.

    The streams of a batch have about the same number of segments. The last windows of a shorter one are padding. With
    `epoch_batches`, an epoch continues where the one before stopped, even in the middle of a stream: a chromosome may
    be longer than any epoch.

    Args:
        corpus: the corpus to read.
        streams: its ranges.
        segment: L, bases of a segment.
        batch_size: B, streams read side by side.
        left, right: bases of the stream that a window shows before and after its segment.
        multiple: the length of every segment is a multiple of this, `segment` too.
        shuffle: a new order every epoch.
        both_strands: show half of the streams, another half every epoch, as their reverse complements.
        seed: of order and strands.
        shard: see `Loader`.
        epoch_batches: maximum number of segments of an epoch; 0 reads all in each.
    """

    def __init__(
        self,
        corpus: Corpus,
        streams: Streams,
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
        super().__init__(StreamOrder(-(-streams.lengths // segment), batch_size, shuffle=shuffle, seed=seed), shard)
        self.corpus = corpus
        self.streams = streams
        self.segment = segment
        self.left = left
        self.right = right
        self.multiple = multiple
        self.both_strands = both_strands
        self.epoch_batches = epoch_batches

    def plan(self) -> list[Segment]:
        """Segments of one batch of streams after another, each as many as its longest stream in any process needs."""
        epoch, most = self.sampler.epoch, self.epoch_batches
        whole = self._pass_segments(epoch)
        if not 0 < most < len(whole):
            return whole
        # Every pass has the same number of segments: the stream lengths in its batches do not depend on the order.
        epoch_pass, first = divmod(epoch * most, len(whole))
        segments = self._pass_segments(epoch_pass)[first : first + most]
        return segments + self._pass_segments(epoch_pass + 1)[: most - len(segments)]

    def _pass_segments(self, epoch_pass: int) -> list[Segment]:
        batches = self.sampler.of(epoch_pass)
        parts = (self.shard.of_batch(rows, even=self.sampler.shuffle) for rows in batches)
        counts = (int(self.sampler.segments[rows].max()) for rows in batches)
        read = ((part, count) for part, count in zip(parts, counts, strict=True) if len(part))
        return [
            Segment(part, number, number == count - 1, epoch_pass) for part, count in read for number in range(count)
        ]

    def batch(self, part: Segment) -> StreamBatch:
        """Read a segment, on the strands that its pass draws."""
        rows, number, last, epoch_pass = part
        lengths = self.streams.lengths[rows]
        first = number * self.segment
        # If other processes have longer streams of this batch, only padding is left here.
        longest = max(1, int(lengths.max()) - first)
        length = min(self.segment, -(-longest // self.multiple) * self.multiple)
        reverse_complemented = np.zeros(len(rows), dtype=np.bool_)
        if self.both_strands:
            reverse_complemented = draw_reverse_complements(rows, seed=self.sampler.seed, epoch=epoch_pass)
        bases = np.full((len(rows), self.left + length + self.right), PAD_TOKEN, dtype=np.int64)
        for lane, row in enumerate(rows.tolist()):
            begin = max(0, first - self.left)
            end = min(first + length + self.right, int(lengths[lane]))
            if begin < end:
                offset = begin - (first - self.left)
                piece = self._read(row, begin, end, reverse=bool(reverse_complemented[lane]))
                bases[lane, offset : offset + end - begin] = piece
        tokens = torch.from_numpy(bases)
        return StreamBatch(tokens, tokens != PAD_TOKEN, self.left, length, number, last)

    def _read(self, row: int, begin: int, end: int, *, reverse: bool) -> NDArray[np.uint8]:
        """Read bases `begin` to `end` (excluded) of a stream, or of its reverse complement."""
        record, start, stop = (int(column[row]) for column in self.streams)
        if not reverse:
            return self.corpus.read(record, start + begin, start + end)
        return reverse_complement(self.corpus.read(record, stop - end, stop - begin))
