"""Data module for pre-training: a corpus, its three splits, and streams of it read one segment at a time."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule

from datamodules.common.digest import hash_arrays
from datamodules.common.loading import shard_of
from datamodules.common.splitting import SPLITS, Split, held_out_split, stratified_split
from datamodules.dna.pretraining.corpus import Corpus
from datamodules.dna.pretraining.streams import StreamLoader, Streams
from titans_seq.batch import BASES
from titans_seq.errors import InputError

HoldoutUnit = Literal["record", "end"]
_N = BASES.index("N")
_PIECE = 1 << 20  # bases checked at a time


def split_corpus(
    corpus: Corpus,
    *,
    unit: HoldoutUnit = "record",
    fraction: float = 0.05,
    validation_records: Sequence[str] = (),
    test_records: Sequence[str] = (),
    seed: int = 0,
    context_only: int = 0,
) -> dict[Split, Streams]:
    """Split the bases of a corpus.

    Args:
        corpus: the corpus to split.
        unit: "record" holds out whole records: the named ones, or a random share. "end" holds out the last bases of
            every record for test, and the ones before them for validation.
        fraction: the share of the records, or of every record's bases, for each of validation and test.
        validation_records, test_records: names, such as chromosomes; set both or none.
        seed: of the random choice.
        context_only: bases at the start of a stream that carry no loss.

    Raises InputError if a split would be empty, or have no target base but N.
    """
    records = np.arange(len(corpus.names))
    if unit == "end":
        held = np.maximum(1, np.round(corpus.lengths * fraction).astype(np.int64))
        if (corpus.lengths <= 2 * held).any():
            short = int((corpus.lengths <= 2 * held).argmax())
            raise InputError(
                f"{corpus.name}: record {corpus.names[short]!r} has {corpus.lengths[short]} bases, too few to "
                f"hold out two ends of data.fraction={fraction}; use a smaller one"
            )
        edges = [np.zeros_like(held), corpus.lengths - 2 * held, corpus.lengths - held, corpus.lengths]
        return _checked_splits(corpus, [Streams(records, *edges[i : i + 2]) for i in range(3)], context_only)
    if validation_records or test_records:
        missing = [key for key, names in (("validation", validation_records), ("test", test_records)) if not names]
        if missing:
            raise InputError(f"{corpus.name}: set data.{missing[0]}_records too: hold out both by name, or neither")
        parts = held_out_split(np.array(corpus.names, dtype=np.str_), [validation_records, test_records], kind="record")
    elif len(records) < 3:
        raise InputError(
            f"{corpus.name}: {len(records)} records are too few to hold out whole ones; set data.unit=end to hold "
            "out the ends of each"
        )
    else:
        shares = (1 - 2 * fraction, fraction, fraction)
        try:
            parts = stratified_split(np.zeros(len(records), dtype=np.int64), shares, seed=seed)
        except InputError:
            raise InputError(
                f"{corpus.name}: {len(records)} records are too few to hold out data.fraction={fraction} of them "
                "twice; name some in data.validation_records and data.test_records, or set data.unit=end to hold out "
                "the ends of each"
            ) from None
    whole = [Streams(part, np.zeros_like(part), corpus.lengths[part]) for part in parts]
    return _checked_splits(corpus, whole, context_only)


def _checked_splits(corpus: Corpus, parts: Sequence[Streams], context_only: int) -> dict[Split, Streams]:
    """Return the splits by name, each checked to have a target base other than N.

    Unplaced scaffolds and the ends of chromosomes may be all N, or very short.
    """
    for split, part in zip(SPLITS, parts, strict=True):
        targets = Streams(*(column[part.lengths > context_only] for column in part))
        targets = targets._replace(starts=targets.starts + context_only)
        pieces = zip(*(column.tolist() for column in targets.cut(_PIECE)), strict=True)
        if not any((corpus.read(*piece) != _N).any() for piece in pieces):
            first = corpus.names[int(part.records[0])]
            what = f"every base after the first {context_only} of each stream" if context_only else "every base"
            raise InputError(
                f"{corpus.name}: {split}: {what} is N{', or there is none' if context_only else ''}, in "
                f"{len(part.records)} streams, the first of record {first!r}. Change data.unit, data.fraction, or "
                "data.validation_records and data.test_records"
            )
    return dict(zip(SPLITS, parts, strict=True))


class PretrainingDataModule(LightningDataModule):
    """Segments of the streams of a corpus; see `StreamLoader`.

    Args:
        corpus: function that reads the corpus; called once.
        split: function that splits it; see `split_corpus`.
        segment: bases of a segment.
        stream_length: maximum number of bases of a stream; None reads whole records.
        batch_size: streams read side by side.
        left, right, multiple: see `StreamLoader`.
        both_strands: train on reverse complements too.
        seed: of the order and the strands in which an epoch shows the training streams.
        epoch_batches: see `StreamLoader`; of training.
    """

    corpus: Corpus
    splits: dict[Split, Streams]

    def __init__(
        self,
        corpus: Callable[[], Corpus],
        split: Callable[[Corpus], dict[Split, Streams]],
        *,
        segment: int,
        stream_length: int | None,
        batch_size: int,
        left: int = 0,
        right: int = 0,
        multiple: int = 1,
        both_strands: bool = False,
        seed: int = 0,
        epoch_batches: int = 0,
    ) -> None:
        super().__init__()
        self._open = corpus
        self._split = split
        self.segment = segment
        self.stream_length = stream_length
        self.batch_size = batch_size
        self.left = left
        self.right = right
        self.multiple = multiple
        self.both_strands = both_strands
        self.seed = seed
        self.epoch_batches = epoch_batches
        self._is_set_up = False

    def setup(self, stage: str | None = None) -> None:
        """Read or map the corpus once and split it."""
        if self._is_set_up:
            return
        self.corpus = self._open()
        self.splits = {split: part.cut(self.stream_length) for split, part in self._split(self.corpus).items()}
        self._is_set_up = True

    def bases(self, split: Split) -> int:
        """Number of bases of a split."""
        return int(self.splits[split].lengths.sum())

    def train_dataloader(self) -> StreamLoader:
        """Training streams in a new order every epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> StreamLoader:
        """Validation streams by length."""
        return self._loader("validation")

    def test_dataloader(self) -> StreamLoader:
        """Test streams by length."""
        return self._loader("test")

    def predict_dataloader(self) -> StreamLoader:
        """Test streams, whose bases `Trainer.predict` predicts."""
        return self.test_dataloader()

    def _loader(self, split: Split, *, shuffle: bool = False) -> StreamLoader:
        return StreamLoader(
            self.corpus,
            self.splits[split],
            self.segment,
            self.batch_size,
            left=self.left,
            right=self.right,
            multiple=self.multiple,
            shuffle=shuffle,
            both_strands=shuffle and self.both_strands,
            seed=self.seed,
            shard=shard_of(self.trainer),
            epoch_batches=self.epoch_batches if shuffle else 0,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Identity of the data: hashes of the corpus and of each split's streams."""
        digests = {split: hash_arrays(*self.splits[split]) for split in SPLITS}
        return {"name": self.corpus.name, "sha256": {"corpus": self.corpus.digest(), **digests}}
