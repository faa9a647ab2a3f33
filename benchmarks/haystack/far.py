"""Questions after a stretch of noise that is read without a gradient: a training that feels what is far."""

from typing import Any

import torch
from torch import Tensor

from haystack.hiding import Sample
from haystack.models import Model
from titans_seq.backbone.mac import MACState
from titans_seq.ops import MemoryState


def ask_from_afar(model: Model, sample: Sample, noise: Tensor) -> Tensor:
    """Return the answers' logits after the haystack, then noise (B, far), then the questions.

    The noise is read without a gradient. What it did to the memory is added to the memory that the haystack left, as a
    constant: the loss is that of the long sequence, and its gradient reaches the needles and the haystack's own noise,
    whose gates are those of the long noise.
    """
    haystack, questions = sample.tokens.split([sample.tokens.shape[1] - sample.asking, sample.asking], dim=1)
    near = model.read(haystack)
    with torch.no_grad():
        far = model.read(noise, near)
    logits, _ = model(questions, sample.at, _moved(near, far))
    return logits


def _moved(near: Any, far: Any) -> Any:
    """Return the state `far`, whose memory passes gradients to that of `near`; attention's caches pass none."""
    if isinstance(far, MemoryState):
        weights, chunk_start = (
            [_shifted(a, b) for a, b in zip(*pair, strict=True)]
            for pair in ((near.weights, far.weights), (near.weights, far.chunk_start))
        )
        return MemoryState(weights, [x.detach() for x in far.surprise], chunk_start, far.position)
    if isinstance(far, MACState):
        weights = near.memory.memory.weights
        reading = [_shifted(a, b) for a, b in zip(weights, far.reading, strict=True)]
        return far.detach()._replace(memory=_moved(near.memory, far.memory), reading=reading)
    if isinstance(far, Tensor):
        return far.detach()
    if isinstance(far, tuple):
        return type(far)(*(_moved(a, b) for a, b in zip(near, far, strict=True)))
    if isinstance(far, list):
        return [_moved(a, b) for a, b in zip(near, far, strict=True)]
    return far


def _shifted(near: Tensor, far: Tensor) -> Tensor:
    return near + (far - near).detach()
