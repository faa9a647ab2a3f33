"""MAL, MAG and MAC against Titans' equations, token by token in float64: memory reads, attention, writes and gates.

The memory layer itself is called token by token; `tests/nn` and `tests/ops` test it against its equations.
"""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.backbone.test_variants import LENGTH, SEGMENT, build, tokens
from tests.nn.attention_reference import naive_attention, rotate
from titans_seq.backbone.mac import MACBlock
from titans_seq.backbone.mag import MAGBlock
from titans_seq.backbone.mal import MALBlock
from titans_seq.nn import NeuralMemory

ROTARY_BASE = 10_000.0


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """Apply RMSNorm with the weight of `norm`."""
    assert isinstance(norm.weight, Tensor)
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight


def gated(block: Any, attention_out: Tensor, memory_out: Tensor) -> Tensor:
    """Gate as in eqs 25 and 28, see `NormalisedGate`."""
    other = normed(memory_out, block.gate.remembered_norm)
    return normed(attention_out, block.gate.attended_norm) * other * torch.sigmoid(other)


def write_and_read(memory: NeuralMemory, x_TC: Tensor) -> Tensor:
    """Return each token's memory output, after writing the tokens up to and including it."""
    outputs, state = [], None
    for x in x_TC:
        y, state = memory(x.view(1, 1, -1), state)
        outputs.append(y.view(-1))
    return torch.stack(outputs)


def read_memory(memory: NeuralMemory, x: Tensor, weights: Tensor) -> Tensor:
    """Read M(q) of one token from a matrix memory (H, D, D): eq 21."""
    heads, width = weights.shape[:2]
    q = F.silu(memory.qkv.weight[: len(x)] @ x).view(heads, width)
    read = (q / q.norm(dim=-1, keepdim=True)).unsqueeze(1) @ weights
    gate = F.silu(memory.out_gate.weight @ x)
    out: Tensor = memory.out.weight @ (normed(read.squeeze(1), memory.norm).flatten() * gate)
    return out


def with_ffn(block: Any, x: Tensor) -> Tensor:
    out: Tensor = x + block.ffn(normed(x, block.ffn_norm))
    return out


def mal(block: MALBlock, x: Tensor) -> Tensor:
    """Compute eqs 29 to 31, with a residual connection around each layer."""
    x = x + write_and_read(block.memory, normed(x, block.memory_norm))
    return with_ffn(block, x + naive_attention(block.attention, normed(x, block.attention_norm)))


def mag(block: MAGBlock, x: Tensor) -> Tensor:
    """Compute eqs 26 to 28."""
    s = normed(x, block.norm)
    return with_ffn(block, x + gated(block, naive_attention(block.attention, s), write_and_read(block.memory, s)))


def mac(block: MACBlock, x: Tensor) -> Tensor:
    """Compute eqs 21 to 25, segment by segment."""
    state, outputs = None, []
    for segment in normed(x, block.norm).split(SEGMENT):
        start = block.memory.start_weights()[0] if state is None else state.memory.weights[0][0]
        reads = [read_memory(block.memory, s, start) for s in segment]
        for i in range(len(segment)):
            attention_out = attend(block, reads[: i + 1], segment[: i + 1])
            memory_out, state = block.memory(attention_out.view(1, 1, -1), state)
            outputs.append(gated(block, attention_out, memory_out.view(-1)))
    return with_ffn(block, x + torch.stack(outputs))


def attend(block: MACBlock, reads: list[Tensor], segment: Tensor) -> Tensor:
    """Attend with the last token of `segment` over [persistent | reads | segment] (eqs 22 and 23)."""
    layer = block.attention
    heads, rotated = layer.num_heads, layer.rotated
    to_q, to_k, to_v = layer.qkv.weight.chunk(3)

    def by_head(w: Tensor, x: Tensor, position: int | None) -> Tensor:
        split = (w @ x).view(heads, -1)
        return split if position is None else rotate(split, position, rotated, ROTARY_BASE)

    q = by_head(to_q, segment[-1], len(segment) - 1)
    keys = [F.pad(key, (rotated, 0)) for key in layer.persistent_keys]
    values = list(layer.persistent_values)
    for source in (reads, segment):
        keys += [by_head(to_k, x, i) for i, x in enumerate(source)]
        values += [by_head(to_v, x, None) for x in source]
    scores = torch.stack([(q * key).sum(-1) / sqrt(q.shape[-1]) for key in keys])
    y = (scores.softmax(0).unsqueeze(-1) * torch.stack(values)).sum(0)
    out: Tensor = layer.out.weight @ y.flatten()
    return out


REFERENCES: dict[str, Any] = {"mal": mal, "mag": mag, "mac": mac}


@pytest.mark.parametrize("variant", REFERENCES)
@pytest.mark.parametrize("num_heads", [1, 2])
def test_a_stack_equals_the_equations(variant: str, num_heads: int) -> None:
    model = build(variant, num_heads=num_heads)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "qkv.weight")):
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    x = tokens(batch=2, length=LENGTH)
    found, _ = model(x)
    streams = list(x)
    for block in model.blocks:
        streams = [REFERENCES[variant](block, stream) for stream in streams]
    expected = torch.stack(streams)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    inputs, direction = [x, *model.parameters()], torch.randn_like(found)
    gradients = (torch.autograd.grad((y * direction).sum(), inputs) for y in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
