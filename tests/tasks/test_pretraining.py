"""The pre-training task: every target counts once, no score depends on its target, memory is carried exactly."""

from collections.abc import Iterator
from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datamodules.dna.pretraining.corpus import LoadedCorpus
from datamodules.dna.pretraining.streams import StreamLoader, Streams
from datamodules.dna.sequences import Sequences
from tests.datamodules.dna.dna_reference import place, random_dna
from tests.helpers import VARIANTS, for_variant
from titans_seq.backbone import state_named_tensors
from titans_seq.batch import MASK_TOKEN, StreamBatch
from titans_seq.config import load_config, to_container
from titans_seq.tasks import PretrainingTask

SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "model.attention.num_heads=2"]
SMALL += ["model.attention.window=4", "model.segment_length=5", "model.memory.chunk_size=4", "model.num_persistent=1"]
SMALL += ["task.name=pretraining", "data.segment=12", "model.dropout=0", "model.head_dropout=0"]
STEMS = [(1, 1, "none"), (5, 1, "none"), (4, 3, "none"), (6, 4, "max"), (1, 2, "max")]
# Every stem with one variant, every variant with one stem.
CASES = [("lmm", stem) for stem in STEMS] + [(variant, (6, 4, "max")) for variant in VARIANTS if variant != "lmm"]
TEXTS = random_dna([24, 31, 37], letters="ACGTN")  # sorted by length, like the lanes of a batch


def make(*overrides: str, next_base: bool = True, stem: tuple[int, int, str] = (1, 1, "none")) -> PretrainingTask:
    torch.manual_seed(0)
    objective = ["model.direction=forward"] if next_base else ["task.objective=masked", "data.stream_length=12"]
    width, stride, pool = stem
    shape = [f"model.stem_width={width}", f"model.stride={stride}", f"model.stem_pool={pool}"]
    task = PretrainingTask(to_container(load_config([], for_variant([*SMALL, *objective, *shape, *overrides]))))
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    return task.double().eval()


def segments(task: PretrainingTask, segment: int = 12, texts: list[str] = TEXTS, **changes: Any) -> StreamLoader:
    corpus = LoadedCorpus("mine", Sequences.read(texts, place))
    records = np.arange(len(texts))
    stem, stride = task.model.stem, task.model.stem.stride
    context = {"left": -(-stem.before // stride) * stride, "right": stem.after + 1} if task.next else {}
    streams = Streams(records, np.zeros_like(records), corpus.lengths)
    return StreamLoader(corpus, streams, segment, len(texts), multiple=stride, **context, **changes)


def outputs(task: PretrainingTask, batches: Iterator[StreamBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and targets of all segments, concatenated along the sequence."""
    parts = [task._read("val", batch, 0) for batch in batches]
    scores, targets = zip(*parts, strict=True)
    return torch.cat(scores, dim=1), torch.cat(targets, dim=1)


@pytest.mark.parametrize("stem", STEMS)
def test_every_base_after_the_context_is_a_target_once(stem: tuple[int, int, str]) -> None:
    task = make(stem=stem)
    _, targets = outputs(task, iter(segments(task)))
    skipped = task.model.stem.after + 1
    order = segments(task).sampler()[0].tolist()  # lanes are sorted by their number of segments
    for lane, row in enumerate(order):
        is_target = [int(t) for t in targets[lane] if t >= 0]
        assert is_target == ["ACGT".index(letter) for letter in TEXTS[row][skipped:] if letter != "N"]


@pytest.mark.parametrize(("variant", "stem"), CASES)
def test_scores_depend_on_earlier_bases_only(variant: str, stem: tuple[int, int, str]) -> None:
    text = random_dna([24], seed=5)[0]
    task = make(f"model.variant={variant}", stem=stem)
    skipped = task.model.stem.after + 1
    before, _ = outputs(task, iter(segments(task, texts=[text])))
    reached = set()
    for base in range(24):
        changed = text[:base] + "ACGT"["CGTA".index(text[base])] + text[base + 1 :]
        after, _ = outputs(task, iter(segments(task, texts=[changed])))
        differs = torch.where((after != before)[0].any(dim=1))[0] + skipped
        assert not len(differs) or int(differs[0]) > base, (base, differs[:3])
        reached |= {int(target) for target in differs}
    assert reached >= set(range(skipped, 24)), "every score after the context must depend on some base"


@pytest.mark.parametrize(("variant", "stem"), CASES)
def test_segments_with_carried_memory_equal_the_whole_stream(variant: str, stem: tuple[int, int, str]) -> None:
    task = make(f"model.variant={variant}", stem=stem)
    whole, _ = outputs(task, iter(segments(task, segment=48)))
    pieces, targets = outputs(task, iter(segments(task, segment=12)))
    is_target = targets >= 0
    count = min(whole.shape[1], pieces.shape[1])
    difference = (whole[:, :count] - pieces[:, :count])[is_target[:, :count]].abs().max()
    assert difference < 1e-10
    assert not task._streams, "no state may be kept after the streams end"
    fresh = torch.cat([task.model(b.bases, b.mask, left=b.left, length=b.length)[0] for b in segments(task)], dim=1)
    assert (fresh - pieces)[is_target].abs().max() > 1e-4, "carried memory must change the scores"


def test_carried_memory_is_detached() -> None:
    task = make("model.variant=lmm")
    first, second = list(segments(task))[:2]
    task.training_step(first, 0)
    assert all(not x.requires_grad for x in state_named_tensors(task._streams["train"]).values())
    found = task.training_step(second, 1)
    assert float(found.detach()) > 0
    found.backward()
    assert task.model.head.weight.grad is not None


def test_a_checkpoint_keeps_the_streams() -> None:
    task, other = make("model.variant=mal"), make("model.variant=mal")
    first, second = list(segments(task))[:2]
    task.training_step(first, 0)
    other.set_process_state(task.process_state())
    torch.testing.assert_close(other.training_step(second, 1), task.training_step(second, 1), rtol=0, atol=0)
    assert make().process_state() == {}


def read_streams(task: PretrainingTask) -> list[torch.Tensor]:
    return [task.training_step(batch, number) for number, batch in enumerate(segments(task))]


def test_passed_states_start_the_next_training_streams() -> None:
    task, fresh = make("model.variant=mal", "task.state_passing=1"), make("model.variant=mal")
    torch.testing.assert_close(read_streams(task), read_streams(fresh), rtol=0, atol=0)  # nothing to pass yet
    assert task._ended is not None
    rows, state = task._ended
    assert rows == len(TEXTS)
    assert all(not x.requires_grad for x in state_named_tensors(state).values())

    first = next(iter(segments(task)))
    scores, _ = task._read("train", first, None)
    torch.testing.assert_close(scores, task(first, state)[0], rtol=0, atol=0)
    assert (scores - task(first)[0]).abs().max() > 1e-4
    torch.testing.assert_close(task._read("val", first, 0)[0], task(first)[0], rtol=0, atol=0)

    alone = next(iter(segments(task, texts=TEXTS[:1])))  # one stream after three
    torch.testing.assert_close(task._read("train", alone, None)[0], task(alone)[0], rtol=0, atol=0)


def test_states_are_passed_with_the_given_probability() -> None:
    task = make("model.variant=lmm", "task.state_passing=0.25")
    read_streams(task)
    torch.manual_seed(0)
    passed = [task._passed("train", len(TEXTS)) is not None for _ in range(400)]
    assert sum(passed) == pytest.approx(100, abs=30)


def test_a_checkpoint_keeps_passed_states() -> None:
    task, other = (make("model.variant=mal", "task.state_passing=1") for _ in range(2))
    read_streams(task)
    other.set_process_state(task.process_state())
    torch.testing.assert_close(read_streams(other), read_streams(task), rtol=0, atol=0)
    first = next(iter(segments(task)))
    task.training_step(first, 0)  # one stream open, one ended
    other.set_process_state(task.process_state())
    torch.testing.assert_close(read_streams(other)[1:], read_streams(task)[1:], rtol=0, atol=0)


@pytest.mark.parametrize("stem", STEMS)
def test_masked_bases_do_not_affect_the_scores(stem: tuple[int, int, str]) -> None:
    task = make("task.masked_share=0.3", next_base=False, stem=stem)
    text = random_dna([12] * 200, seed=6)
    (batch,) = segments(task, texts=text)
    targets = task.targets(batch)
    shown, is_target = task._mask_bases(batch.bases, targets, seed=3)
    chosen = is_target >= 0
    assert 0.25 < chosen.float().mean() < 0.35
    assert (shown == batch.bases)[~chosen].all()
    assert (is_target == batch.bases)[chosen].all()
    kinds = shown[chosen]
    assert (kinds == MASK_TOKEN).float().mean() == pytest.approx(0.8, abs=0.07)
    # 10 % are replaced by random bases, a quarter of which equal the original, and 10 % are kept.
    assert (kinds == batch.bases[chosen]).float().mean() == pytest.approx(0.125, abs=0.06)
    # The original base at a masked position must not affect any score.
    hidden = shown == MASK_TOKEN
    other = torch.where(hidden, (batch.bases + 1) % 4, batch.bases)
    again, _ = task._mask_bases(other, targets, seed=3)
    scores = [task(batch._replace(bases=b))[0] for b in (shown, torch.where(hidden, again, shown))]
    assert torch.equal(*scores)


def test_masks_are_the_same_in_every_validation() -> None:
    task = make(next_base=False)
    batch = next(iter(segments(task)))
    first, second = (task._read("val", batch, 7) for _ in range(2))
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], task._read("val", batch, 8)[1])
    torch.manual_seed(0)
    drawn = [task._read("train", batch, None)[1] for _ in range(2)]
    assert not torch.equal(*drawn)


def test_metrics_equal_a_computation_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make("model.variant=cnn", stem=(5, 1, "none"))
    logged: dict[str, float] = {}
    monkeypatch.setattr(task, "log_dict", lambda values, **_: logged.update({k: float(v) for k, v in values.items()}))
    for number, batch in enumerate(segments(task)):
        task.test_step(batch, number)
    task.on_test_epoch_end()
    scores, targets = outputs(task, iter(segments(task)))
    is_target = targets >= 0
    probability = F.softmax(scores[is_target], dim=1)[torch.arange(int(is_target.sum())), targets[is_target]]
    bits = -sum(log2(float(p)) for p in probability) / len(probability)
    assert logged["test/bits_per_base"] == pytest.approx(bits, rel=1e-5)
    assert logged["test/perplexity"] == pytest.approx(2**bits, rel=1e-5)
    hits = (scores[is_target].argmax(dim=1) == targets[is_target]).double().mean()
    assert logged["test/accuracy"] == pytest.approx(float(hits), rel=1e-5)
    total = sum(bits for bits, _ in task.bits_by_segment.values())
    assert total / sum(count for _, count in task.bits_by_segment.values()) == pytest.approx(bits, rel=1e-5)
    assert list(task.bits_by_segment) == [0, 1, 2]  # the longest, of 37 bases, has no target in its fourth segment
