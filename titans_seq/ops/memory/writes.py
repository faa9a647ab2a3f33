"""The sequential half of a segment: what each chunk writes, and the state it leaves behind.

Shape suffixes: N chunks of the segment, G = batch x heads, C tokens of a chunk, I and O a layer's input and output
features. W and S of a layer stand side by side in one matrix, so that one product serves both: M (I, 2 O) = [W | S].
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.mlp import ActivationFunction

State = list[Tensor]  # per layer M_GIO2: W and S side by side


class UpdateShares(NamedTuple):
    """How a chunk's end depends on its start and on its writes; the last rows of the decay tables."""

    weights_N1: Tensor  # of the start's W in the end's W, (N, G, 1, 1), as the next two
    surprise_N1: Tensor  # of the start's S in the end's W
    momentum_N1: Tensor  # of the start's S in the end's S
    writes_NGC2: Tensor  # of each write, times its lr, in the end's W and S, (N, G, C, 2)


class Writes(NamedTuple):
    """What the forward pass over a segment's chunks leaves for the reads and for the backward pass; lists by layer."""

    inputs_NGCI: list[Tensor]  # the layers' inputs for the chunk's keys
    hidden_NGCO: list[Tensor]  # the pre-activations of all layers but the last
    errors_NGCO: list[Tensor]  # the inner gradient is inputs^T errors
    starts_NGIO2: list[Tensor]  # M at each chunk's start
    references: list[list[Tensor]]  # by chunk, then layer: the weights at which the gradient was taken, (G, I, O)


def write_segment(
    k_NGCI: Tensor,
    v_NGCO: Tensor,
    shares: UpdateShares,
    state: State,
    reference: list[Tensor] | None,
    anchor: list[Tensor] | None,
    act: ActivationFunction,
) -> tuple[Writes, State]:
    """Walk over the chunks. `reference`: the weights for the first chunk's gradient, where they are not its start's."""
    layers, chunks = len(state), len(k_NGCI)
    sizes = [m.shape[-1] // 2 for m in state]
    inputs = [k_NGCI, *(k_NGCI.new_empty(*k_NGCI.shape[:-1], size) for size in sizes[:-1])]
    hidden = [torch.empty_like(x) for x in inputs[1:]]
    errors = [k_NGCI.new_empty(*k_NGCI.shape[:-1], size) for size in sizes]
    starts = [m.new_empty(chunks, *m.shape) for m in state]
    references = []
    for n in range(chunks):
        for layer in range(layers):
            starts[layer][n] = state[layer]
        state = [s[n] for s in starts]
        at = (
            reference
            if n == 0 and reference is not None
            else [m[..., :size] for m, size in zip(state, sizes, strict=True)]
        )
        references.append(at)
        for layer in range(layers - 1):
            torch.bmm(inputs[layer][n], at[layer], out=hidden[layer][n])
            inputs[layer + 1][n] = act.value(hidden[layer][n])
        torch.baddbmm(v_NGCO[n], inputs[-1][n], at[-1], beta=-2, alpha=2, out=errors[-1][n])
        for layer in reversed(range(layers - 1)):
            back = torch.bmm(errors[layer + 1][n], at[layer + 1].mT)
            torch.mul(back, act.slope(hidden[layer][n]), out=errors[layer][n])
        anchors: Sequence[Tensor | None] = anchor or [None] * layers
        state = [_update(state[i], inputs[i][n], errors[i][n], shares, n, anchors[i]) for i in range(layers)]
    return Writes(inputs, hidden, errors, starts, references), state


def _update(
    start_GIO2: Tensor, x_GCI: Tensor, delta_GCO: Tensor, shares: UpdateShares, n: int, anchor_GIO: Tensor | None
) -> Tensor:
    size = delta_GCO.shape[-1]
    end = torch.empty_like(start_GIO2)
    torch.mul(start_GIO2[..., :size], shares.weights_N1[n], out=end[..., :size])
    end[..., :size].addcmul_(start_GIO2[..., size:], shares.surprise_N1[n])
    torch.mul(start_GIO2[..., size:], shares.momentum_N1[n], out=end[..., size:])
    if anchor_GIO is not None:
        end[..., :size].addcmul_(1 - shares.weights_N1[n], anchor_GIO)
    return end.baddbmm_(x_GCI.mT, spread(delta_GCO, shares.writes_NGC2[n]), alpha=-1)


def spread(delta: Tensor, writes: Tensor) -> Tensor:
    """Errors (..., C, O) times the writes' two shares (..., C, 2), side by side: (..., C, 2 O)."""
    return (writes.unsqueeze(-1) * delta.unsqueeze(-2)).flatten(-2)


class WritesGradient(NamedTuple):
    """Gradients of what `write_segment` took, and of the states it passed on."""

    k_NGCI: Tensor
    v_NGCO: Tensor
    shares: UpdateShares
    state: State
    reference: list[Tensor] | None
    anchor: list[Tensor] | None


def write_segment_backward(
    writes: Writes,
    shares: UpdateShares,
    d_state: State,
    d_inputs: list[Tensor],
    d_errors: list[Tensor],
    d_starts: list[Tensor],
    separate_reference: bool,
    anchor: list[Tensor] | None,
    act: ActivationFunction,
) -> WritesGradient:
    """Walk back over the chunks.

    Takes the gradients of the end state and, from the reads, those of the layers' inputs, errors and chunk starts; the
    three lists are used up.
    """
    layers, chunks = len(d_state), len(writes.inputs_NGCI[0])
    sizes = [e.shape[-1] for e in writes.errors_NGCO]
    slopes = [act.slope(z) for z in writes.hidden_NGCO]
    curvatures = [act.curvature(z) for z in writes.hidden_NGCO]
    d_ends = [torch.empty_like(s) for s in writes.starts_NGIO2]
    d_reference = None
    for n in reversed(range(chunks)):
        for layer in range(layers):
            x, delta, d_end = writes.inputs_NGCI[layer][n], writes.errors_NGCO[layer][n], d_state[layer]
            d_ends[layer][n] = d_end
            pull = torch.bmm(x, d_end).unflatten(-1, (2, sizes[layer]))
            d_errors[layer][n].sub_((pull * shares.writes_NGC2[n].unsqueeze(-1)).sum(-2))
            d_inputs[layer][n].baddbmm_(spread(delta, shares.writes_NGC2[n]), d_end.mT, alpha=-1)
        d_weights = _inner_gradient_backward(writes, n, slopes, curvatures, d_inputs, d_errors)
        d_state = [_update_backward(d_starts[i][n], d_ends[i][n], shares, n) for i in range(layers)]
        if n == 0 and separate_reference:
            d_reference = d_weights
        else:
            for m, d_weight, size in zip(d_state, d_weights, sizes, strict=True):
                m[..., :size].add_(d_weight)
    d_shares = _shares_backward(writes, d_ends, anchor)
    d_anchor = None
    if anchor is not None:
        forgotten = 1 - shares.weights_N1
        d_anchor = [(forgotten * d[..., :size]).sum(0) for d, size in zip(d_ends, sizes, strict=True)]
    return WritesGradient(d_inputs[0], d_errors[-1].mul_(-2), d_shares, d_state, d_reference, d_anchor)


def _inner_gradient_backward(
    writes: Writes,
    n: int,
    slopes: list[Tensor],
    curvatures: list[Tensor],
    d_inputs: list[Tensor],
    d_errors: list[Tensor],
) -> list[Tensor]:
    """Back through one chunk's key pass and its inner backward pass; the gradients of the weights it was taken at.

    On return d_inputs[0] is the gradient of the keys, and that of the last layer's error has to be doubled and negated
    to be that of the values.
    """
    at, layers = writes.references[n], len(slopes) + 1
    d_weights: list[Tensor] = [at[0]] * layers
    d_hidden: list[Tensor] = [at[0]] * (layers - 1)
    # The inner backward pass ran from the last layer to the first, so its gradient runs upwards.
    for i in range(layers - 1):
        above = writes.errors_NGCO[i + 1][n]
        d_back = d_errors[i][n] * slopes[i][n]
        d_hidden[i] = d_errors[i][n] * curvatures[i][n] * torch.bmm(above, at[i + 1].mT)
        d_errors[i + 1][n].baddbmm_(d_back, at[i + 1])
        d_weights[i + 1] = torch.bmm(d_back.mT, above)
    d_out = d_errors[-1][n]
    for i in reversed(range(layers)):
        factor = 2 if i == layers - 1 else 1  # the loss is a square without 1/2
        into = torch.bmm(writes.inputs_NGCI[i][n].mT, d_out)
        d_weights[i] = into.mul_(factor) if i == 0 else d_weights[i].add_(into, alpha=factor)
        d_inputs[i][n].baddbmm_(d_out, at[i].mT, alpha=factor)
        if i:
            d_out = torch.addcmul(d_hidden[i - 1], d_inputs[i][n], slopes[i - 1][n])
    return d_weights


def _update_backward(d_start_GIO2: Tensor, d_end_GIO2: Tensor, shares: UpdateShares, n: int) -> Tensor:
    size = d_end_GIO2.shape[-1] // 2
    d_end_weights = d_end_GIO2[..., :size]
    d_start_GIO2[..., :size].addcmul_(shares.weights_N1[n], d_end_weights)
    d_start_GIO2[..., size:].addcmul_(shares.surprise_N1[n], d_end_weights)
    d_start_GIO2[..., size:].addcmul_(shares.momentum_N1[n], d_end_GIO2[..., size:])
    return d_start_GIO2


def _shares_backward(writes: Writes, d_ends: list[Tensor], anchor: list[Tensor] | None) -> UpdateShares:
    """All chunks at once: no share depends on another chunk's."""
    weights, surprise, momentum, pairs = [], [], [], []
    for layer, (start, d_end, x, delta) in enumerate(
        zip(writes.starts_NGIO2, d_ends, writes.inputs_NGCI, writes.errors_NGCO, strict=True)
    ):
        size = delta.shape[-1]
        d_end_weights, d_end_surprise = d_end[..., :size], d_end[..., size:]
        old = start[..., :size] if anchor is None else start[..., :size] - anchor[layer]
        weights.append((old * d_end_weights).sum((-2, -1), keepdim=True))
        surprise.append((start[..., size:] * d_end_weights).sum((-2, -1), keepdim=True))
        momentum.append((start[..., size:] * d_end_surprise).sum((-2, -1), keepdim=True))
        pull = (x @ d_end).unflatten(-1, (2, size))
        pairs.append((pull * delta.unsqueeze(-2)).sum(-1).neg_())
    return UpdateShares(*(torch.stack(parts).sum(0) for parts in (weights, surprise, momentum, pairs)))
