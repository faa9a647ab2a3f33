"""Data module for labelled sequences: a source, its three splits, and length-bucketed batches."""

from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from datamodules.common.digest import hash_arrays, hash_files
from datamodules.common.loading import shard_of
from datamodules.common.messages import listed
from datamodules.common.splitting import Split
from datamodules.dna.classification.bucketing import SequenceLoader
from datamodules.dna.classification.holdout import Holdout, cut_splits
from datamodules.dna.classification.labelled import Examples, SequenceSource, Splits
from datamodules.dna.sequences import Side
from titans_seq.errors import InputError


class SequenceDataModule(LightningDataModule):
    """Padded batches of a source's sequences, with a validation split cut from the training rows if it has none.

    If the source has no test rows either, those are cut first, then the validation rows from the rest.

    Args:
        source: where the sequences come from.
        batch_size: sequences in a batch.
        max_length: bases kept of a longer sequence; None keeps all.
        padding: the padded side.
        both_strands: train on reverse complements too.
        holdout: how missing splits are cut.
        seed: of the order and the strands in which an epoch shows the training rows.
    """

    splits: Splits

    def __init__(
        self,
        source: SequenceSource,
        *,
        batch_size: int = 128,
        max_length: int | None = None,
        padding: Side = "right",
        both_strands: bool = False,
        holdout: Holdout | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.max_length = max_length
        self.padding: Side = padding
        self.both_strands = both_strands
        self.holdout = holdout or Holdout()
        self.seed = seed
        self._is_set_up = False

    def prepare_data(self) -> None:
        """Download missing files."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Read the sequences once and cut the splits."""
        if self._is_set_up:
            return
        self.splits = cut_splits(self.source.load(), self.holdout)
        self._check_classes()
        self._is_set_up = True

    def _check_classes(self) -> None:
        """Raise InputError if a held-out split lacks a class: MCC and areas under curves are then undefined."""
        held_out: dict[Split, Examples | None] = {"validation": self.splits.validation, "test": self.splits.test}
        for split, rows in held_out.items():
            assert rows is not None
            absent = sorted(set(range(len(self.class_names))) - set(np.unique(rows.labels).tolist()))
            if absent:
                names = listed(self.class_names[number] for number in absent)
                raise InputError(
                    f"{self.splits.name}: none of the {len(rows):,} {split} rows is of class {names}: MCC, AUROC and "
                    "AUPRC are undefined there. Hold out other or more rows, or remove the class."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self.splits.classes.names

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Number of training rows of each class, (K,)."""
        return np.bincount(self.splits.train.labels, minlength=len(self.class_names))

    def rows(self, split: Split) -> Examples:
        """Rows of a split."""
        rows = {"train": self.splits.train, "validation": self.splits.validation, "test": self.splits.test}[split]
        assert rows is not None, "setup has not run"
        return rows

    def train_dataloader(self) -> SequenceLoader:
        """Training rows in a new order every epoch."""
        return self._loader("train", shuffle=True, both_strands=self.both_strands)

    def val_dataloader(self) -> SequenceLoader:
        """Validation rows by length."""
        return self._loader("validation")

    def test_dataloader(self) -> SequenceLoader:
        """Test rows by length."""
        return self._loader("test")

    def predict_dataloader(self) -> SequenceLoader:
        """Test rows, which `Trainer.predict` classifies."""
        return self.test_dataloader()

    def _loader(self, split: Split, *, shuffle: bool = False, both_strands: bool = False) -> SequenceLoader:
        return SequenceLoader(
            self.rows(split),
            self.batch_size,
            max_length=self.max_length,
            padding=self.padding,
            shuffle=shuffle,
            both_strands=both_strands,
            seed=self.seed,
            shard=shard_of(self.trainer),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Identity of the data: hashes of the files and of each split's sequences and labels."""
        splits: dict[Split, Examples] = {each: self.rows(each) for each in ("train", "validation", "test")}
        return {
            "name": self.splits.name,
            "classes": list(self.class_names),
            "rows": {split: len(rows) for split, rows in splits.items()},
            "sha256": {
                split: hash_arrays(rows.sequences.tokens, rows.sequences.lengths, rows.labels)
                for split, rows in splits.items()
            },
            "files": hash_files(self.splits.files),
        }
