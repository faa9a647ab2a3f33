"""Tests at lengths of up to two million bytes, in pieces with the state carried, and the gates of a trained model."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from haystack.hiding import HAYSTACKS, MORE_KEYS, Sample, hide_pairs
from haystack.models import Model, memories

PIECE = 1024
LENGTHS = (*(1024 << i for i in range(7)), 1 << 18, 1 << 21)
CAPACITIES, CAPACITY_LENGTHS = (1, 4, 16, 32, 64), (1024, 1 << 16, 1 << 18)


@torch.inference_mode()
def test(model: Model, haystack: str, seed: int, lengths: Sequence[int]) -> dict[str, Any]:
    """Return by length: accuracy per answer and per haystack (all answers), questions, time per byte, state's size."""
    generator = torch.Generator().manual_seed(2000 + seed)
    names = ("answer", "haystack", "questions", "microseconds_per_byte", "state_bytes")
    found: dict[str, Any] = {name: {} for name in names}
    for length in lengths:
        sample = HAYSTACKS[haystack].sample(64 if length <= 8192 else 16, length, generator, False)
        start = time.process_time()
        right, state = answers_right(model, sample)
        seconds = time.process_time() - start
        size = sum(x.numel() * x.element_size() for x in tensors(state)) // len(sample.tokens)
        figures = (right.double().mean().item(), right.all(1).double().mean().item(), right.numel())
        values = (*figures, 1e6 * seconds / sample.tokens.numel(), size)
        for name, value in zip(names, values, strict=True):
            found[name][length] = round(value, 4)
    return found


@torch.inference_mode()
def test_capacity(model: Model, seed: int, lengths: Sequence[int]) -> dict[str, Any]:
    """Return the accuracy per answer by number of pairs and length."""
    generator = torch.Generator().manual_seed(2000 + seed)
    found: dict[str, Any] = {}
    for pairs in CAPACITIES:
        rows = max(8, 64 // pairs)
        samples = (hide_pairs(rows, length, generator, pairs, MORE_KEYS) for length in lengths)
        right = [answers_right(model, sample)[0] for sample in samples]
        found[str(pairs)] = {
            length: round(x.double().mean().item(), 4) for length, x in zip(lengths, right, strict=True)
        }
    return {"answer_by_pairs": found}


def answers_right(model: Model, sample: Sample) -> tuple[Tensor, Any]:
    """Read a sample in pieces; return which answers are right in all bytes (B, questions), and the state."""
    *early, last = sample.tokens.split(PIECE, dim=1)
    if last.shape[1] < sample.asking:
        raise ValueError(f"the last piece must hold all questions, {sample.asking} bytes; it has {last.shape[1]}")
    state = None
    for piece in early:
        state = model.read(piece, state)
    logits, state = model(last, sample.at, state)
    return (logits.argmax(-1) == sample.answers).all(-1), state


def tensors(state: Any) -> Iterator[Tensor]:
    """Yield the tensors of a backbone's state."""
    for block in state:
        yield from block.named_tensors().values()


@torch.inference_mode()
def gates_on_noise(model: Model, haystack: str, seed: int) -> list[dict[str, list[float]]]:
    """Return the gates on noise after 1,024 bytes of it, by layer and head.

    "lr": mean learning rate. "lr_open", "forget_open": fractions of the noise at which a gate is not 0. "left":
    fraction of a write that remains after 1,024 bytes.
    """
    noise = HAYSTACKS[haystack].noise(16, 2048, torch.Generator().manual_seed(3000 + seed), False)
    state = model.read(noise[:, :1024])
    layers = []
    for memory in memories(model):
        seen: list[Tensor] = []
        hook = memory.register_forward_pre_hook(lambda _module, inputs, seen=seen: seen.append(inputs[0]))
        model.read(noise[:, 1024:], state)
        hook.remove()
        lr, _, forget = (gate.double() for gate in memory._gate(torch.cat(seen, 1)))
        by_head = {
            "lr": lr.mean((0, 1)),
            "lr_open": (lr > 0).double().mean((0, 1)),
            "forget_open": (forget > 0).double().mean((0, 1)),
            "left": (1 - forget).log().mean((0, 1)).mul(1024).exp(),
        }
        layers.append({name: [round(x, 6) for x in values.tolist()] for name, values in by_head.items()})
    return layers
