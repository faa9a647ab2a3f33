"""Pre-training on unlabelled DNA: the next base, or hidden ones."""

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from titans_seq.backbone import Stack, state_named_tensors
from titans_seq.backbone.states import BlockState
from titans_seq.batch import MASK_TOKEN, StreamBatch
from titans_seq.errors import InputError
from titans_seq.models.language import NUM_BASES, SequenceLanguageModel
from titans_seq.schema import PretrainingConfig
from titans_seq.tasks.base import Task
from titans_seq.tasks.sequences import build_sequence_backbone

_NOTHING = -100  # a target that nobody is asked for
_SPLITS = {"val": "validation", "test": "test"}
_HIDDEN, _REPLACED = 0.8, 0.9  # of the chosen bases, the first share is hidden, what is between the two replaced


def build_language_model(config: PretrainingConfig) -> SequenceLanguageModel:
    """The model that a configuration describes, freshly initialised."""
    model = config.model
    return SequenceLanguageModel(
        build_sequence_backbone(model),
        dim=model.dim,
        stem_width=model.stem_width,
        stride=model.stride,
        stem_pool=model.stem_pool,
        dropout=model.head_dropout,
    )


class PretrainingTask(Task):
    """A `SequenceLanguageModel` with its loss (cross entropy), metrics and optimiser.

    Metrics are `<split>/bits_per_base`, `perplexity` (2 to that power) and `accuracy`, over the bases that were asked
    for, for the splits val and test. Segments of a stretch go on from the state that the one before left, cut from its
    graph.

    Args:
        config: see `Task`.
    """

    config: PretrainingConfig
    model: SequenceLanguageModel
    monitor = "val/bits_per_base"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.save_hyperparameters(logger=False)
        assert isinstance(self.config, PretrainingConfig)
        self.model = build_language_model(self.config)
        self.next = self.config.task.objective == "next"
        self.bits, self.hits = MeanMetric(), MeanMetric()  # of the split that is being measured
        self.bits_by_segment: dict[int, tuple[float, float]] = {}  # of the last test: sum of bits, and bases
        self._streams: dict[str, list[BlockState]] = {}  # of the stretches that are being read, by split

    def forward(self, batch: StreamBatch, state: list[BlockState] | None = None) -> tuple[Tensor, list[BlockState]]:
        """Scores (B, L, 4) of the bases that `targets` asks for, and the state that continues the stretches."""
        scores, after = self.model(batch.bases, batch.mask, state, left=batch.left, length=batch.length)
        return scores, after

    def targets(self, batch: StreamBatch) -> Tensor:
        """The base (B, L) that each of the model's scores is about; below 0 where there is none, or N."""
        first = batch.left + (self.model.stem.after + 1 if self.next else 0)
        places = slice(first, first + batch.length)
        asked = batch.bases[:, places]
        assert asked.shape[1] == batch.length, "a window that ends before what its segment is asked for"
        return asked.masked_fill(~batch.mask[:, places] | (asked >= NUM_BASES), _NOTHING)

    def training_step(self, batch: StreamBatch, batch_idx: int) -> Tensor:
        """The loss of a batch, in nats per base."""
        scores, targets = self._read("train", batch, None)
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=_NOTHING, reduction="sum")
        loss = loss / (targets >= 0).sum().clamp_min(1)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.bases))
        return loss

    def validation_step(self, batch: StreamBatch, batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self._measure("val", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics."""
        self._log_metrics("val")

    def on_test_start(self) -> None:
        """Forgets what an earlier test measured."""
        self.bits_by_segment.clear()

    def test_step(self, batch: StreamBatch, batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self._measure("test", batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._log_metrics("test")

    def process_state(self) -> dict[str, Tensor]:
        """The state of training stretches that are half read."""
        streams = self._streams.get("train")
        return {} if streams is None else {name: x.cpu() for name, x in state_named_tensors(streams).items()}

    def set_process_state(self, state: dict[str, Tensor]) -> None:
        """Goes on with the training stretches where they were."""
        if state:
            backbone = self.model.backbone
            assert isinstance(backbone, Stack), "only a forward stack carries a state"
            named = {name: x.to(self.device) for name, x in state.items()}
            self._streams["train"] = backbone.state_from_named_tensors(named)

    def _read(self, split: str, batch: StreamBatch, seed: int | None) -> tuple[Tensor, Tensor]:
        """Scores (B, L, 4) and targets (B, L); what is hidden is drawn from `seed`, None from torch's own generator."""
        targets = self.targets(batch)
        if not self.next:
            bases, targets = self._hide(batch.bases, targets, seed)
            return self(batch._replace(bases=bases))[0], targets
        scores, state = self(batch, self._streams.get(split) if batch.number else None)
        if batch.last:
            self._streams.pop(split, None)
        else:
            self._streams[split] = [block.detach() for block in state]
        return scores, targets

    def _hide(self, bases: Tensor, targets: Tensor, seed: int | None) -> tuple[Tensor, Tensor]:
        """Bases (B, L) with some of them hidden or replaced, and the targets (B, L) of those alone."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        drawn = [torch.rand(bases.shape, generator=generator).to(bases.device) for _ in range(2)]
        others = torch.randint(NUM_BASES, bases.shape, generator=generator).to(bases.device)
        chosen = (targets >= 0) & (drawn[0] < self.config.task.masked_share)
        shown = torch.where(drawn[1] < _HIDDEN, MASK_TOKEN, torch.where(drawn[1] < _REPLACED, others, bases))
        return torch.where(chosen, shown, bases), targets.masked_fill(~chosen, _NOTHING)

    def _measure(self, split: str, batch: StreamBatch, seed: int) -> None:
        scores, targets = self._read(split, batch, seed)
        asked = targets >= 0
        count = int(asked.sum())
        if not count:
            return
        bits = F.cross_entropy(scores[asked].float(), targets[asked]) / log(2)
        self.bits.update(bits, count)
        self.hits.update((scores[asked].argmax(dim=1) == targets[asked]).float().mean(), count)
        if split == "test":
            total, bases = self.bits_by_segment.get(batch.number, (0.0, 0.0))
            self.bits_by_segment[batch.number] = (total + float(bits) * count, bases + count)

    def _log_metrics(self, split: str) -> None:
        if not self.bits.update_called and self.trainer.world_size == 1:  # of several, others may have had some
            share = self.config.task.masked_share
            why = (
                "no stretch is longer than the stem sees at once"
                if self.next
                else f"task.masked_share={share} of so few bases hid none"
            )
            raise InputError(f"{_SPLITS[split]} bases: {why}; raise data.fraction or name longer records")
        bits = self.bits.compute()
        scores = {"bits_per_base": bits, "perplexity": 2**bits, "accuracy": self.hits.compute()}
        self.bits.reset()
        self.hits.reset()
        self.log_dict({f"{split}/{name}": value for name, value in scores.items()}, prog_bar=True)
