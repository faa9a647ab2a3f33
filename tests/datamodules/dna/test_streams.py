"""Streams and their segments: every base occurs once, with the requested context around it."""

import numpy as np
import pytest
import torch

from datamodules.common.loading import ProcessShard
from datamodules.dna.pretraining.corpus import LoadedCorpus
from datamodules.dna.pretraining.streams import Segment, StreamLoader, Streams
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import decode
from tests.datamodules.dna.dna_reference import place, random_dna, slow_reverse_complement
from titans_seq.batch import PAD_TOKEN, StreamBatch

TEXTS = random_dna([37, 5, 24, 61, 12, 8, 33], letters="ACGTN")
CORPUS = LoadedCorpus("mine", Sequences.read(TEXTS, place))
RECORDS = np.arange(len(TEXTS))
WHOLE = Streams(RECORDS, np.zeros_like(RECORDS), CORPUS.lengths)


def test_cutting_streams_loses_no_base() -> None:
    cut = WHOLE.cut(10)
    assert cut.lengths.max() == 10
    texts = [TEXTS[r][s:e] for r, s, e in zip(*map(np.ndarray.tolist, cut), strict=True)]
    assert "".join(texts) == "".join(TEXTS)
    assert WHOLE.cut(None) is WHOLE


def read(loader: StreamLoader) -> list[tuple[str, list[StreamBatch]]]:
    """For each stream of an epoch: its segments decoded and concatenated, and the batches they came from."""
    lanes: list[tuple[str, list[StreamBatch]]] = []
    current_batches: list[StreamBatch] = []
    for batch in loader:
        assert batch.number == len(current_batches)
        assert ((batch.bases == PAD_TOKEN) == ~batch.mask).all()
        current_batches.append(batch)
        if batch.last:
            for lane in range(len(batch.bases)):
                parts = [b.bases[lane, b.left : b.left + b.length].numpy().astype(np.uint8) for b in current_batches]
                lanes.append((decode(np.concatenate(parts)), current_batches))
            current_batches = []
    assert not current_batches
    return lanes


@pytest.mark.parametrize("segment", [4, 12, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_segments_of_an_epoch_are_the_streams(segment: int, shuffle: bool) -> None:
    loader = StreamLoader(CORPUS, WHOLE, segment, 3, multiple=4, shuffle=shuffle, left=4, right=3, seed=1)
    orders = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        lanes = read(loader)
        assert sorted(text for text, _ in lanes) == sorted(TEXTS)
        orders.append([text for text, _ in lanes])
        assert len(list(loader)) == len(loader), "len(loader) must be the number of batches"
        for _, batches in lanes:
            assert all(batch.length == segment for batch in batches[:-1])
            assert all(batch.length % 4 == 0 for batch in batches)
    assert (orders[0] != orders[1]) == shuffle


def test_window_contains_the_context_of_its_segment() -> None:
    loader = StreamLoader(CORPUS, WHOLE, 8, 1, left=5, right=3)
    seen = 0
    for rows in loader.sampler():
        (row,) = rows.tolist()
        for number in range(-(-len(TEXTS[row]) // 8)):
            batch = loader.batch(Segment(rows, number, last=False, epoch_pass=0))
            around = ["." if not 0 <= i < len(TEXTS[row]) else TEXTS[row][i] for i in range(number * 8 - 5, 300)]
            expected = "".join(around[: 5 + batch.length + 3])
            found = "".join(".ACGTN"[int(t) + 1 if t != PAD_TOKEN else 0] for t in batch.bases[0])
            assert found == expected
            seen += 1
    assert seen == len(loader)


def test_half_of_the_streams_are_reverse_complemented() -> None:
    texts = random_dna([30] * 40, seed=3)
    corpus = LoadedCorpus("many", Sequences.read(texts, place))
    records = np.arange(40)
    streams = Streams(records, np.zeros_like(records), corpus.lengths)
    loader = StreamLoader(corpus, streams, 10, 8, both_strands=True, shuffle=True)
    forward_texts = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        found = {text for text, _ in read(loader)}
        given = {text for text in texts if text in found}
        assert found - given == {slow_reverse_complement(text) for text in set(texts) - given}
        assert 10 <= len(given) <= 30
        forward_texts.append(given)
    assert forward_texts[0] != forward_texts[1]


def test_epoch_is_resumed_in_the_middle_of_a_stream() -> None:
    def make() -> StreamLoader:
        loader = StreamLoader(CORPUS, WHOLE, 8, 3, shuffle=True, both_strands=True, seed=2)
        loader.sampler.set_epoch(1)
        return loader

    whole, first = list(make()), make()
    for given, _ in enumerate(first, 1):
        if given == 5:
            break
    second = make()
    second.load_state_dict(first.state_dict())
    rest = list(second)
    assert len(rest) == len(whole) - 5
    for found, expected in zip(rest, whole[5:], strict=True):
        assert (found.bases == expected.bases).all()
        assert found[2:] == expected[2:]
    assert len(list(second)) == len(whole), "the state must apply to one epoch only"


@pytest.mark.parametrize("most", [1, 4, 7, 1000])
def test_short_epochs_continue_where_the_previous_one_stopped(most: int) -> None:
    def make(epoch: int, epoch_batches: int) -> StreamLoader:
        loader = StreamLoader(CORPUS, WHOLE, 8, 3, shuffle=True, both_strands=True, seed=2, epoch_batches=epoch_batches)
        loader.sampler.set_epoch(epoch)
        return loader

    whole = [batch for epoch in range(3) for batch in make(epoch, 0)]
    size = min(most, len(whole) // 3)
    short = [batch for epoch in range(len(whole) // size) for batch in make(epoch, most)]
    assert all(len(make(epoch, most)) == size for epoch in range(5))
    assert len(short) > len(whole) - size
    for found, expected in zip(short, whole, strict=False):
        assert torch.equal(found.bases, expected.bases)
        assert found[2:] == expected[2:]


def test_processes_share_every_batch_and_take_equally_many_steps() -> None:
    for shuffle in (True, False):
        loaders = [
            StreamLoader(CORPUS, WHOLE, 8, 3, shuffle=shuffle, seed=2, shard=ProcessShard(rank, 2)) for rank in range(2)
        ]
        found = [list(loader) for loader in loaders]
        assert [len(part) for part in found] == [len(loader) for loader in loaders]
        if shuffle:  # DDP deadlocks if the processes take different numbers of steps
            assert [(b.number, b.last) for b in found[0]] == [(b.number, b.last) for b in found[1]]
        else:
            assert sorted(text for loader in loaders for text, _ in read(loader)) == sorted(TEXTS)
