"""Length-bucketed batches: every row once, little padding, and reproducible, resumable order and strands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.dna.augmentation import draw_reverse_complements
from datamodules.dna.classification.bucketing import SequenceLoader
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import decode
from tests.datamodules.dna.dna_reference import place, random_dna, slow_reverse_complement
from titans_seq.batch import SequenceBatch


def some_rows(count: int, longest: int = 90) -> Examples:
    lengths = np.random.default_rng(1).integers(1, longest, count)
    return Examples(Sequences.read(random_dna(lengths), place), np.arange(count) % 3)


def order(loader: SequenceLoader, epoch: int = 0) -> list[list[int]]:
    loader.sampler.set_epoch(epoch)
    return [batch.rows.tolist() for batch in loader]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_every_row_occurs_once_with_its_own_bases_and_label(batch_size: int, shuffle: bool) -> None:
    rows = some_rows(100)
    texts = rows.sequences.texts()
    loader = SequenceLoader(rows, batch_size, shuffle=shuffle, seed=3)
    seen = []
    for batch in loader:
        assert batch.tokens.dtype == torch.int64
        for tokens, mask, label, row in zip(*batch, strict=True):
            assert decode(tokens.numpy().astype(np.uint8)) == texts[row]
            assert mask.sum() == len(texts[row])
            assert label == rows.labels[row]
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(100))
    assert len(loader) == -(-100 // batch_size) == len(order(loader))


def test_batches_have_similar_lengths_and_random_order() -> None:
    rows = some_rows(2000, longest=600)
    loader = SequenceLoader(rows, 16, shuffle=True)
    bases = rows.sequences.lengths.sum()
    cells = sum(batch.tokens.numel() for batch in loader)
    assert cells / bases < 1.05, "padding exceeds 5 % of the bases"
    widths = [batch.tokens.shape[1] for batch in loader]
    # In sorted order neighbours would have similar widths; in random order they differ as much as any two batches.
    neighbours = np.abs(np.diff(widths)).mean()
    assert neighbours > 0.8 * np.abs(np.subtract.outer(widths, widths)).mean()


def test_unshuffled_rows_are_sorted_by_length_then_row() -> None:
    rows = some_rows(60, longest=10)
    flat = [row for batch in order(SequenceLoader(rows, 8)) for row in batch]
    assert flat == sorted(range(60), key=lambda row: (rows.sequences.lengths[row], row))


def test_order_depends_on_seed_and_epoch_only() -> None:
    rows = some_rows(100)
    orders = {(s, e): order(SequenceLoader(rows, 8, shuffle=True, seed=s), e) for s in (0, 1) for e in (0, 1, 2)}
    assert len({str(each) for each in orders.values()}) == 6, "two seeds or epochs have the same order"
    np.random.seed(0)  # the global generators must not matter
    torch.rand(3)
    assert all(order(SequenceLoader(rows, 8, shuffle=True, seed=s), e) == each for (s, e), each in orders.items())


def test_longer_sequences_are_cut_before_bucketing() -> None:
    rows = some_rows(300, longest=400)
    loader = SequenceLoader(rows, 8, max_length=50, shuffle=True, seed=2)
    texts = rows.sequences.texts()
    for batch in loader:
        assert batch.tokens.shape[1] <= 50
        assert decode(batch.tokens[0].numpy().astype(np.uint8)) == texts[batch.rows[0]][:50]


def test_strand_draws_are_fair_and_depend_on_seed_epoch_and_row_only() -> None:
    rows = np.arange(40_000)
    flips = {(s, e): draw_reverse_complements(rows, seed=s, epoch=e) for s in (0, 1) for e in (0, 1, 7)}
    for key, each in flips.items():
        assert abs(each.mean() - 0.5) < 0.015, key
        assert abs(np.corrcoef(each[1:], each[:-1])[0, 1]) < 0.025, "draws of neighbouring rows are correlated"
        assert (draw_reverse_complements(rows[::-7], seed=key[0], epoch=key[1]) == each[::-7]).all(), (
            "the draw of a row depends on the other rows"
        )
        for other, theirs in flips.items():
            assert other == key or abs((each == theirs).mean() - 0.5) < 0.015, (
                "draws of two epochs or seeds are correlated"
            )


def test_half_of_an_epoch_is_reverse_complemented() -> None:
    rows = some_rows(400)
    loader = SequenceLoader(rows, 16, shuffle=True, both_strands=True, padding="left", seed=5)
    loader.sampler.set_epoch(2)
    texts, flipped = rows.sequences.texts(), draw_reverse_complements(np.arange(400), seed=5, epoch=2)
    for batch in loader:
        for tokens, row in zip(batch.tokens, batch.rows, strict=True):
            expected = slow_reverse_complement(texts[row]) if flipped[row] else texts[row]
            assert decode(tokens.numpy().astype(np.uint8)) == expected
    assert 150 < flipped.sum() < 250


@pytest.mark.parametrize("stop", [0, 1, 5, 12, 13])
def test_loader_resumes_where_it_stopped(stop: int) -> None:
    whole = order(SequenceLoader(some_rows(100), 8, shuffle=True, both_strands=True), epoch=4)  # 13 batches
    loader = SequenceLoader(some_rows(100), 8, shuffle=True, both_strands=True)
    loader.sampler.set_epoch(4)
    batches = iter(loader)
    for _ in range(stop):
        next(batches)
    state = loader.state_dict()
    assert state == {"epoch": 4, "batches": stop}

    resumed = SequenceLoader(some_rows(100), 8, shuffle=True, both_strands=True)
    resumed.load_state_dict(state)
    rest = order(resumed, epoch=4)
    assert rest == (whole[stop:] if stop < 13 else whole)
    assert order(resumed, epoch=4) == whole, "the epoch after the resumed one must be complete"


def test_state_of_another_epoch_is_ignored() -> None:
    loader = SequenceLoader(some_rows(100), 8, shuffle=True)
    loader.load_state_dict({"epoch": 4, "batches": 5})
    assert len(order(loader, epoch=5)) == 13


class Recorder(LightningModule):
    """Records the batches of `training_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, list[int], list[list[int]]]] = []
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> torch.Tensor:
        self.batches.append((self.current_epoch, batch.rows.tolist(), batch.tokens.tolist()))
        return self.weight * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def fit(steps: int, resume: Path | None = None) -> Recorder:
        recorder = Recorder()
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(max_steps=steps, accelerator="cpu", enable_checkpointing=False, callbacks=[Save()], **quiet)
        loader = SequenceLoader(some_rows(100), 8, shuffle=True, both_strands=True, seed=9)
        trainer.fit(recorder, loader, ckpt_path=resume, weights_only=True)
        return recorder

    whole = fit(30).batches  # two epochs of 13 batches, and four batches of the third
    assert [epoch for epoch, *_ in whole] == [0] * 13 + [1] * 13 + [2] * 4
    for step in (1, 13, 18):  # 13: the last batch of an epoch
        assert fit(30, tmp_path / f"{step}.ckpt").batches == whole[step:]
