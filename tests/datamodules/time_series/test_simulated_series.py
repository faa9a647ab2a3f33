"""Batches of simulated series: new in every training epoch, the same in every validation, resumable, sharded."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.common.digest import hash_arrays
from datamodules.common.loading import ProcessShard
from datamodules.common.splitting import SPLITS, Split
from datamodules.time_series.simulated_series import LengthOrder, SimulatedDataModule, SimulatedLoader
from titans_seq.batch import SeriesBatch

LENGTHS = [48, 96, 144]


def module(**changes: Any) -> SimulatedDataModule:
    options: dict[str, Any] = {"batch_size": 2, "epoch_batches": 6, "held_out_batches": 2, "seed": 1, **changes}
    return SimulatedDataModule(options.pop("lengths", LENGTHS), options.pop("shares", None), **options)


def digests(loader: Iterable[SeriesBatch]) -> list[str]:
    return [hash_arrays(batch.values.numpy(), batch.period.numpy()) for batch in loader]


def epoch(number: int, split: Split = "train", **changes: Any) -> list[str]:
    loader = module(**changes).loader(split)
    loader.sampler.set_epoch(number)
    return digests(loader)


def test_batches_have_the_configured_sizes() -> None:
    data = module(epoch_batches=40)
    for split in SPLITS:
        loader = data.loader(split)
        batches = list(loader)
        assert len(batches) == len(loader) == (40 if split == "train" else 6)
        for batch in batches:
            series, length = batch.values.shape
            assert batch.values.dtype == torch.float32
            assert batch.period.dtype == torch.int64
            assert batch.period.shape == (series,)
            assert series * length == 2 * 144, "all batches have the same number of steps"
            assert not batch.values.isinf().any()
            assert (batch.values.isfinite().sum(dim=1) > 0.7 * length - 16).all()
        assert {batch.values.shape[1] for batch in batches} == set(LENGTHS)


def test_lengths_that_divide_nothing_fill_the_steps_as_far_as_they_go() -> None:
    batches = list(module(lengths=[80, 112, 256], batch_size=3).val_dataloader())
    assert [tuple(batch.values.shape) for batch in batches] == [(9, 80)] * 2 + [(6, 112)] * 2 + [(3, 256)] * 2


def test_series_start_anywhere_within_a_patch() -> None:
    values = torch.cat([batch.values for batch in module(lengths=[96], batch_size=400).val_dataloader()])
    first = values.isfinite().to(torch.int8).argmax(dim=1)
    counts = torch.bincount(first[first < 16], minlength=16)
    assert counts.min() > 20, "some first steps are rare"
    assert counts.sum() > 0.97 * len(first)


def test_lengths_are_drawn_by_their_shares() -> None:
    shares = [1.0, 0.0, 3.0]
    counts = Counter(LengthOrder(LENGTHS, shares, 4000, shuffle=True, seed=0)())
    assert counts[96] == 0
    assert counts[48] / 4000 == pytest.approx(0.25, abs=0.03)
    equal = Counter(LengthOrder(LENGTHS, None, 3000, shuffle=True, seed=0)())
    assert min(equal.values()) > 900
    assert Counter(LengthOrder(LENGTHS, shares, 5, shuffle=False, seed=0)()) == {48: 5, 96: 5, 144: 5}


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    assert epoch(3) == epoch(3)
    np.random.seed(0)  # the global generators must not matter
    torch.manual_seed(0)
    assert epoch(3) == epoch(3)
    assert not set(epoch(3)) & set(epoch(3, seed=2))


def test_every_batch_is_new_except_in_validation_and_test() -> None:
    made = [digest for number in range(3) for digest in epoch(number)]
    assert len(set(made)) == 18
    for split in ("validation", "test"):
        held_out = epoch(0, cast(Split, split))
        assert len(set(held_out)) == 6
        assert epoch(2, cast(Split, split)) == held_out
        assert epoch(0, cast(Split, split), seed=7) == held_out, "runs with other seeds are scored on other series"
        assert not set(held_out) & set(made)
    assert not set(epoch(0, "validation")) & set(epoch(0, "test"))


def test_splits_share_no_series() -> None:
    def series(split: Split) -> set[bytes]:
        batches = module(lengths=[48]).loader(split)
        return {row.numpy().tobytes() for batch in batches for row in batch.values}

    found = {split: series(split) for split in SPLITS}
    assert sum(map(len, found.values())) == len(set.union(*found.values()))


@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_loader_resumes_where_it_stopped(stop: int) -> None:
    loader = module().train_dataloader()
    loader.sampler.set_epoch(4)
    batches = iter(loader)
    for _ in range(stop):
        next(batches)
    state = loader.state_dict()
    assert state == {"epoch": 4, "batches": stop}
    resumed = module().train_dataloader()
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(4)
    whole = epoch(4)
    assert digests(resumed) == (whole[stop:] if stop < 6 else whole)
    assert digests(resumed) == whole


def shards(split: Split, world: int, **changes: Any) -> list[SimulatedLoader]:
    data = module(**changes)
    order = data.loader(split).sampler
    return [SimulatedLoader(order, ProcessShard(rank, world), split, data.batch_size) for rank in range(world)]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_make_different_series_of_the_same_batches(world: int) -> None:
    loaders = shards("train", world, batch_size=4, epoch_batches=8)
    alone = list(module(batch_size=4, epoch_batches=8).train_dataloader())
    rows: list[bytes] = []
    for whole, *parts in zip(alone, *loaders, strict=True):
        assert len({part.values.shape for part in parts}) == 1, "processes must average the same numbers of series"
        assert parts[0].values.shape[1] == whole.values.shape[1]
        assert sum(len(part.values) for part in parts) == len(whole.values) // world * world
        rows += [row.numpy().tobytes() for part in parts for row in part.values]
    assert len(set(rows)) == len(rows), "two processes made the same series"


def test_processes_take_the_same_number_of_training_steps() -> None:
    # Batches of 3 x 144 steps have 9, 4 and 3 series.
    loaders = shards("train", 2, batch_size=3, epoch_batches=30)
    plans = [loader.plan() for loader in loaders]
    assert [(part.series, part.length) for part in plans[0]] == [(part.series, part.length) for part in plans[1]]
    assert {part.series for part in plans[0]} == {4, 2, 1}


def test_processes_make_all_held_out_series() -> None:
    plans = [loader.plan() for loader in shards("test", 2, batch_size=3)]
    assert sum(part.series for plan in plans for part in plan) == 2 * (9 + 4 + 3)


def test_fingerprint_changes_with_what_is_made() -> None:
    first = module().fingerprint()
    assert first == module().fingerprint()
    assert module(seed=2).fingerprint() != first
    assert module(lengths=[48]).fingerprint() != first


class Recorder(LightningModule):
    """Records the batches of `training_step` and `validation_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, str]] = []
        self.validated: list[str] = []
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: SeriesBatch, batch_idx: int) -> torch.Tensor:
        self.batches.append((self.current_epoch, *digests([batch])))
        return self.weight * 0

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        self.validated += digests([batch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def fit(steps: int, resume: Path | None = None) -> Recorder:
        recorder = Recorder()
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        quiet |= {"num_sanity_val_steps": 0, "use_distributed_sampler": False}
        trainer = Trainer(max_steps=steps, accelerator="cpu", enable_checkpointing=False, callbacks=[Save()], **quiet)
        trainer.fit(recorder, module(), ckpt_path=resume, weights_only=True)
        return recorder

    whole = fit(14)  # two epochs of six batches, and two batches of the third
    assert whole.batches == [(number, digest) for number in range(3) for digest in epoch(number)][:14]
    assert whole.validated == 2 * epoch(0, "validation")
    for step in (2, 6, 9):  # 6: the last batch of an epoch
        assert fit(14, tmp_path / f"{step}.ckpt").batches == whole.batches[step:]
