"""Lightning task of DNA pre-training: next-base or masked-base prediction."""

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from titans_seq.backbone import Stack, state_named_tensors
from titans_seq.backbone.states import BlockState, add_prefixes
from titans_seq.batch import MASK_TOKEN, StreamBatch
from titans_seq.errors import InputError
from titans_seq.models.language import NUM_BASES, SequenceLanguageModel
from titans_seq.schema import PretrainingConfig
from titans_seq.tasks.base import Task
from titans_seq.tasks.sequences import build_sequence_backbone

_IGNORE_INDEX = -100  # target of positions without a loss
_SPLITS = {"val": "validation", "test": "test"}
_MASKED, _REPLACED = 0.8, 0.9  # of the selected bases 80 % are masked, 10 % are replaced, 10 % are kept


def build_language_model(config: PretrainingConfig) -> SequenceLanguageModel:
    """Build the configured language model at initialisation."""
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

    Metrics are `<split>/bits_per_base`, `perplexity` (2 to that power) and `accuracy`, over the target
    bases, for the splits val and test. Each segment of a stream starts from the state after the previous segment,
    detached from its graph; with `task.state_passing` a training stream may start from the state after another stream.

    Args:
        config: see `Task`.
    """

    config: PretrainingConfig
    model: SequenceLanguageModel
    monitor = "val/bits_per_base"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.save_hyperparameters()
        assert isinstance(self.config, PretrainingConfig)
        self.model = build_language_model(self.config)
        self.next = self.config.task.objective == "next"
        self.bits, self.hits = MeanMetric(), MeanMetric()  # of the split being evaluated
        self.bits_by_segment: dict[int, tuple[float, float]] = {}  # of the last test: sum of bits, number of bases
        self._streams: dict[str, list[BlockState]] = {}  # states of the streams being read, by split
        self._ended: tuple[int, list[BlockState]] | None = None  # number and states of the last training streams

    def forward(self, batch: StreamBatch, state: list[BlockState] | None = None) -> tuple[Tensor, list[BlockState]]:
        """Return scores (B, L, 4) at the positions of `targets`, and the state for the next segment."""
        scores, after = self.model(batch.bases, batch.mask, state, left=batch.left, length=batch.length)
        return scores, after

    def targets(self, batch: StreamBatch) -> Tensor:
        """Return the target base (B, L) of each score; below 0 at padding and N."""
        first = batch.left + (self.model.stem.after + 1 if self.next else 0)
        positions = slice(first, first + batch.length)
        targets = batch.bases[:, positions]
        assert targets.shape[1] == batch.length, "the window ends before the targets of its segment"
        return targets.masked_fill(~batch.mask[:, positions] | (targets >= NUM_BASES), _IGNORE_INDEX)

    def as_batch(self, batch: Any, *, with_targets: bool = True) -> StreamBatch:
        """Return the batch, which must be a `StreamBatch`: only its loader knows how segments follow each other."""
        if not isinstance(batch, StreamBatch):
            raise InputError(
                f"{type(self).__name__}: a batch must be a titans_seq.batch.StreamBatch, as PretrainingDataModule "
                f"gives; got a {type(batch).__name__}"
            )
        return batch

    def training_step(self, batch: StreamBatch, batch_idx: int) -> Tensor:
        """Return the training loss of a batch, in nats per base."""
        scores, targets = self._read("train", batch, None)
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=_IGNORE_INDEX, reduction="sum")
        loss = loss / (targets >= 0).sum().clamp_min(1)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.bases))
        return loss

    def validation_step(self, batch: StreamBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._measure("val", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_metrics("val")

    def on_test_start(self) -> None:
        """Clear the results of an earlier test."""
        self.bits_by_segment.clear()

    def test_step(self, batch: StreamBatch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        self._measure("test", batch, batch_idx)

    def predict_step(self, batch: StreamBatch, batch_idx: int) -> Tensor:
        """Return scores (B, L, 4) of the four bases at the targets of a batch, none of which is masked."""
        state = self._streams.get("predict") if batch.number and self.next else None
        scores: Tensor
        scores, after = self(batch, state)
        if self.next:
            self._keep_state("predict", batch, after)
        return scores

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def process_state(self) -> dict[str, Tensor]:
        """Return the state of the training streams that are not read to their end, and of those read last."""
        streams = self._streams.get("train")
        named = {} if streams is None else state_named_tensors(streams)
        if self._ended is not None:
            rows, ended = self._ended
            named["ended.rows"] = torch.tensor(rows)
            named |= add_prefixes({"ended": state_named_tensors(ended)})
        return {name: x.cpu() for name, x in named.items()}

    def set_process_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the training streams."""
        if not state:
            return
        backbone = self.model.backbone
        assert isinstance(backbone, Stack), "only a forward stack carries a state"
        named = {name: x.to(self.device) for name, x in state.items()}
        ended = {name: named.pop(name) for name in list(named) if name.startswith("ended.")}
        if ended:
            rows = int(ended.pop("ended.rows"))
            states = {name.removeprefix("ended."): x for name, x in ended.items()}
            self._ended = rows, backbone.state_from_named_tensors(states)
        if named:
            self._streams["train"] = backbone.state_from_named_tensors(named)

    def _read(self, split: str, batch: StreamBatch, seed: int | None) -> tuple[Tensor, Tensor]:
        """Return scores (B, L, 4) and targets (B, L) of a batch.

        Masked positions are drawn from `seed`, or from torch's global generator if it is None.
        """
        targets = self.targets(batch)
        if not self.next:
            bases, targets = self._mask_bases(batch.bases, targets, seed)
            return self(batch._replace(bases=bases))[0], targets
        before = self._streams.get(split) if batch.number else self._passed(split, len(batch.bases))
        scores, after = self(batch, before)
        self._keep_state(split, batch, after)
        return scores, targets

    def _keep_state(self, split: str, batch: StreamBatch, state: list[BlockState]) -> None:
        """Keep the state after a batch for the next one of the same streams, or for streams that it is passed to."""
        detached = [block.detach() for block in state]
        if not batch.last:
            self._streams[split] = detached
            return
        self._streams.pop(split, None)
        if split == "train" and self.config.task.state_passing:
            self._ended = len(batch.bases), detached

    def _passed(self, split: str, rows: int) -> list[BlockState] | None:
        """Return the state that `rows` new streams start from: the last streams', or None, a fresh one.

        Evaluation always starts fresh, and so do streams that are more or fewer than the last ones.
        """
        share = self.config.task.state_passing
        if split != "train" or not share or float(torch.rand(())) >= share:
            return None
        return self._ended[1] if self._ended is not None and self._ended[0] == rows else None

    def _mask_bases(self, bases: Tensor, targets: Tensor, seed: int | None) -> tuple[Tensor, Tensor]:
        """Return bases (B, L) with some masked or replaced, and the targets (B, L) at the selected positions only."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        drawn = [torch.rand(bases.shape, generator=generator).to(bases.device) for _ in range(2)]
        others = torch.randint(NUM_BASES, bases.shape, generator=generator).to(bases.device)
        selected = (targets >= 0) & (drawn[0] < self.config.task.masked_share)
        corrupted = torch.where(drawn[1] < _MASKED, MASK_TOKEN, torch.where(drawn[1] < _REPLACED, others, bases))
        return torch.where(selected, corrupted, bases), targets.masked_fill(~selected, _IGNORE_INDEX)

    def _measure(self, split: str, batch: StreamBatch, seed: int) -> None:
        scores, targets = self._read(split, batch, seed)
        scored = targets >= 0
        count = int(scored.sum())
        if not count:
            return
        bits = F.cross_entropy(scores[scored].float(), targets[scored]) / log(2)
        self.bits.update(bits, count)
        self.hits.update((scores[scored].argmax(dim=1) == targets[scored]).float().mean(), count)
        if split == "test":
            total, bases = self.bits_by_segment.get(batch.number, (0.0, 0.0))
            self.bits_by_segment[batch.number] = (total + float(bits) * count, bases + count)

    def _log_metrics(self, split: str) -> None:
        if not self.bits.update_called and self.trainer.world_size == 1:  # other processes may have targets
            share = self.config.task.masked_share
            reason = (
                "no stream is longer than the receptive field of the stem"
                if self.next
                else f"task.masked_share={share} masked none of so few bases"
            )
            raise InputError(f"{_SPLITS[split]} bases: {reason}; raise data.fraction or choose longer records")
        bits = self.bits.compute()
        scores = {"bits_per_base": bits, "perplexity": 2**bits, "accuracy": self.hits.compute()}
        self.bits.reset()
        self.hits.reset()
        self.log_dict({f"{split}/{name}": value for name, value in scores.items()}, prog_bar=True)
